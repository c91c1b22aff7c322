"""A table as a widget: sorted and sent by Python a screen at a time, so that any length is as quick as a short one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import anywidget
import numpy as np
import pandas as pd
import traitlets

from workbench.widgets.timeline.widget import stylesheet

MOST_ROWS: Final = 400  # of one answer, which is several screens


class Column(NamedTuple):
    """A column to show: of the frame, its heading, how its values read, its width as CSS has it."""

    name: str
    heading: str
    show: Callable[[Any], str] = str
    width: str = "minmax(76px, 1fr)"
    number: bool = True


class Table(anywidget.AnyWidget):
    """Rows of a frame. selected: the value of `key` of the picked row, None for none."""

    _esm = Path(__file__).parent / "table.js"
    _css = stylesheet()
    columns: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    total = traitlets.Int(0).tag(sync=True)
    version = traitlets.Int(0).tag(sync=True)
    selected = traitlets.Int(None, allow_none=True).tag(sync=True)
    selected_at = traitlets.Int(-1).tag(sync=True)
    sort = traitlets.List([0, False]).tag(sync=True)
    height = traitlets.Int(300).tag(sync=True)
    empty = traitlets.Unicode("").tag(sync=True)

    def __init__(self, columns: Sequence[Column], key: str, *, sort_by: str, empty: str, **more: Any) -> None:
        super().__init__(empty=empty, **more)
        self._columns, self._key = list(columns), key
        self.columns = [{"label": each.heading, "number": each.number, "width": each.width} for each in columns]
        self.sort = [[each.name for each in columns].index(sort_by), True]
        self._picked: Callable[[int | None], None] = lambda key: None
        self.frame = pd.DataFrame({key: [], **{each.name: [] for each in columns}})
        self.on_msg(self._answer)

    def show(self, frame: pd.DataFrame) -> None:
        """Show these rows, in the order that the reader chose."""
        at, falling = self.sort
        name = self._columns[at].name
        self.frame = frame.sort_values(name, ascending=not falling, kind="stable", ignore_index=True)
        with self.hold_sync():
            self.total = len(self.frame)
            self._place()
            self.version += 1

    def pick(self, key: int | None) -> None:
        """Mark the row with this key; nobody is told."""
        with self.hold_sync():
            self.selected = key
            self._place()

    def on_pick(self, picked: Callable[[int | None], None]) -> None:
        """Call this when the reader picks a row, with its key, or lets it go, with None."""
        self._picked = picked

    def _place(self) -> None:
        keys = self.frame[self._key].to_numpy()
        found = np.flatnonzero(keys == self.selected) if self.selected is not None else np.empty(0, np.int64)
        self.selected_at = int(found[0]) if len(found) else -1

    def _answer(self, _: Any, content: dict[str, Any], __: Any) -> None:
        kind = content.get("type")
        if kind == "rows":
            start = max(int(content["start"]), 0)
            part = self.frame.iloc[start : min(int(content["stop"]), start + MOST_ROWS)]
            self.send({"type": "rows", "id": content["id"], "start": start, "rows": self._cells(part)})
        elif kind == "sort":
            at = min(max(int(content["column"]), 0), len(self._columns) - 1)
            self.sort = [at, not self.sort[1] if at == self.sort[0] else self._columns[at].number]
            self.show(self.frame)
        elif kind == "select":
            self._picked(None if content["id"] is None else int(content["id"]))
        elif kind == "step" and len(self.frame):
            at = min(max(self.selected_at + int(content["by"]), 0), len(self.frame) - 1)
            self._picked(int(self.frame[self._key].iloc[at]))

    def _cells(self, part: pd.DataFrame) -> list[list[Any]]:
        shown = [[each.show(value) for value in part[each.name]] for each in self._columns]
        return [[int(key), *cells] for key, *cells in zip(part[self._key], *shown, strict=True)]
