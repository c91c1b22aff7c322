"""The JavaScript of timeline and table in Chromium, on a bare page with a model that stands in for Python."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("anywidget")

from workbench.widgets.timeline.table import Table
from workbench.widgets.timeline.widget import Timeline, stylesheet

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
GUTTER, TOP, LANE = 172, 4, 24  # of paint.js, with two lanes
HOSTILE = "<img src=x onerror=\"document.title='obeyed'\">"
RED, BLUE = [213, 94, 0], [0, 114, 178]

# marks: [lane, start, end, name, kind, count, busy, flags]; an answer waits while `hold` is set
MODEL = """
window.fake = (values, marks) => {
  const handlers = {};
  const types = [Float64Array, Float64Array, Uint16Array, Int32Array, Uint8Array, Int32Array, Float32Array, Uint8Array];
  const model = { values, sent: [], hold: false, waiting: [],
    get: (name) => model.values[name],
    set: (name, value) => { model.values[name] = value; },
    save_changes: () => { model.saved = (model.saved ?? 0) + 1; },
    on: (name, act) => (handlers[name] ??= []).push(act),
    off: (name, act) => { handlers[name] = handlers[name].filter((each) => each !== act); },
    fire: (name, ...given) => handlers[name].forEach((each) => each(...given)),
    send: (message) => {
      model.sent.push(message);
      if (message.type === "window" && model.hold) model.waiting.push(message);
      else if (message.type === "window") setTimeout(() => model.answer(message), 1);
      if (message.type === "rows") setTimeout(() => model.fire("msg:custom", { type: "rows", id: message.id,
        start: message.start, rows: marks.slice(message.start, message.stop) }), 1);
    },
    answer: (message) => {
      const seen = marks.filter(([, start, end]) => end >= message.start && start <= message.end);
      const names = [...new Set(seen.map((each) => each[3]))];
      const columns = [1, 2, 0, (each) => names.indexOf(each[3]), 4, 5, 6, 7].map((at, which) => types[which].from(
        seen.map((each) => typeof at === "number" ? each[at] : at(each))));
      const buffers = columns.map((each) => new DataView(each.buffer));
      model.fire("msg:custom", { type: "marks", id: message.id, names }, buffers);
    },
  };
  return window.model = model;
};
"""
KINDS = [
    {"label": "", "colour": "rgb(138,143,152)", "on": "#000"},
    {"label": "compute", "colour": f"rgb({','.join(map(str, RED))})", "on": "#000"},
    {"label": "memory", "colour": f"rgb({','.join(map(str, BLUE))})", "on": "#fff"},
]
MARKS = [
    [0, 0, 400, "first", 1, 1, 1, 2], [0, 600, 1000, HOSTILE, 2, 1, 1, 2], [1, 200, 800, "many", 2, 7, 0.25, 0],
]  # fmt: skip


class Drawn:
    """A page that holds one widget."""

    def __init__(self, page: Any, code: str, values: dict[str, Any], rows: list[Any]) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.complaints.append(request.url) if "blob:" not in request.url else None)
        page.set_content(f"<style>{stylesheet()}</style><div id=place style='width:1172px'></div>")
        page.evaluate(MODEL)
        page.evaluate(
            """async ([code, values, rows]) => {
              const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
              const model = window.fake(values, rows);
              window.end = (await import(url)).default.render({ model, el: document.getElementById("place") });
            }""",
            [code, values, rows],
        )
        page.wait_for_timeout(150)

    def sent(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.page.evaluate("window.model.sent") if each["type"] == kind]

    def view(self) -> tuple[float, float]:
        """The window that was asked for last, without what is fetched around it."""
        last = self.sent("window")[-1]
        ahead = (last["end"] - last["start"]) / 6
        return last["start"] + ahead, last["end"] - ahead

    def colour(self, x: float, lane: int) -> list[int]:
        return self.page.evaluate(
            """([x, y]) => { const canvas = document.querySelector("canvas"), by = canvas.width / canvas.clientWidth;
              return [...canvas.getContext("2d").getImageData(x * by, y * by, 1, 1).data.slice(0, 4)]; }""",
            [x, TOP + lane * LANE + LANE - 4],
        )

    def at(self, time: float, lane: int = 0) -> tuple[float, float]:
        """The place on the page of a time in the first view."""
        box = self.page.locator("canvas").bounding_box()
        return box["x"] + GUTTER + time, box["y"] + TOP + lane * LANE + LANE / 2

    def settle(self) -> None:
        self.page.wait_for_timeout(400)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: `make chromium` says how to get it")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def opened(browser: Any, **context: Any) -> Drawn:
    lanes = [{"label": label, "count": 3, "busy_ns": 800} for label in ("nodes", "kernels")]
    values = {"lanes": lanes, "kinds": KINDS, "span": [0, 1000], "view": [0, 1000], "selecting": False}
    page = browser.new_context(viewport={"width": 1240, "height": 500}, **context).new_page()
    return Drawn(page, Timeline._esm if isinstance(Timeline._esm, str) else str(Timeline._esm), values, MARKS)


@pytest.fixture
def drawn(browser: Any) -> Iterator[Drawn]:
    drawn = opened(browser)
    yield drawn
    assert drawn.complaints == []
    assert drawn.page.title() != "obeyed"
    drawn.page.context.close()


def test_marks_lie_where_their_times_say_in_the_colour_of_their_class(drawn: Drawn) -> None:
    assert drawn.colour(GUTTER + 200, 0) == [*RED, 255]
    assert drawn.colour(GUTTER + 800, 0) == [*BLUE, 255]
    assert drawn.colour(GUTTER + 500, 0)[3] == 0
    assert 0 < drawn.colour(GUTTER + 500, 1)[3] < 200  # a quarter of it is covered, so that it is pale


def test_the_first_window_reaches_beyond_the_view(drawn: Drawn) -> None:
    first = drawn.sent("window")[0]
    assert (first["start"], first["end"]) == (-250, 1250)
    assert drawn.view() == (0, 1000)


def test_the_wheel_zooms_about_the_pointer_once_the_timeline_is_focused(drawn: Drawn) -> None:
    drawn.page.mouse.move(*drawn.at(250))
    drawn.page.mouse.wheel(0, -200)
    drawn.settle()
    assert drawn.view() == (0, 1000)  # a page that scrolls past is not held up
    drawn.page.locator(".wb-timeline").focus()
    drawn.page.mouse.wheel(0, -200)
    drawn.settle()
    start, end = drawn.view()
    assert end - start == pytest.approx(1000 * 2.718281828**-0.4, abs=3)
    assert (250 - start) / (end - start) == pytest.approx(0.25, abs=0.01)
    assert drawn.page.evaluate("window.model.values.view") == [round(start), round(end)]


def test_old_marks_move_at_once_while_the_new_ones_are_on_their_way(drawn: Drawn) -> None:
    drawn.page.evaluate("window.model.hold = true")
    drawn.page.mouse.move(*drawn.at(500))
    drawn.page.mouse.down()
    drawn.page.mouse.move(*drawn.at(600))
    drawn.page.mouse.move(*drawn.at(700))
    drawn.page.mouse.up()
    drawn.settle()
    assert drawn.colour(GUTTER + 400, 0) == [*RED, 255]
    assert drawn.colour(GUTTER + 100, 0)[3] == 0
    assert len(drawn.page.evaluate("window.model.waiting")) == 1  # one at a time; the last one wins
    drawn.page.evaluate("model.hold = false; model.answer(model.waiting[0])")
    drawn.settle()
    assert drawn.view() == pytest.approx((-200, 800), abs=2)
    assert drawn.sent("pick") == []


@pytest.mark.parametrize(
    ("key", "view"),
    [
        ("w", (150, 850)), ("ArrowUp", (150, 850)), ("d", (200, 1200)), ("ArrowRight", (200, 1200)),
        ("a", (-200, 800)), ("ArrowLeft", (-200, 800)),
    ],
)  # fmt: skip
def test_keys_zoom_and_pan_and_home_shows_all(drawn: Drawn, key: str, view: tuple[float, float]) -> None:
    drawn.page.locator(".wb-timeline").focus()
    drawn.page.keyboard.press(key)
    drawn.settle()
    assert drawn.view() == pytest.approx(view, abs=2)
    drawn.page.keyboard.press("Home")
    drawn.settle()
    assert drawn.view() == pytest.approx((-10, 1010), abs=2)


def test_a_click_picks_and_escape_lets_go(drawn: Drawn) -> None:
    drawn.page.mouse.click(*drawn.at(100))
    assert drawn.sent("pick") == [
        {"type": "pick", "lane": 0, "start": 0, "end": 400, "name": "first", "single": True}
    ]  # fmt: skip
    drawn.page.keyboard.press("Escape")
    assert len(drawn.sent("unpick")) == 1


def test_marks_are_walked_through_by_keys(drawn: Drawn) -> None:
    drawn.page.locator(".wb-timeline").focus()
    for key in ("n", "n", "p", "j"):
        drawn.page.keyboard.press(key)
        drawn.page.wait_for_timeout(60)
    assert [each["name"] for each in drawn.sent("pick")] == ["first", HOSTILE, "first", "many"]


def test_the_tip_tells_times_counts_and_names_as_text(drawn: Drawn) -> None:
    drawn.page.mouse.move(*drawn.at(700))
    tip = drawn.page.locator(".wb-tip")
    assert tip.inner_text().splitlines() == [HOSTILE, "400 ns, from 600 ns", "memory"]
    drawn.page.mouse.move(*drawn.at(500, lane=1))
    assert tip.inner_text().splitlines()[:2] == ["7 in 600 ns, 25 % of it covered", "most of it: many"]
    drawn.page.mouse.move(*drawn.at(-100, lane=1))
    assert tip.inner_text().splitlines() == ["kernels", "3 intervals, busy 800 ns"]
    drawn.page.mouse.move(*drawn.at(450))
    assert tip.is_hidden()


def test_what_is_not_lit_is_dimmed(drawn: Drawn) -> None:
    drawn.page.evaluate("model.values.selecting = true; model.fire('change:selecting')")
    drawn.settle()
    assert drawn.colour(GUTTER + 230, 0)[3] < 60


def test_a_kernel_that_does_not_answer_is_said(browser: Any) -> None:
    drawn = opened(browser)
    drawn.page.evaluate("model.hold = true")
    drawn.page.clock.install()
    drawn.page.locator(".wb-timeline").focus()
    drawn.page.keyboard.press("w")
    drawn.page.clock.fast_forward(7_000)
    assert "does not answer" in drawn.page.locator(".wb-status").inner_text()
    drawn.page.context.close()


def test_it_is_sharp_on_dense_screens_and_leaves_nothing_behind(browser: Any) -> None:
    drawn = opened(browser, device_scale_factor=2)
    width = drawn.page.evaluate(
        "[document.querySelector('canvas').width, document.querySelector('canvas').clientWidth]"
    )
    assert width[0] == 2 * width[1]
    assert drawn.colour(GUTTER + 200, 0) == [*RED, 255]
    before = len(drawn.sent("window"))
    drawn.page.evaluate("window.end(); model.fire('change:view')")
    drawn.page.set_viewport_size({"width": 700, "height": 500})
    drawn.settle()
    assert len(drawn.sent("window")) == before
    drawn.page.context.close()


@pytest.fixture
def table(browser: Any) -> Iterator[Drawn]:
    columns = [{"label": label, "number": label == "time", "width": "1fr"} for label in ("name", "time")]
    values = {"columns": columns, "total": 20_000, "version": 1, "selected": None, "selected_at": -1, "sort": [1, True],
              "height": 300, "empty": "nothing"}  # fmt: skip
    rows = [[at, HOSTILE if at == 0 else f"node {at}", f"{at} ns"] for at in range(20_000)]
    page = browser.new_context(viewport={"width": 1240, "height": 500}).new_page()
    drawn = Drawn(page, Table._esm.read_text() if hasattr(Table._esm, "read_text") else str(Table._esm), values, rows)
    yield drawn
    assert drawn.complaints == []
    assert page.title() != "obeyed"
    page.context.close()


def test_only_rows_in_view_are_held_and_names_are_text(table: Drawn) -> None:
    assert table.page.locator(".row").count() < 60
    assert table.page.locator(".row").first.locator("span").first.inner_text() == HOSTILE
    table.page.locator(".wb-grid").evaluate("grid => { grid.scrollTop = 22 * 15000; }")
    table.settle()
    assert table.page.get_by_text("node 15003", exact=True).is_visible()
    assert all(each["stop"] - each["start"] < 100 for each in table.sent("rows"))


def test_rows_are_picked_by_click_and_by_key_and_shown_when_picked_elsewhere(table: Drawn) -> None:
    table.page.get_by_text("node 3", exact=True).click()
    table.page.locator(".wb-grid").focus()
    table.page.keyboard.press("ArrowDown")
    table.page.keyboard.press("Escape")
    assert [each.get("id", each.get("by")) for each in table.sent("select") + table.sent("step")] == [3, None, 1]
    table.page.evaluate(
        "Object.assign(model.values, {selected: 9000, selected_at: 9000}); model.fire('change:selected_at')"
    )
    table.settle()
    assert table.page.locator("[aria-selected=true]").inner_text().split() == ["node", "9000", "9000", "ns"]


def test_a_heading_sorts(table: Drawn) -> None:
    assert table.page.get_by_role("columnheader").all_inner_texts() == ["name", "time ▾"]
    table.page.get_by_role("columnheader", name="name").click()
    assert table.sent("sort") == [{"type": "sort", "column": 0}]
