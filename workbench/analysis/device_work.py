"""All device work of one pass in one table, and what each call spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.call_windows import Spent, Work, connected, share_out, spent
from workbench.analysis.derived import kept_table
from workbench.analysis.gaps import UNKNOWN_LAUNCH
from workbench.analysis.intervals import Intervals, union
from workbench.analysis.pairing import Rows, launch_rows, taken
from workbench.analysis.some_calls import SomeCalls, call_blocks, work_per_call
from workbench.analysis.tables import WORK_TABLES, Tables, measured_calls, rows_of
from workbench.runs.memory import give_back_memory

HOST_COPIES: Final = ("h2d", "d2h")
_COLUMNS: Final = (
    "call", "start_ns", "end_ns", "process", "device", "stream", "correlation", "graph_node", "row", "name", "kind",
    "bytes",
)  # fmt: skip
_ONLY_IN: Final = {"name": ("kernels",), "kind": ("copies",), "bytes": ("copies", "memsets")}
CALL_TIMES_VERSION: Final = 1
"""Raise it when `call_times` changes its meaning: what is kept with a run is then worked out anew."""
_MOST_WORK: Final = 1 << 17  # pieces of device work that are held at once
_SIDE_BY_SIDE: Final = 2
_NONE: Final = np.empty(0, np.int64)
_NO_CALL: Final = -2  # no row has it; -1 stands for "outside every call"
_PIECES: Final = ["work_ns", "exposed_copy_ns", "host_ns", "launch_latency_ns", "sync_ns"]


def device_work(run: Tables, pass_name: str, columns: Sequence[str] = _COLUMNS) -> pd.DataFrame:
    """Kernels, copies, memsets and graph replays of one pass, by start time.

    Columns: `table` (Categorical), `host_copy` (crosses between host and device), and those chosen of `call`,
    `start_ns`, `end_ns`, `process`, `device`, `stream`, `correlation`, `graph_node`, `row` (index label in that table),
    `name` (kernels) and `kind` (copies), both Categorical, and `bytes` (copies and memsets).
    """
    parts, host_copy = {}, []
    for name in WORK_TABLES:
        held = [each for each in columns if each != "row" and name in _ONLY_IN.get(each, WORK_TABLES)]
        rows = rows_of(run, name, pass_name, [*held, "kind"] if name == "copies" and "kind" not in held else held)
        if not len(rows):
            continue
        parts[name] = rows
        crosses = rows["kind"].isin(HOST_COPIES).to_numpy() if name == "copies" else np.zeros(len(rows), np.bool_)
        host_copy.append(crosses)
    sizes = [len(rows) for rows in parts.values()]
    work = {each: _column(each, parts) for each in columns}
    tables = np.repeat([WORK_TABLES.index(name) for name in parts], sizes).astype(np.int8)
    work["table"] = pd.Series(pd.Categorical.from_codes(tables, pd.Index(WORK_TABLES)))
    work["host_copy"] = pd.Series(np.concatenate([*host_copy, np.empty(0, np.bool_)]))
    frame = pd.DataFrame(work, copy=False)
    starts = work["start_ns"].to_numpy(np.int64)
    if (starts[1:] >= starts[:-1]).all():
        return frame
    return frame.take(np.argsort(starts, kind="stable")).reset_index(drop=True)


def _column(column: str, parts: dict[str, pd.DataFrame]) -> pd.Series:
    """One column of all device work: the tables below one another, null where a table has no such column."""
    if column in ("name", "kind"):
        return _words(column, parts)
    if column == "row":
        return pd.Series(np.concatenate([*(rows.index.to_numpy(np.int64) for rows in parts.values()), _NONE]))
    if column == "bytes":
        sizes = [
            rows[column].astype("Int64") if column in rows else pd.Series(pd.NA, range(len(rows)), "Int64")
            for rows in parts.values()
        ]
        return pd.concat(sizes, ignore_index=True) if sizes else pd.Series(dtype="Int64")
    values = [rows[column].to_numpy() for rows in parts.values()]
    return pd.Series(values[0] if len(values) == 1 else np.concatenate(values or [_NONE]), copy=False)


def _words(column: str, parts: dict[str, pd.DataFrame]) -> pd.Series:
    """A text column that only one of the tables has, as Categorical."""
    held = {name: rows[column].astype("category").cat for name, rows in parts.items() if column in rows}
    codes = [
        held[name].codes.to_numpy() if name in held else np.full(len(rows), -1, np.int8) for name, rows in parts.items()
    ]
    categories = next((words.categories for words in held.values()), pd.Index([], dtype=object))
    return pd.Series(pd.Categorical.from_codes(np.concatenate(codes or [_NONE]), categories))


def contains(words: pd.Series, part: str) -> NDArray[np.bool_]:
    """Whether each text holds `part`, looked up once per distinct text: bool[n], False for null."""
    column = words.astype("category").cat
    hits = [part in str(word) for word in column.categories]
    return np.array([*hits, False])[column.codes.to_numpy()]


def call_times(run: Tables, pass_name: str) -> pd.DataFrame:
    """What each measured call of a traced pass spent, in int64 nanoseconds; index `call`.

    wall_ns: the call. work_ns: union of kernels, memsets, device-side copies and graph replays, |K|. copy_ns: union of
    host-device copies, |C|. exposed_copy_ns: |C outside K|. host_ns, launch_latency_ns, sync_ns: the idle time by cause
    (`workbench.analysis.gaps`). replay_ns: the part of work_ns that is graph replay. Work, exposed copies and the three
    causes sum to wall_ns. Unions are taken inside the call.

    Calls that overlap, as several threads make them, share the device: each connected group of them is one window, and
    each call of it gets the window's times divided by the number of its calls (the first calls of the window take what
    does not divide, so that the sums stay exact). wall_ns is then the time per call at that concurrency.
    """
    calls = measured_calls(run, pass_name)
    blocks = _blocks(run, calls)
    if len(blocks) > 1:
        return kept_table(run, f"calls-{pass_name}", CALL_TIMES_VERSION, lambda: _in_blocks(run, pass_name, blocks))
    order = np.argsort(calls["start_ns"].to_numpy(np.int64), kind="stable")
    numbers, starts, durations = (calls[name].to_numpy(np.int64)[order] for name in ("call", "start_ns", "duration_ns"))
    windows, window_of_call = connected(starts, starts + durations)
    totals = _spent(run, pass_name, windows, numbers, window_of_call)
    shared = {name: share_out(values, window_of_call) for name, values in totals.items()}
    table = pd.DataFrame({"wall_ns": sum(shared[name] for name in _PIECES), **shared}, dtype="int64")
    in_order = table.take(np.argsort(order))
    return in_order.set_index(pd.Index(calls["call"].to_numpy(np.int64), name="call"))


def _in_blocks(run: Tables, pass_name: str, blocks: Sequence[tuple[int, int]]) -> pd.DataFrame:
    """NumPy and Arrow work outside the interpreter's lock, so that two blocks go side by side."""
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        table = pd.concat(pool.map(lambda block: call_times(SomeCalls(run, [block]), pass_name), blocks))
    give_back_memory()
    return table


def _blocks(run: Tables, calls: pd.DataFrame) -> list[tuple[int, int]]:
    """Call numbers [first, last) of blocks whose work fits into memory; calls that overlap stay together."""
    numbers = calls["call"].to_numpy(np.int64)
    if isinstance(run, SomeCalls) or len(numbers) < 2:
        return []
    starts = calls["start_ns"].to_numpy(np.int64)
    reach = np.maximum.accumulate(starts + calls["duration_ns"].to_numpy(np.int64))
    may_cut = np.concatenate(([True], starts[1:] >= reach[:-1]))
    blocks = call_blocks(work_per_call(run, numbers), may_cut, _MOST_WORK)
    return [(int(numbers[low]), int(numbers[high - 1]) + 1) for low, high in blocks]


def _spent(run: Tables, pass_name: str, windows: Intervals, calls: Rows, window_of_call: Rows) -> Spent:
    """Read what `workbench.analysis.call_windows.spent` needs, one table after the other."""
    made = rows_of(run, "launches", pass_name, ("process", "start_ns", "end_ns", "correlation", "name"))
    work = [_measured(run, name, pass_name, made, calls, window_of_call) for name in WORK_TABLES]
    waits = made[contains(made["name"], "Synchronize")]
    return spent(windows, work, union(waits["start_ns"].to_numpy(np.int64), waits["end_ns"].to_numpy(np.int64)))


def _measured(run: Tables, name: str, pass_name: str, made: pd.DataFrame, calls: Rows, window_of_call: Rows) -> Work:
    """The device work of one table inside the measured calls. made: the host calls of the pass."""
    columns = ("call", "process", "start_ns", "end_ns", "correlation", *(("kind",) if name == "copies" else ()))
    work = rows_of(run, name, pass_name, columns)
    launches = taken(made["start_ns"].to_numpy(np.int64), launch_rows(work, made), UNKNOWN_LAUNCH)
    order = np.argsort(calls, kind="stable")
    at = np.searchsorted(calls[order], work["call"].to_numpy(np.int64))
    rows = np.flatnonzero(np.append(calls[order], _NO_CALL)[at] == work["call"].to_numpy())
    window = window_of_call[order][at[rows]]
    if (window[1:] < window[:-1]).any():
        by_window = np.argsort(window, kind="stable")
        rows, window = rows[by_window], window[by_window]
    crosses = work["kind"].isin(HOST_COPIES).to_numpy() if name == "copies" else np.zeros(len(work), np.bool_)
    starts, ends = (work[edge].to_numpy(np.int64)[rows] for edge in ("start_ns", "end_ns"))
    return Work(window, starts, ends, launches[rows], crosses[rows], np.full(len(rows), name == "graphs"))
