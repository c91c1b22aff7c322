"""The lab in JupyterLab: a real experiment on the CPU provider, another one cancelled, and a replay."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("jupyterlab")

from tests.browser.lab_page import CHROMIUM, FLAGS, NotebookPage, jupyter_lab, write_notebook  # noqa: E402
from workbench import zoo  # noqa: E402
from workbench.config import RunConfig  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LIVE = """
from workbench.api.widgets import lab
bench = lab({"model": "small.onnx", "provider": "cpu", "budget": {"seconds": 0.2, "min_seconds": 0, "nodes_calls": 3}})
bench
"""
REPLAY = """
from workbench.api.tuning import recorded
from workbench.api.widgets import lab
lab(recorded()["resnet50-b32"])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lab")


@pytest.fixture(scope="module")
def opened(folder: Path, known_ceilings: Path) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: `make chromium` says how to get it")
    zoo.write("launch", folder / "small.onnx", nodes=6, width=8)
    write_notebook(folder / "live.ipynb", LIVE)
    write_notebook(folder / "replay.ipynb", REPLAY)
    with (
        jupyter_lab(folder, {"WORKBENCH_CACHE": str(known_ceilings)}) as address,
        sync_api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def open_notebook(name: str, width: int = 1280) -> NotebookPage:
            page = browser.new_page(viewport={"width": width, "height": 1000})
            return NotebookPage(page, address.format(name))

        yield open_notebook
        browser.close()


def test_a_real_experiment_runs_beside_the_notebook_and_another_is_cancelled(opened: Any, folder: Path) -> None:
    notebook = opened("live.ipynb")
    page = notebook.page
    notebook.run_all()
    page.get_by_text("Recording the base: done.").first.wait_for(timeout=90_000)
    page.get_by_text("On a CPU the pieces do not say what another option gives").wait_for()
    box = page.get_by_label("threads-1", exact=True)
    box.focus()
    page.keyboard.press("Space")
    assert box.is_checked()
    page.get_by_label("rounds", exact=True).fill("3")
    page.get_by_label("rounds", exact=True).press("Enter")
    notebook.button("Measure").click()
    page.get_by_text(re.compile("record base, ")).wait_for(timeout=30_000)
    assert notebook.execute("6 * 7") == "ok"  # the kernel is free
    page.get_by_text("Best so far").wait_for(timeout=120_000)
    assert page.locator("table.history tr.result").count() == 1
    page.locator(".plotly .trace path").first.wait_for(state="attached", timeout=20_000)
    page.get_by_label("file", exact=True).fill("written.yaml")
    page.get_by_label("file", exact=True).press("Tab")
    notebook.button("Write the configuration").click()
    page.get_by_text("workbench profile --config written.yaml").wait_for()
    assert RunConfig.load(folder / "written.yaml").provider == "cpu"

    page.get_by_label("rounds", exact=True).fill("50")
    page.get_by_label("rounds", exact=True).press("Enter")
    notebook.button("Measure").click()
    page.get_by_text(re.compile("round 1, ")).first.wait_for(timeout=90_000)
    notebook.button("Cancel").click()
    page.get_by_text(re.compile("Cancelled. .* Kept in runs")).first.wait_for(timeout=60_000)
    assert page.locator("table.history tr.result").count() == 2
    page.get_by_text("It was cancelled: what is shown was measured until then.").wait_for()
    assert notebook.button("Measure").is_enabled()
    assert notebook.complaints == []
    page.close()


def test_a_replay_says_what_it_is_and_shows_the_record(opened: Any) -> None:
    notebook = opened("replay.ipynb")
    page = notebook.page
    notebook.run_all()
    page.get_by_text("Recorded on NVIDIA H200").wait_for(timeout=60_000)
    for number in (1, 2):
        notebook.button("Round by round").click()
        page.get_by_text(f"{number} of 5 rounds, as recorded.").first.wait_for()
    notebook.button("Show all").click()
    page.get_by_text("Best so far (experiment 1 of 1)").wait_for()
    row = page.locator("table.history tr.result", has_text="float16").first
    assert "0.742×" in row.inner_text()
    assert "0.722× to 0.762×" in row.inner_text()
    page.locator(".plotly .trace path").first.wait_for(state="attached", timeout=20_000)
    assert notebook.complaints == []
    page.close()
