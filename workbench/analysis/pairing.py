"""Which host call launched a piece of device work: pairs by (process, correlation id).

Correlation ids count up from one in every process, so that the id alone pairs work with calls of another process.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

NO_CALL: Final = -1
"""No host call has the correlation id."""
TOO_EARLY: Final = -2
"""The work starts before the host call with its correlation id: the clocks disagree, or the id is another call's."""

_MOST_SLOTS_PER_ROW: Final = 4  # a lookup array may be this much larger than the tables; sparser ids are ranked first

_BLOCK: Final = 1 << 18

Rows = NDArray[np.int64]


def launch_rows(work: pd.DataFrame, launches: pd.DataFrame) -> Rows:
    """Row position in `launches` of the call that launched each piece of `work`: int64[n], `NO_CALL` or `TOO_EARLY`.

    Both: columns `start_ns` and `correlation`, and `process`, where null stands for the only process. Several host
    calls share an id when the driver is called inside the runtime: the earliest is the outermost, and the launch.
    """
    starts = launches["start_ns"].to_numpy(np.int64)
    order = None if (starts[1:] >= starts[:-1]).all() else np.argsort(starts, kind="stable")
    earliest_first = launches if order is None else launches.iloc[order]
    rows = first_rows(*_keys(work, "correlation"), *_keys(earliest_first, "correlation"))
    if order is not None:
        rows = taken(order, rows, NO_CALL)
    rows[(rows >= 0) & (work["start_ns"].to_numpy(np.int64) < taken(starts, rows, 0))] = TOO_EARLY
    return rows


def taken(values: NDArray[np.int64], rows: Rows, missing: int) -> NDArray[np.int64]:
    """`values` at `rows`, and `missing` at `NO_CALL` and `TOO_EARLY`: int64[n]."""
    return np.append(values, (missing, missing))[rows]


def first_rows(processes: ArrayLike, ids: ArrayLike, in_processes: ArrayLike, in_ids: ArrayLike) -> Rows:
    """Position of the first row of (in_processes, in_ids) that equals each (process, id): int64[n], -1 for none.

    All are numbers, in which NaN stands for null: as an id it equals nothing, as a process the only one there is; next
    to several known processes it is one of its own. Any size and sign of number is safe. O(n + m) for ids that are
    dense, as a profiler counts them, O((n + m) log m) for others.
    """
    mine, theirs, groups = _process_codes(np.asarray(processes), np.asarray(in_processes))
    wanted, wanted_known = _whole(np.asarray(ids))
    held, held_known = _whole(np.asarray(in_ids))
    rows = None if held_known.all() else np.flatnonzero(held_known)
    if rows is not None:
        held, theirs = held[rows], theirs if theirs is None else theirs[rows]
    found = np.full(len(wanted), NO_CALL, np.int64)
    if not len(held) or not len(wanted):
        return found
    low, high = int(held.min()), int(held.max())
    most_slots = _MOST_SLOTS_PER_ROW * (len(wanted) + len(held))
    distinct = None if (high - low + 1) * groups <= most_slots else np.unique(held)
    span = high - low + 1 if distinct is None else len(distinct)
    held = held - low if distinct is None else np.searchsorted(distinct, held)
    index = _Index(_joined(theirs, span, held), span * groups, most_slots)
    for start in range(0, len(wanted), _BLOCK):  # keeps the temporary arrays in cache, and memory flat
        block = slice(start, start + _BLOCK)
        inside = np.flatnonzero(wanted_known[block] & (wanted[block] >= low) & (wanted[block] <= high))
        key = wanted[block][inside]
        if distinct is None:
            key = key - low
        else:
            ranks = np.searchsorted(distinct, key)
            same = distinct[ranks] == key
            inside, key = inside[same], ranks[same]
        found[start + inside] = index.first(_joined(None if mine is None else mine[block][inside], span, key))
    return found if rows is None else taken(rows, found, NO_CALL)


class _Index:
    """The first position of each key: a lookup array where keys are dense, else a sorted list."""

    def __init__(self, keys: Rows, slots: int, most_slots: int) -> None:
        self._slots = None
        if slots <= most_slots:
            self._slots = np.full(slots, NO_CALL, np.int64)
            # Of repeated assignments the last stays, which is the first position.
            self._slots[keys[::-1]] = np.arange(len(keys) - 1, -1, -1)
        else:
            self._keys, self._positions = np.unique(keys, return_index=True)

    def first(self, keys: Rows) -> Rows:
        if self._slots is not None:
            return self._slots[keys]
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._positions[at], NO_CALL)


def _joined(processes: Rows | None, span: int, ids: Rows) -> Rows:
    """One key of (process code, id in [0, span)); processes None: there is only one."""
    return ids if processes is None else processes * span + ids


def _keys(table: pd.DataFrame, ids: str) -> tuple[NDArray[np.float64 | np.int64], NDArray[np.float64 | np.int64]]:
    process = _numbers(table["process"]) if "process" in table else np.full(len(table), np.nan)
    return process, _numbers(table[ids])


def _numbers(column: pd.Series) -> NDArray[np.float64 | np.int64]:
    """int64[n] where no value is null, else float64[n] with NaN."""
    return column.to_numpy(np.float64, na_value=np.nan) if column.hasnans else column.to_numpy(np.int64)


def _whole(numbers: NDArray[np.float64 | np.int64]) -> tuple[Rows, NDArray[np.bool_]]:
    """The numbers as int64[n], and which of them are known."""
    if numbers.dtype.kind in "iu":
        return numbers.astype(np.int64, copy=False), np.ones(len(numbers), np.bool_)
    known = np.abs(numbers) < 2.0**63
    return np.where(known, numbers, 0).astype(np.int64), known


def _process_codes(
    mine: NDArray[np.float64 | np.int64], theirs: NDArray[np.float64 | np.int64]
) -> tuple[Rows | None, Rows | None, int]:
    """Codes 0..groups-1 of the processes on both sides, and how many groups; None and 1 where there is only one."""
    (a, a_known), (b, b_known) = _whole(mine), _whole(theirs)
    processes = np.union1d(_distinct(a[a_known]), _distinct(b[b_known]))
    if len(processes) <= 1:
        return None, None, 1
    unknown = len(processes)
    return (
        np.where(a_known, np.searchsorted(processes, a), unknown),
        np.where(b_known, np.searchsorted(processes, b), unknown),
        unknown + 1,
    )


def _distinct(values: Rows) -> Rows:
    """The distinct values; quick for the many rows of a single process."""
    same = len(values) > 0 and bool((values == values[0]).all())
    return values[:1] if same else np.unique(values)
