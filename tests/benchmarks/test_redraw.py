"""How quickly the timeline of a million intervals answers a gesture, in JupyterLab with a live kernel.

Times are taken in the browser: from the event to the first frame that shows it, with the marks at hand moved and
scaled, and to the frame that shows the marks of the new window, which the kernel has worked out meanwhile. Gestures
come one after another with pauses of up to half a second, so that some meet the tables being recomputed.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.synthetic_export import write_export

pytest.importorskip("anywidget")
from browser.lab_page import CHROMIUM, FLAGS, NotebookPage, jupyter_lab, write_notebook

from workbench.analysis.levels import MOST_MARKS
from workbench.api import import_run

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser

KERNELS, GESTURES, SEED = 1_000_000, 150, 20_26
LOST_MS = 10_000

WATCH = """
() => {
  const root = document.querySelector(".wb-timeline");
  window.seen = { first: [], fresh: [], marks: [] };
  const painted = (since, list) => requestAnimationFrame(() => setTimeout(() => list.push(performance.now() - since)));
  for (const kind of ["keydown", "wheel"])
    root.addEventListener(kind, (event) => painted(event.timeStamp, window.seen.first), true);
  root.addEventListener("wb-drawn", ({ detail }) => {
    if (detail.event === null || detail.event === undefined) return;
    window.seen.marks.push(detail.marks);
    painted(detail.event, window.seen.fresh);
  });
}
"""


def percentiles(milliseconds: list[float]) -> str:
    return "  ".join(f"{at} %: {np.percentile(milliseconds, at):6.1f} ms" for at in (50, 95, 100))


def gesture(page: Any, draw: random.Random, box: dict[str, float]) -> None:
    """One of what a reader does: into the depth and out again, sideways, and all at once."""
    kind = draw.choice(["w", "w", "w", "wheel", "wheel", "s", "a", "d", "Home"])
    if kind != "wheel":
        page.keyboard.press(kind)
        return
    page.mouse.move(box["x"] + 200 + draw.random() * (box["width"] - 220), box["y"] + 40)
    page.mouse.wheel(0, draw.choice([-240, -240, 120]))


def test_redraw_of_a_million_intervals(tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: `make chromium` says how to get it")
    write_export(tmp_path / "million.sqlite", KERNELS, SEED)
    import_run(tmp_path / "million.sqlite", range="measure", out=tmp_path / "run")
    code = f"from workbench.api.widgets import explore\nexplore({str(tmp_path / 'run')!r})"
    write_notebook(tmp_path / "redraw.ipynb", code)
    draw = random.Random(SEED)
    with jupyter_lab(tmp_path, {}) as address, sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1200})
        notebook = NotebookPage(page, address.format("redraw.ipynb"))
        notebook.run_all()
        page.locator(".wb-grid .row").filter(visible=True).first.wait_for(timeout=180_000)
        page.locator(".wb-timeline").focus()
        page.evaluate(WATCH)
        box = page.locator(".wb-timeline canvas").bounding_box()
        for at in range(1, GESTURES + 1):
            gesture(page, draw, box)
            page.wait_for_function(f"window.seen.fresh.length >= {at}", timeout=LOST_MS, polling=10)
            page.wait_for_timeout(draw.random() * 500)
        seen = page.evaluate("window.seen")
        browser.close()
    print(f"\n{GESTURES} gestures on {KERNELS:,} kernels and as many launches, 1600 pixels; event to painted frame")
    print(f"{'moved and scaled':20}{percentiles(seen['first'])}")
    print(f"{'marks of the window':20}{percentiles(seen['fresh'])}")
    print(f"{'marks in view':20}at most {max(seen['marks']):,}")
    assert len(seen["fresh"]) == GESTURES
    assert max(seen["marks"]) <= MOST_MARKS
    assert notebook.complaints == []
