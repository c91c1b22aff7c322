"""The notebooks are committed small, and each runs from top to bottom without a GPU."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NAMES = [
    "01_first_diagnosis", "02_four_bottlenecks", "03_config_lab", "04_read_an_nsight_report", "05_cold_start",
    "06_batch_and_concurrency", "07_precision", "08_write_the_ticket",
]  # fmt: skip
MOST_BYTES = 300_000
RICH = {"text/html", "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"}
HEAVY = {"application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"}
"""A figure's data, and a view of a widget whose state no file holds."""
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|usr|var|opt|work|Users)/|\b[A-Z]:\\\\")


def committed(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for cell in code_cells(notebook) for output in cell["outputs"]]


def without_images(notebook: dict[str, Any]) -> str:
    for output in outputs(notebook):
        output.get("data", {}).pop("image/png", None)
    return json.dumps(notebook, ensure_ascii=False)


def test_there_are_eight():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_committed_small_with_what_it_shows(name):
    notebook = committed(name)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < MOST_BYTES
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"  # without it JupyterLab stops to ask
    assert all(cell["execution_count"] for cell in code_cells(notebook))
    assert not [output for output in outputs(notebook) if output["output_type"] == "error"]
    kinds = {kind for output in outputs(notebook) for kind in output.get("data", {})}
    assert not kinds & HEAVY
    assert kinds & {"text/html", "image/png"}


@pytest.mark.parametrize("name", NAMES)
def test_it_names_no_folder_of_the_machine_that_it_was_run_on(name):
    assert not ABSOLUTE.findall(without_images(committed(name)))


@pytest.mark.parametrize(
    ("text", "found"), [("/home/me/run", True), ("see runs/tmp/x", False), ("https://x.org/home/", False)]
)
def test_absolute_paths_are_recognised(text, found):
    assert bool(ABSOLUTE.search(text)) == found


def test_the_first_diagnosis_takes_ten_cells():
    assert len(committed(NAMES[0])["cells"]) == 10


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name, known_ceilings, tmp_path, monkeypatch):
    import nbformat  # takes seconds, which every run of other tests would pay
    from nbclient import NotebookClient

    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = outputs(notebook)
    assert not [output for output in shown if output["output_type"] == "error"]
    assert "Traceback" not in "".join(output["text"] for output in shown if output["output_type"] == "stream")
    assert RICH & {kind for output in shown for kind in output.get("data", {})}
