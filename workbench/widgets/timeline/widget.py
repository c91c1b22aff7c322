"""The timeline as a widget: it answers for the marks of any window, and tells what was picked and where one looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anywidget
import traitlets

from workbench.widgets.base import STYLE
from workbench.widgets.timeline.marks import Lit, MarkSource

_HERE: Final = Path(__file__).parent
MOST_PIXELS: Final = 8192
_LONGEST_NS: Final = 1 << 52


def stylesheet() -> str:
    """The style of the timeline and the table, with that of all widgets."""
    return STYLE + (_HERE / "timeline.css").read_text(encoding="utf-8")


def _module() -> str:
    return "".join((_HERE / name).read_text(encoding="utf-8") for name in ("format.js", "paint.js", "timeline.js"))


@dataclass(frozen=True)
class Picked:
    """A mark that was picked: its lane, its times in nanoseconds of the run's clock, and whether it is one interval."""

    lane: str
    start_ns: int
    end_ns: int
    name: str
    single: bool


class Timeline(anywidget.AnyWidget):
    """Marks of one pass on a canvas.

    view: the edges of what is seen, in nanoseconds since `source.levels.origin_ns`; it follows a moment after the last
    gesture, and may be set. span: the edges of everything. selecting: whether some marks are lit and the others dimmed.
    """

    _esm = _module()
    _css = stylesheet()
    lanes: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    kinds: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    span = traitlets.List([0, 1]).tag(sync=True)
    view = traitlets.List([0, 1]).tag(sync=True)
    selecting = traitlets.Bool(False).tag(sync=True)

    def __init__(self, source: MarkSource, view_ns: tuple[int, int], **more: Any) -> None:
        super().__init__(**more)
        self._lit: Lit | None = None
        self._picked: Callable[[Picked | None], None] = lambda picked: None
        self.show(source, view_ns)
        self.on_msg(self._answer)

    def show(self, source: MarkSource, view_ns: tuple[int, int]) -> None:
        """Show another pass, and [start, end) of it."""
        self.source, self._lit = source, None
        levels = source.levels
        with self.hold_sync():
            self.selecting = False
            self.kinds = source.kinds()
            self.span = [levels.start_ns - levels.origin_ns, max(levels.end_ns, levels.start_ns + 1) - levels.origin_ns]
            self.look(*view_ns)
            self.lanes = [{"label": each.label, "count": each.count, "busy_ns": each.busy_ns} for each in levels.lanes]

    def look(self, start_ns: int, end_ns: int) -> None:
        """Bring [start, end), in nanoseconds of the run's clock, into view."""
        origin = self.source.levels.origin_ns
        self.view = [start_ns - origin, max(end_ns, start_ns + 1) - origin]

    @property
    def view_ns(self) -> tuple[int, int]:
        """The window in view, in nanoseconds of the run's clock."""
        start, end = (int(edge) + self.source.levels.origin_ns for edge in self.view)
        return start, max(end, start + 1)

    def light(self, lit: Lit | None) -> None:
        """Dim everything but this; None for nothing dimmed."""
        self._lit = lit
        self.selecting = lit is not None
        self.send({"type": "refresh"})

    def on_pick(self, picked: Callable[[Picked | None], None]) -> None:
        """Call this when a mark is picked, with None when it is let go."""
        self._picked = picked

    def _answer(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if content.get("type") == "window":
            start, end = self._bounded(content["start"], content["end"])
            found = self.source.columns(start, end, min(max(int(content["pixels"]), 1), MOST_PIXELS), self._lit)
            self.send({"type": "marks", "id": content["id"], "names": found.names}, found.buffers)
        elif content.get("type") == "pick":
            origin, lane = self.source.levels.origin_ns, int(content["lane"])
            edges = int(content["start"]) + origin, int(content["end"]) + origin
            name, single = str(content["name"]), bool(content["single"])
            self._picked(Picked(self.source.levels.lanes[lane].label, *edges, name, single))
        elif content.get("type") == "unpick":
            self._picked(None)

    def _bounded(self, start: float, end: float) -> tuple[int, int]:
        origin = self.source.levels.origin_ns
        first = int(min(max(start, -_LONGEST_NS), _LONGEST_NS))
        return first + origin, max(int(min(end, _LONGEST_NS)), first + 1) + origin
