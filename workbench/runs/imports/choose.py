"""Which part of a capture becomes the run: the phase, its calls, and the call that each row belongs to."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.runs.calls import OUTSIDE
from workbench.runs.imports.calls import Calls, RangeIndex, Window, shown
from workbench.runs.imports.draft import Draft
from workbench.runs.schema import TABLES

_EVERYTHING: Final = Window(-(1 << 62), 1 << 62)


def find_phase(ranges: RangeIndex | None, draft: Draft) -> Window | None:
    """The window of the range asked for, None for everything; raises `ConfigError` when it is not there."""
    name = draft.selection.range
    if name is None:
        return None
    if ranges is None:
        raise ConfigError(f"The capture holds no NVTX range, so none named {shown(name)}: leave --range out.")
    window, count = ranges.window(name)
    if count > 1:
        draft.notes.append(f"The range {shown(name)} occurs {count} times: the run reaches from the first to the last.")
    return window


def choose_calls(
    ranges: RangeIndex | None,
    known: Calls | None,
    window: Window | None,
    process: int | None,
    draft: Draft,
) -> tuple[Calls | None, Window | None]:
    """The calls of the run, None when nothing marks them; and the window of its rows: the phase, or those calls.

    known: calls that the capture itself tells, so that no range has to be looked for.
    """
    selection = draft.selection
    found = known
    if selection.call_range is not None or found is None:
        found = ranges.calls(selection.call_range, window, process) if ranges is not None else None
        if found is None and selection.call_range is not None:
            raise ConfigError(f"The capture holds no NVTX range {shown(selection.call_range)}: leave --call out.")
    if found is not None:
        found = found.inside(window or _EVERYTHING)
    if found is None or not len(found):
        if selection.calls is not None:
            raise ConfigError("Option 'calls' needs calls that are marked: name their NVTX range with --call.")
        draft.notes.append("Nothing marks the calls: all of the window counts as one.")
        return None, window
    if selection.calls is not None:
        found = found.chosen(*selection.calls)
        return found, found.window
    return found, window


def call_of(name: str, rows: pa.Table, calls: Calls | None) -> NDArray[np.int32] | None:
    """The call that each row begins in, None for a table without calls. Where nothing marks calls, all are call 0."""
    if "call" not in TABLES[name].names:
        return None
    if calls is None:
        return np.zeros(len(rows), np.int32)
    time = "start_ns" if "start_ns" in rows.column_names else "time_ns"
    if time not in rows.column_names:
        return np.full(len(rows), OUTSIDE, np.int32)
    return calls.numbers_of(rows[time].fill_null(-1).to_numpy())
