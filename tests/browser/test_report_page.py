"""The report in a real browser: offline, from a file, with every figure drawn and no name obeyed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from workbench.diagnosis.diagnosis import diagnose
from workbench.report.html import write_report
from workbench.runs.reader import RunFolder

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Hostile(RunFolder):
    """A run whose names try to run as scripts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        model = self.manifest.model.model_copy(update={"name": HOSTILE})
        self.manifest = self.manifest.model_copy(update={"model": model})

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        found = super().table(name, columns)
        return found.assign(name=HOSTILE) if name in ("nodes", "kernels", "launches") else found


class Opened:
    """A page with all that it complained about and asked for."""

    def __init__(self, context: Any, file: Path) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.page.wait_for_selector("html[data-figures=drawn]", timeout=60_000)

    def timeline_range(self) -> list[float]:
        return self.page.evaluate("document.querySelector('[data-figure=timeline]').layout.xaxis.range.map(Number)")


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: `make chromium` says how to get it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_offline(True)
        yield context
        browser.close()


def report_of(run: RunFolder, folder: Path) -> Path:
    return write_report(run, diagnose(run), folder / "report.html")


@pytest.fixture(scope="module")
def opened(context: Any, h200: Path, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return Opened(context, report_of(RunFolder(h200 / "compute_numpy"), tmp_path_factory.mktemp("page")))


def test_every_figure_is_drawn_without_a_complaint(opened: Opened) -> None:
    places = opened.page.locator("[data-figure]")
    assert places.count() == 7
    for at in range(6):
        assert places.nth(at).locator("svg.main-svg").count() > 0
        assert places.nth(at).locator(".trace, .bars, .lines path").count() > 0
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith(("file:", "blob:", "data:"))] == []


def test_the_verdict_is_on_the_first_screen(opened: Opened) -> None:
    box = opened.page.locator("#verdict .name").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 900
    assert opened.page.locator("#verdict .name").inner_text() == "PCIe copies"


def test_no_button_sends_the_figures_away(opened: Opened) -> None:
    titles = opened.page.locator(".modebar-btn").evaluate_all("all => all.map((each) => each.dataset.title)")
    assert "Zoom" in titles
    assert not [title for title in titles if re.search("share|cloud|upload|send|edit", title, re.IGNORECASE)]


def test_nothing_is_wider_than_the_page(opened: Opened) -> None:
    for width in (1920, 1280):
        opened.page.set_viewport_size({"width": width, "height": 900})
        opened.page.wait_for_timeout(300)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width


def test_labels_of_the_timeline_lie_inside_its_picture(opened: Opened) -> None:
    inside = opened.page.evaluate(
        """() => {
          const place = document.querySelector('[data-figure=timeline]');
          const frame = place.getBoundingClientRect();
          return [...place.querySelectorAll('.ytick text, .xtick text, .legendtext, .xtitle')].map((label) => {
            const box = label.getBoundingClientRect();
            return box.left >= frame.left && box.right <= frame.right && box.bottom <= frame.bottom;
          });
        }"""
    )
    assert len(inside) > 10
    assert all(inside)


def test_the_timeline_shows_what_lies_under_the_mouse_and_zooms(opened: Opened) -> None:
    page = opened.page
    place = page.locator("[data-figure=timeline]")
    place.scroll_into_view_if_needed()
    lanes = place.locator(".ytick text").all_text_contents()
    row = place.locator(".ytick").nth(lanes.index("copies to device")).bounding_box()
    plot = place.locator(".nsewdrag").first.bounding_box()
    assert row is not None
    assert plot is not None
    middle = row["y"] + row["height"] / 2
    page.mouse.move(plot["x"] + 0.2 * plot["width"], middle)
    page.mouse.move(plot["x"] + 0.25 * plot["width"], middle, steps=4)
    hover = place.locator(".hoverlayer .hovertext")
    hover.wait_for()
    assert re.search(r"copy: [\d.]+ ms\s*h2d, 33\.6 MB of input x at [\d.]+ GB/s", hover.text_content())

    before = opened.timeline_range()
    page.mouse.move(plot["x"] + 0.5 * plot["width"], middle)
    page.mouse.down()
    page.mouse.move(plot["x"] + 0.6 * plot["width"], middle, steps=5)
    page.mouse.up()
    page.wait_for_timeout(500)
    zoomed = opened.timeline_range()
    assert zoomed[1] - zoomed[0] == pytest.approx(0.1 * (before[1] - before[0]), rel=0.1)
    assert before[0] < zoomed[0] < zoomed[1] < before[1]
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page(opened: Opened, scheme: str) -> None:
    opened.page.emulate_media(color_scheme=scheme)
    colours = opened.page.evaluate(
        """() => {
          const of = (element, name) => getComputedStyle(element)[name].match(/[\\d.]+/g).slice(0, 3).map(Number);
          const label = document.querySelector('[data-figure=timeline] .ytick text');
          return [of(document.body, 'backgroundColor'), of(document.body, 'color'), of(label, 'fill')];
        }"""
    )
    page, *texts = (_luminance(colour) for colour in colours)
    for text in texts:
        assert (max(page, text) + 0.05) / (min(page, text) + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


def _luminance(colour: list[float]) -> float:
    """Relative luminance of sRGB 0..255 (WCAG 2.2)."""
    parts = [value / 255 for value in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_hostile_names_are_text(context: Any, h200: Path, tmp_path: Path) -> None:
    opened = Opened(context, report_of(Hostile(h200 / "compute_numpy"), tmp_path))
    assert opened.complaints == []
    assert HOSTILE in opened.page.locator("h1").inner_text()
    assert HOSTILE in opened.page.locator("#nodes ~ .scroll td").first.inner_text()
    labels = opened.page.locator("[data-figure=nodes] .ytick text").all_text_contents()
    assert any("<script>" in label or "</script>" in label for label in labels)
    assert opened.page.locator("img").count() == 0
    opened.page.close()
