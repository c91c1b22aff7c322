"""What the NVTX ranges of a pass hold: their own length, and the kernels that were launched inside them.

Tables are read in blocks, and of a launch only what its kernels need is kept, so that ten million kernels take a few
hundred megabytes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workbench.analysis.blocks import BLOCK_ROWS, blocks, blocks_by_start, distinct
from workbench.analysis.derived import kept_table
from workbench.analysis.id_index import NO_ROW, IdIndex
from workbench.analysis.intervals import own_time_ns
from workbench.analysis.pairing import Rows
from workbench.analysis.spans import innermost
from workbench.analysis.tables import Tables
from workbench.runs.memory import give_back_memory
from workbench.runs.reader import RunFolder

NO_NAME: Final = "(no text)"
"""Stands for the text of a range that was pushed without one."""

RANGE_TIMES_VERSION: Final = 1
"""Raise it when `range_times` changes its meaning: what is kept with a run is then worked out anew."""
KEPT_FROM_ROWS: Final = 1 << 18  # kernels; fewer are quicker to go through again than to keep
_STEP: Final = 1024  # rows; a block of launches lies near a few steps, and ten million ranges are ten thousand steps


def range_times(run: Tables, pass_name: str, block_rows: int = BLOCK_ROWS) -> pd.DataFrame:
    """One row per name of a range, by falling device time.

    Columns: `name`; `count` of ranges; `wall_ns`, the sum of their lengths (ranges of one name that nest or run on
    several threads each count in full); `kernels` launched directly in them, which is in no range further in; and
    `device_ns`, the own time of those kernels: the time that no earlier-started kernel of the same device covers, ties
    to the one listed first. int64 but for the name.

    A kernel belongs to the innermost range that holds the middle of its launching call, on the thread that made the
    call and opened the range. Kernels in no range stand in a last row without a name, so that `kernels` sums to those
    of the pass and `device_ns` to the union of the kernels of each device. block_rows: how many rows to read at once.
    What is worked out for a long run is kept with it. Raises `RunFolderError` when a file of the run is damaged.
    """
    if isinstance(run, RunFolder) and run.rows("kernels") > KEPT_FROM_ROWS:
        name = f"ranges-{pass_name}"
        give_back_memory()  # of what was worked out before: this needs the most
        return kept_table(run, name, RANGE_TIMES_VERSION, lambda: _range_times(run, pass_name, block_rows))
    return _range_times(run, pass_name, block_rows)


def _range_times(run: Tables, pass_name: str, block_rows: int) -> pd.DataFrame:
    launching = distinct(run, "launches", pass_name, "process", block_rows)
    ranges = _read_ranges(run, pass_name, launching, block_rows)
    names = [*(NO_NAME if name is None else name for name in ranges.names), None]
    count = np.bincount(ranges.name, minlength=len(names))
    wall_ns, kernels, device_ns = np.zeros((3, len(names)), np.int64)
    np.add.at(wall_ns, ranges.name, ranges.end_ns - ranges.start_ns)

    known = launching | distinct(run, "kernels", pass_name, "process", block_rows)
    processes = pa.array([*known, None], pa.int64()) if len(known) > 1 else None  # null is the only process there is
    launches = _read_launches(run, pass_name, ranges, processes, block_rows)
    del ranges  # millions of rows, and the launches know the names
    if sum(count) > KEPT_FROM_ROWS:
        give_back_memory()
    reach: dict[int | None, int] = {}
    columns = ("process", "device", "start_ns", "end_ns", "correlation")
    for block in blocks_by_start(run, "kernels", pass_name, columns, block_rows):
        name = _names_of(block, launches, processes, len(names) - 1)
        kernels += np.bincount(name, minlength=len(names))
        np.add.at(device_ns, name, _own_ns(block, reach))
    table = pd.DataFrame(
        {"name": names, "count": count, "wall_ns": wall_ns, "kernels": kernels, "device_ns": device_ns}
    )
    named, rest = table.iloc[:-1].sort_values("device_ns", ascending=False, kind="stable"), table.iloc[-1:]
    return pd.concat([named, rest[rest["kernels"] > 0]], ignore_index=True)


def ranged_fraction(times: pd.DataFrame) -> float | None:
    """Fraction of the kernels of `range_times` that were launched in some range, 0..1; None without kernels."""
    total = times["kernels"].sum()
    return float(times.loc[times["name"].notna(), "kernels"].sum() / total) if total else None


class _Ranges(NamedTuple):
    """Ranges as stored: n rows.

    lane: a number for the process and thread of each, by `processes` (None: they are not told apart) and `threads`.
    name: places in `names`, which stand in the order of their first range.
    """

    start_ns: Rows
    end_ns: Rows
    lane: Rows
    name: NDArray[np.int32]
    names: list[str | None]
    processes: pa.Array | None
    threads: pa.Array


class _Launches(NamedTuple):
    """The host calls of one process, by start; name: of the range that each was made in."""

    by_correlation: IdIndex
    start_ns: Rows
    name: NDArray[np.int32]


def _read_ranges(run: Tables, pass_name: str, launching: set[object], block_rows: int) -> _Ranges:
    """launching: the processes of the host calls; where they or the ranges know none, threads alone are compared."""
    names, threads, processes = dict[Any, int](), dict[Any, int](), dict[Any, int]()
    times, places = np.empty(0, np.int64), np.empty(0, np.int32)
    parts = [(times, times, places, places, places)]
    for block in blocks(run, "ranges", pass_name, ("process", "thread", "start_ns", "end_ns", "name"), block_rows):
        process, thread = _numbered(block["process"], processes), _numbered(block["thread"], threads)
        name = _numbered(block["name"], names)
        parts.append((block["start_ns"].to_numpy(), block["end_ns"].to_numpy(), process, thread, name))
    start_ns, end_ns, process, thread, name = (np.concatenate(column) for column in zip(*parts, strict=True))
    told_apart = bool(launching) and any(each is not None for each in processes)
    return _Ranges(
        start_ns,
        end_ns,
        thread.astype(np.int64) * len(processes) + process if told_apart else thread.astype(np.int64),
        name,
        list(names),
        pa.array(list(processes), pa.int64()) if told_apart else None,
        pa.array(list(threads), pa.int64()),
    )


def _numbered(column: pa.ChunkedArray, given: dict[Any, int]) -> NDArray[np.int32]:
    """A number for each value, null among them: those of `given`, which takes in new values by their first row."""
    values = column.combine_chunks()
    coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    code, first = pd.factorize(coded.indices.fill_null(-1).to_numpy())
    found = coded.dictionary.take(pa.array(first, mask=first < 0)).to_pylist()
    return np.array([given.setdefault(value, len(given)) for value in found], np.int32)[code]


def _read_launches(
    run: Tables, pass_name: str, ranges: _Ranges, processes: pa.Array | None, block_rows: int
) -> dict[int, _Launches]:
    """The host calls with a correlation id, by the place of their process in `processes`."""
    parts: defaultdict[int, list[tuple[Rows, Rows, NDArray[np.int32]]]] = defaultdict(list)
    columns = ("process", "thread", "start_ns", "end_ns", "correlation")
    near = _NearRows(ranges.start_ns, ranges.end_ns)
    for whole in blocks_by_start(run, "launches", pass_name, columns, block_rows):
        block = whole.filter(whole["correlation"].is_valid())
        if not len(block):
            continue
        ids, start, end = (block[column].to_numpy() for column in ("correlation", "start_ns", "end_ns"))
        middle = start + (end - start) // 2
        rows = near.between(int(middle.min()), int(middle.max()))
        lanes = _lanes(block, ranges)
        found = innermost(middle, lanes, ranges.start_ns[rows], ranges.end_ns[rows], ranges.lane[rows])
        name = np.append(ranges.name[rows], np.int32(len(ranges.names)))[found]  # NO_SPAN takes the last
        for process, mine in _groups(_places(block["process"], processes)):
            parts[process].append((ids[mine], start[mine], name[mine]))
    return {process: _joined(parts.pop(process)) for process in list(parts)}


def _joined(parts: list[tuple[Rows, Rows, NDArray[np.int32]]]) -> _Launches:
    columns = [list(column) for column in zip(*parts, strict=True)]
    parts.clear()  # with millions of launches, no column is there twice for longer than it takes to copy it
    name, start_ns = np.concatenate(columns.pop()), np.concatenate(columns.pop())
    return _Launches(IdIndex(np.concatenate(columns.pop())), start_ns, name)


class _NearRows:
    """Finds the ranges near a stretch of time without going through all: they are taken or left in steps of rows."""

    def __init__(self, starts_ns: Rows, ends_ns: Rows) -> None:
        self._count = len(starts_ns)
        self._steps = np.arange(0, self._count, _STEP)
        self._first_ns = np.minimum.reduceat(starts_ns, self._steps) if self._count else starts_ns
        self._last_ns = np.maximum.reduceat(ends_ns, self._steps) if self._count else ends_ns

    def between(self, first_ns: int, last_ns: int) -> Rows:
        """Ascending rows, among them all ranges that are open at some moment from `first_ns` to `last_ns`."""
        steps = self._steps[(self._first_ns <= last_ns) & (self._last_ns > first_ns)]
        rows = (steps[:, np.newaxis] + np.arange(_STEP)).ravel()
        return rows[rows < self._count]


def _names_of(
    kernels: pa.Table, launches: dict[int, _Launches], processes: pa.Array | None, no_range: int
) -> NDArray[np.int32]:
    """The name of the range that each kernel was launched in, `no_range` for none: int32[n].

    Of several host calls with one id the earliest is the launch, and a kernel that starts before it is no pair; see
    `workbench.analysis.pairing`.
    """
    found = np.full(len(kernels), no_range, np.int32)
    known = np.flatnonzero(kernels["correlation"].is_valid().to_numpy())
    ids, start_ns = kernels["correlation"].drop_null().to_numpy(), kernels["start_ns"].to_numpy()[known]
    for process, mine in _groups(_places(kernels["process"], processes)[known]):
        if process in launches:
            made = launches[process]
            rows = made.by_correlation.first_rows(ids[mine])
            pairs = (rows != NO_ROW) & (start_ns[mine] >= made.start_ns[rows])
            found[known[mine[pairs]]] = made.name[rows[pairs]]
    return found


def _own_ns(kernels: pa.Table, reach: dict[int | None, int]) -> Rows:
    """Own time of a block of kernels by start: int64[n]. reach: the latest end on each device before the block."""
    own = np.empty(len(kernels), np.int64)
    start, end = kernels["start_ns"].to_numpy(), kernels["end_ns"].to_numpy()
    devices = pc.unique(kernels["device"])
    for place, mine in _groups(_places(kernels["device"], devices)):
        device, first = devices[place].as_py(), start[mine[0]]
        covered = reach.get(device, int(first))
        # one interval in the place of all kernels before the block
        own[mine] = own_time_ns(np.append(first, start[mine]), np.append(covered, end[mine]))[1:]
        reach[device] = max(covered, int(end[mine].max()))
    return own


def _groups(numbers: NDArray[np.int32]) -> list[tuple[int, Rows]]:
    """Each number that occurs, with its rows in ascending order."""
    order = np.argsort(numbers, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
    return [(int(numbers[part[0]]), part) for part in parts if len(part)]


def _lanes(launches: pa.Table, ranges: _Ranges) -> Rows:
    """The lane of each host call among those of the ranges, -1 where it has none: int64[n]."""
    process, thread = _places(launches["process"], ranges.processes), _places(launches["thread"], ranges.threads)
    count = 1 if ranges.processes is None else len(ranges.processes)
    return np.where((process < 0) | (thread < 0), -1, thread.astype(np.int64) * count + process)


def _places(values: pa.ChunkedArray, known: pa.Array | None) -> NDArray[np.int32]:
    """Place of each value in `known`, -1 where it is not there, and 0 for all where `known` is None: int32[n]."""
    if known is None:
        return np.zeros(len(values), np.int32)
    places: NDArray[np.int32] = pc.index_in(values, known).fill_null(-1).to_numpy()
    return places
