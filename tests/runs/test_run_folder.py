"""The run folder: what is written is checked, is whole or absent, and opens again."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.errors import DiskFullError, RunFolderError, WorkerError
from workbench.runs.manifest import DeviceInfo, Manifest, ModelInfo
from workbench.runs.reader import RunFolder
from workbench.runs.schema import SCHEMA_VERSION, TABLES
from workbench.runs.writer import (
    full_disk_is_said,
    full_disk_is_suspected,
    new_run_folder,
    to_table,
    write_manifest,
    write_table,
)

LATENCY = {
    "pass": ["latency"] * 3,
    "process": [7] * 3,
    "call": [0, 1, 2],
    "phase": ["cold", "warm-up", "measured"],
    "start_ns": np.array([10, 20, 30], np.int64) + 1_700_000_000_000_000_000,
    "duration_ns": [9, 2, 1],
}


@pytest.fixture
def folder(tmp_path):
    with new_run_folder(tmp_path / "run") as partial:
        write_table(partial, "latency", LATENCY)
        write_manifest(
            partial,
            Manifest(
                workbench_version="0",
                created_ns=1,
                complete=True,
                config={"model": "m"},
                model=ModelInfo(name="m", sha256="0", file_bytes=1),
                device=DeviceInfo(kind="cpu", name="a CPU"),
            ),
        )
    return tmp_path / "run"


def change_manifest(folder, **changes):
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refusal_of(folder):
    with pytest.raises(RunFolderError) as refusal:
        RunFolder(folder)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_what_was_written_is_read_with_the_declared_types(folder):
    table = RunFolder(folder).latency
    assert table["start_ns"].tolist() == LATENCY["start_ns"].tolist()
    assert table["phase"].tolist() == LATENCY["phase"]
    assert pq.read_schema(folder / "latency.parquet").equals(TABLES["latency"])


def test_the_schema_declares_units_and_plain_names():
    for name, schema in TABLES.items():
        assert all(field.name == field.name.strip("_") for field in schema), name
        for field in schema:
            if field.name.endswith("_ns") or field.name.endswith("_bytes"):
                assert pa.types.is_integer(field.type), (name, field.name)


def test_a_column_that_the_source_lacks_is_unknown_and_not_zero(tmp_path):
    table = to_table("copies", {"start_ns": [1], "end_ns": [2], "bytes": [3]})
    assert table["stream"].to_pylist() == [None]
    assert table.schema.equals(TABLES["copies"])


def test_a_column_that_is_not_declared_is_refused(tmp_path):
    with pytest.raises(KeyError, match="duration_us"):
        write_table(tmp_path, "latency", {**LATENCY, "duration_us": [1, 2, 3]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [["soon", "later", "never"], [2**70, 0, 0], [0.5, 1.5, 2.5]])
def test_a_value_of_another_type_is_refused(tmp_path, wrong):
    with pytest.raises((pa.ArrowException, OverflowError)):
        write_table(tmp_path, "latency", {**LATENCY, "duration_ns": wrong})
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_the_run_lacks_is_empty_with_its_columns(folder):
    run = RunFolder(folder)
    assert not run.has("kernels")
    assert list(run.kernels.columns) == TABLES["kernels"].names
    assert len(run.kernels) == 0
    with pytest.raises(AttributeError, match="kernel"):
        _ = run.kernel
    assert {"kernels", "latency", "sql"} <= set(dir(run))


def test_a_newer_minor_version_opens_with_what_is_known(folder):
    major, minor = SCHEMA_VERSION
    change_manifest(folder, schema_version=[major, minor + 1], invented="tomorrow")
    newer = pq.read_table(folder / "latency.parquet").append_column("energy_joule", [[1.0, 2.0, 3.0]])
    pq.write_table(newer, folder / "latency.parquet")
    assert list(RunFolder(folder).latency.columns) == TABLES["latency"].names


def test_a_newer_major_version_says_so(folder):
    change_manifest(folder, schema_version=[SCHEMA_VERSION[0] + 1, 0])
    assert "update the package" in refusal_of(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"schema_version": "new"}', '{"schema_version": [1]}', '{"schema_version": [null, 0]}'],
)
def test_a_damaged_manifest_is_said(folder, text):
    (folder / "manifest.json").write_text(text)
    assert "manifest.json is damaged" in refusal_of(folder)


def test_a_manifest_with_a_wrong_value_names_the_place(folder):
    change_manifest(folder, device={"kind": "abacus", "name": "wood"})
    assert "device.kind" in refusal_of(folder)
    (folder / "manifest.json").write_bytes(b"\xff\xfe")
    assert "damaged" in refusal_of(folder)


def test_a_folder_without_a_manifest_is_no_run(tmp_path):
    assert "is not a run" in refusal_of(tmp_path)
    assert "is not a run" in refusal_of(tmp_path / "none")


def test_a_damaged_table_is_said_and_the_others_open(folder):
    file = folder / "steps.parquet"
    file.write_bytes((folder / "latency.parquet").read_bytes()[:200])
    run = RunFolder(folder)
    with pytest.raises(RunFolderError, match=r"steps\.parquet is damaged"):
        _ = run.steps
    assert len(run.latency) == 3


def test_a_table_whose_values_have_another_type_is_damaged(folder):
    wrong = pa.table({**LATENCY, "duration_ns": ["a", "b", "c"]})
    pq.write_table(wrong, folder / "latency.parquet")
    with pytest.raises(RunFolderError, match="damaged"):
        _ = RunFolder(folder).latency


def test_sql_sees_every_table_of_the_run(folder):
    found = RunFolder(folder).sql("SELECT phase, sum(duration_ns) AS total FROM latency GROUP BY phase ORDER BY total")
    assert isinstance(found, pd.DataFrame)
    assert found["total"].tolist() == [1, 2, 9]


def test_sql_works_below_a_folder_with_a_quote_in_its_name(folder, tmp_path):
    quoted = tmp_path / "o'run"
    folder.rename(quoted)
    assert RunFolder(quoted).sql("SELECT count(*) AS n FROM latency")["n"].tolist() == [3]


def test_a_complete_folder_appears_at_once(tmp_path):
    target = tmp_path / "deep" / "run"
    with new_run_folder(target) as partial:
        (partial / "file").write_text("1")
        assert not target.exists()
    assert [path.name for path in target.parent.iterdir()] == ["run"]
    assert (target / "file").read_text() == "1"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_exception(tmp_path, error):
    def fill_and_fail():
        with new_run_folder(tmp_path / "run") as partial:
            (partial / "file").write_text("1")
            raise error

    with pytest.raises(error):
        fill_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_and_kept(folder):
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(RunFolderError, match="exists already"), new_run_folder(folder):
        pytest.fail("the block must not run")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_folder_that_appears_in_the_meantime_is_kept(tmp_path):
    target = tmp_path / "run"

    def fill_while_another_does():
        with new_run_folder(target) as partial:
            (partial / "ours").write_text("1")
            target.mkdir()
            (target / "theirs").write_text("2")

    with pytest.raises(RunFolderError, match="cannot be made"):
        fill_while_another_does()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in target.iterdir()] == ["theirs"]


def test_a_place_that_cannot_hold_a_folder_is_said(tmp_path):
    (tmp_path / "file").write_text("1")
    with pytest.raises(RunFolderError, match="cannot be made"), new_run_folder(tmp_path / "file" / "run"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, number):
    with pytest.raises(DiskFullError, match="free some space"), new_run_folder(tmp_path / "run"):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_failure_on_a_full_disk_is_said_to_be_one(tmp_path):
    def fail_without_a_reason():
        with full_disk_is_suspected(tmp_path):
            raise WorkerError("no reason")

    (tmp_path / "part").write_text("1")
    with pytest.raises(WorkerError, match="no reason"):
        fail_without_a_reason()
    (tmp_path / "part").unlink()
    (tmp_path / "part").symlink_to("/dev/full")
    with pytest.raises(DiskFullError):
        fail_without_a_reason()


def test_other_errors_of_the_system_pass_through(tmp_path):
    with pytest.raises(PermissionError), full_disk_is_said(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_the_repr_names_model_device_and_what_is_missing(folder):
    assert repr(RunFolder(folder)).startswith("<RunFolder m on a CPU: ")
    change_manifest(folder, complete=False)
    assert "incomplete" in repr(RunFolder(folder))
    assert RunFolder(folder).graph is None
