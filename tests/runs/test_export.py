"""Exports as CSV, read back by the csv module, and as Parquet, by pandas; and what is refused in every format."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.errors import ConfigError, DiskFullError, RunFolderError
from workbench.runs.export import export_run
from workbench.runs.reader import RunFolder
from workbench.runs.schema import TABLES
from workbench.runs.writer import write_table

H200 = Path(__file__).parents[1] / "data" / "h200"
T0 = 1_795_269_828_160_378_230


def made(folder: Path, **tables: dict[str, Any] | pa.Table) -> RunFolder:
    """A run of these tables, its manifest taken from a real one."""
    folder.mkdir()
    shutil.copy(H200 / "launch_numpy" / "manifest.json", folder)
    for name, columns in tables.items():
        write_table(folder, name, columns)
    return RunFolder(folder)


def test_csv_reads_back_and_formulas_are_defused(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "'=x", "plain", 'a "b", c\r\nd', "ключ", None, "a=b"]
    n = len(texts)
    run = made(
        tmp_path / "run",
        ranges={"pass": ["activity"] * n, "start_ns": [-5] * n, "end_ns": [T0] * n, "name": texts, "open": [True] * n},
        samples={"pass": ["latency"] * 2, "time_ns": [1, 2], "device": [None, 0], "metric": ["m"] * 2,
                 "value": [0.1 + 0.2, -1e-300]},
    )  # fmt: skip
    files = export_run(run, "csv", tmp_path / "csv")
    assert sorted(files) == sorted((tmp_path / "csv").iterdir())
    with (tmp_path / "csv" / "ranges.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [row["name"] for row in rows]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    assert [cell.removeprefix("'") for cell in cells] == [text or "" for text in texts]
    assert cells[7:] == [text or "" for text in texts[7:]]
    assert {(row["start_ns"], row["end_ns"], row["thread"]) for row in rows} == {("-5", str(T0), "")}
    assert (tmp_path / "csv" / "ranges.csv").read_bytes().endswith(b"\r\n")
    with (tmp_path / "csv" / "samples.csv").open(newline="") as file:
        assert [(row["device"], float(row["value"])) for row in csv.DictReader(file)] == [
            ("", 0.1 + 0.2),
            ("0", -1e-300),
        ]


def test_parquet_reads_back_equal_with_plain_strings_and_opens_as_a_run(tmp_path: Path) -> None:
    run = RunFolder(H200 / "resnet50_b1_graph")
    files = export_run(run, "parquet", tmp_path / "parquet")
    assert sorted(files) == sorted((tmp_path / "parquet").iterdir())
    again = RunFolder(tmp_path / "parquet")
    assert again.manifest == run.manifest
    for name in (name for name in TABLES if run.has(name)):
        schema = pq.read_schema(tmp_path / "parquet" / f"{name}.parquet")
        assert not any(pa.types.is_dictionary(kind) for kind in schema.types)
        pd.testing.assert_frame_equal(again.table(name), run.table(name), check_categorical=False)


def test_only_the_chosen_passes_are_written(tmp_path: Path) -> None:
    run = RunFolder(H200 / "launch_numpy")
    export_run(run, "parquet", tmp_path / "some", passes=["activity"])
    some = RunFolder(tmp_path / "some")
    assert set(some.kernels["pass"]) == {"activity"}
    assert len(some.kernels) == int((run.kernels["pass"] == "activity").sum())
    with pytest.raises(ConfigError, match="no pass 'actvity'"):
        export_run(run, "csv", tmp_path / "none", passes=["actvity"])


@pytest.mark.parametrize("kind", ["perfetto", "csv", "parquet"])
def test_a_refused_export_says_why_and_leaves_nothing(kind: Any, tmp_path: Path) -> None:
    run = RunFolder(shutil.copytree(H200 / "pcie_device", tmp_path / "run"))
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(RunFolderError, match="exists already"):
        export_run(run, kind, tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"
    with pytest.raises(RunFolderError, match="cannot be made"):
        export_run(run, kind, tmp_path / "taken" / "below")

    file = run.folder / "kernels.parquet"
    file.write_bytes(file.read_bytes()[:-20] + bytes(20))
    with pytest.raises(RunFolderError, match=r"kernels\.parquet is damaged"):
        export_run(run, kind, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "taken"]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workbench.runs.export.perfetto.interleave", full)
    with pytest.raises(DiskFullError):
        export_run(RunFolder(H200 / "pcie_device"), "perfetto", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_said_and_a_target_is_found_beside_the_run(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    with pytest.raises(ConfigError, match="'json' is unknown"):
        export_run(run, "json")  # type: ignore[arg-type]
    assert export_run(run, "perfetto") == [tmp_path / "run.perfetto-trace"]
    assert json.loads(export_run(run, "parquet")[0].read_text()) == json.loads(
        (run.folder / "manifest.json").read_text()
    )
