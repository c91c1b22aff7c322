"""`explore` in a real JupyterLab: zoom, pick, filter, jump and compare, the numbers held against the run's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anywidget")
pytest.importorskip("jupyterlab")
from lab_page import CHROMIUM, FLAGS, NotebookPage, jupyter_lab, write_notebook

from workbench.analysis.tables import measured_calls
from workbench.api import Run
from workbench.figures.units import format_ns
from workbench.widgets.explore_trace import traced

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RUN, OTHER = "resnet50_b1_numpy", "resnet50_b1_device"


@pytest.fixture(scope="module")
def notebook(h200: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookPage]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: `make chromium` says how to get it")
    folder = tmp_path_factory.mktemp("lab")
    explored = f"from workbench.api.widgets import explore\nexplorer = explore({str(h200 / RUN)!r})\nexplorer"
    pair = f"pair = explore({str(h200 / RUN)!r}, {str(h200 / OTHER)!r})\npair"
    write_notebook(folder / "explore.ipynb", explored, pair)
    with jupyter_lab(folder, {}) as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1500})
        opened = NotebookPage(page, address.format("explore.ipynb"))
        opened.run_all()
        page.locator(".wb-timeline canvas").nth(2).wait_for(timeout=90_000)
        page.locator(".wb-grid .row").first.wait_for()
        yield opened
        browser.close()


@pytest.fixture
def run(recorded: Callable[[str], Run]) -> Run:
    return recorded(RUN)


def timeline(notebook: NotebookPage, at: int = 0) -> Any:
    return notebook.page.locator(".wb-timeline").nth(at)


def rows(notebook: NotebookPage, grid: int = 0) -> list[list[str]]:
    """The cells of the rows in view."""
    found = notebook.page.locator(".wb-grid").nth(grid).locator(".row")
    return found.evaluate_all("all => all.map((row) => [...row.children].map((cell) => cell.textContent))")


def settle(notebook: NotebookPage) -> None:
    notebook.page.wait_for_timeout(900)


def test_the_table_holds_the_numbers_of_the_run(notebook: NotebookPage, run: Run) -> None:
    nodes = run.diagnosis.nodes.nodes
    total = (nodes["time_ns"] * len(measured_calls(run, "nodes"))).round()
    shown = {row[0]: row[2] for row in rows(notebook)}
    assert len(shown) > 10
    named = dict(zip(nodes["name"], total, strict=True))
    assert shown == {name: format_ns(named[name]) for name in shown}


def test_a_jump_to_a_call_recomputes_the_table(notebook: NotebookPage, run: Run) -> None:
    field = notebook.page.get_by_label("call", exact=True)
    field.fill("12")
    field.press("Enter")
    settle(notebook)
    shown = traced(run, "nodes")
    start, end = shown.call_ns(12)
    margin = int((end - start) * 0.04)
    table = shown.trace.node_table(start - margin, end + margin).set_index("name")["time_ns"]
    assert {row[0]: row[2] for row in rows(notebook)} == {row[0]: format_ns(table[row[0]]) for row in rows(notebook)}


def test_zooming_by_key_narrows_what_is_in_view(notebook: NotebookPage) -> None:
    before = notebook.page.locator("h4", has_text="in view").first.inner_text()
    timeline(notebook).focus()
    cells = notebook.page.locator(".jp-Cell").count()
    for key in ("w", "w", "a", "d", "s", "w"):
        notebook.page.keyboard.press(key)
    settle(notebook)
    assert notebook.page.locator("h4", has_text="in view").first.inner_text() != before
    assert notebook.page.locator(".jp-Cell").count() == cells  # JupyterLab took none of the letters for its own


def test_a_picked_row_is_picked_in_the_other_parts(notebook: NotebookPage, run: Run) -> None:
    name = rows(notebook)[1][0]
    notebook.page.locator(".wb-grid").first.locator(".row").nth(1).click()
    notebook.page.locator(".lm-TabBar-tabLabel", has_text="Roofline").click()
    notebook.page.locator(".js-plotly-plot .scatterlayer").first.wait_for(timeout=60_000)
    settle(notebook)
    faded = notebook.page.locator(".js-plotly-plot path.point").evaluate_all(
        "all => all.filter((dot) => Number(dot.style.opacity) < 0.3).length"
    )
    assert faded > 50
    notebook.page.locator(".lm-TabBar-tabLabel", has_text="Nodes").click()
    settle(notebook)
    assert notebook.page.locator("[aria-selected=true].row span").first.inner_text() == name
    timeline(notebook).focus()
    notebook.page.keyboard.press("Escape")
    settle(notebook)
    assert notebook.page.locator("[aria-selected=true].row").count() == 0


def test_a_node_walked_to_in_the_timeline_is_marked_in_the_table(notebook: NotebookPage) -> None:
    timeline(notebook).focus()
    for key in ("n", "j", "n"):
        notebook.page.keyboard.press(key)
        settle(notebook)
    tip = notebook.page.locator(".wb-tip").first.inner_text().splitlines()[0]
    assert notebook.page.locator("[aria-selected=true].row span").first.inner_text() == tip
    notebook.page.keyboard.press("Escape")


def test_a_filter_narrows_the_table(notebook: NotebookPage) -> None:
    field = notebook.page.get_by_placeholder("filter nodes and kernels").first
    field.fill("^(Gemm|MaxPool)$")
    notebook.page.get_by_label("regular expression").first.check()
    notebook.page.keyboard.press("Home")
    timeline(notebook).focus()
    notebook.page.keyboard.press("Home")
    settle(notebook)
    assert {row[1] for row in rows(notebook)} <= {"Gemm", "MaxPool"}
    assert rows(notebook)
    field.fill("")
    settle(notebook)
    assert len(rows(notebook)) > 10


def test_it_says_the_next_finding(notebook: NotebookPage, run: Run) -> None:
    notebook.button("Next finding").click()
    settle(notebook)
    assert run.findings[0].said in notebook.page.locator("[role=status]").first.inner_text()


def test_two_runs_move_together(notebook: NotebookPage, recorded: Callable[[str], Run]) -> None:
    grid = notebook.page.locator(".wb-grid").last
    grid.scroll_into_view_if_needed()
    settle(notebook)
    last = notebook.page.locator(".wb-grid").count() - 1
    compared = {row[0]: row[2:4] for row in rows(notebook, last)}
    for at, name in enumerate((RUN, OTHER)):
        shown = traced(recorded(name), "nodes")
        first = int(measured_calls(recorded(name), "nodes")["call"].iloc[0])
        table = shown.trace.node_table(*shown.call_ns(first)).set_index("name")["time_ns"]
        assert {node: cells[at] for node, cells in compared.items()} == {
            node: format_ns(table[node]) for node in compared
        }
    lengths = notebook.page.locator("h4", has_text="in view")
    timeline(notebook, 1).focus()
    notebook.page.keyboard.press("w")
    settle(notebook)
    shown = [lengths.nth(at).inner_text().split(" in view")[0] for at in (1, 2)]
    assert shown[0] == shown[1]


def test_the_browser_has_nothing_to_complain_of(notebook: NotebookPage) -> None:
    assert notebook.complaints == []
