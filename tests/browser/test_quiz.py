"""The quiz in JupyterLab: wrong with the keyboard alone, then right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab")

from tests.browser.lab_page import CHROMIUM, FLAGS, NotebookPage, jupyter_lab, write_notebook  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]

CELL = """
from workbench.api.widgets import quiz
quiz("pcie", "resnet50")
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookPage]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: `make chromium` says how to get it")
    folder: Path = tmp_path_factory.mktemp("quiz")
    write_notebook(folder / "quiz.ipynb", CELL)
    with jupyter_lab(folder, {}) as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield NotebookPage(browser.new_page(viewport={"width": 1280, "height": 1000}), address.format("quiz.ipynb"))
        browser.close()


def test_wrong_and_right_answers(notebook: NotebookPage) -> None:
    page: Any = notebook.page
    notebook.run_all()
    page.get_by_text("What holds this run back?").wait_for(timeout=60_000)
    assert page.get_by_text("The arithmetic", exact=True).count() == 0
    notebook.button("compute").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    notebook.button("Answer").first.focus()
    page.keyboard.press("Space")
    page.get_by_text("Not memory.").wait_for()
    page.get_by_text("takes another road than a kernel's reads: PCIe").wait_for()
    assert page.get_by_text("The arithmetic", exact=True).count() == 0
    notebook.button("PCIe copies").click()
    notebook.button("Answer").first.click()
    page.get_by_text("Yes: PCIe copies.").wait_for()
    page.get_by_text("The arithmetic", exact=True).wait_for()
    page.get_by_text("0 of 1 right at the first try").wait_for()

    notebook.button("Next run").click()
    page.get_by_text("Run 2 of 2").wait_for()
    notebook.button("launch").click()
    notebook.button("Answer").first.click()
    page.get_by_text("What within launch?").wait_for()
    page.get_by_role("button", name="under-filled kernels").click()
    notebook.button("Answer").last.click()
    page.get_by_text("1 of 2 right at the first try").wait_for()
    page.get_by_text("launch = the host came late").wait_for()
    assert notebook.complaints == []
