"""Every notebook in a real JupyterLab: opened, run from top to bottom, no error in a cell and none in the console."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab")

from tests.browser.lab_page import CHROMIUM, FLAGS, NotebookPage, jupyter_lab  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
_SETTLE_MS = 2000


@pytest.fixture(scope="module")
def opened(known_ceilings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], NotebookPage]]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: `make chromium` says how to get it")
    folder = tmp_path_factory.mktemp("notebooks")
    for notebook in NOTEBOOKS:
        shutil.copy(notebook, folder)
    environment = {"WORKBENCH_CACHE": str(known_ceilings)}
    with jupyter_lab(folder, environment) as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield lambda name: NotebookPage(
            browser.new_page(viewport={"width": 1280, "height": 1000}), address.format(name)
        )
        browser.close()


@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_every_cell_runs_and_nothing_complains(opened: Callable[[str], NotebookPage], name: str) -> None:
    notebook = opened(name)
    page = notebook.page
    page.evaluate("window.jupyterapp.commands.execute('editmenu:clear-all')")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")  # ends with the last cell
    made = page.evaluate("window.jupyterapp.shell.currentWidget.content.model.toJSON()")
    outputs = [output for cell in made["cells"] for output in cell.get("outputs", [])]
    assert all(cell["execution_count"] for cell in made["cells"] if cell["cell_type"] == "code" and cell["source"])
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert any("data" in output for output in outputs)
    page.wait_for_timeout(_SETTLE_MS)  # widgets draw after their cell has ended
    assert notebook.complaints == []
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    page.close()
