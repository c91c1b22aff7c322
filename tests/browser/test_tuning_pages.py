"""The page of a tuning in a real browser: offline, every figure drawn, nothing cut off, at both ends of the widths."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workbench.api import Tuning
from workbench.report.tuned_html import write_tuning_page

sync_api = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def file(h200_experiments: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tuning_page(Tuning(h200_experiments / "resnet50-b1"), tmp_path_factory.mktemp("page") / "tuning.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: `make chromium` says how to get it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (420, "dark")])
def test_every_figure_is_drawn_and_nothing_is_wider_than_the_page(
    browser: Any, file: Path, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_offline(True)
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-figures=drawn]", timeout=60_000)
    page.locator("details").evaluate_all("all => all.forEach((each) => { each.open = true; })")
    for name in ("levers", "rounds", "front"):
        assert page.locator(f"[data-figure={name}] .trace path").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator("#verdict .name").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] < 900
    inside = page.evaluate(
        """() => [...document.querySelectorAll('[data-figure]')].flatMap((place) => {
          const frame = place.getBoundingClientRect();
          return [...place.querySelectorAll('.ytick text, .xtick text, .legendtext, .xtitle')].map((label) => {
            const box = label.getBoundingClientRect();
            return box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.bottom <= frame.bottom + 1;
          });
        })"""
    )
    assert len(inside) > 20
    assert all(inside)
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "blob:", "data:"))] == []
    context.close()
