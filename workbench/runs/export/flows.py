"""Arrows from host calls to the device work that they put on a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from workbench.runs.export.layout import Ints
from workbench.runs.export.slices import key_columns, numbered, with_time
from workbench.runs.export.source import whole

if TYPE_CHECKING:
    from workbench.runs.reader import RunFolder

_PAIRED_BY: Final = ("pass", "process", "correlation")
_DEVICE_TABLES: Final = ("kernels", "copies", "memsets", "graphs")


@dataclass(frozen=True)
class Flows:
    """The arrows at the rows of one table: row `i` has `ids[first[i] : first[i] + count[i]]`."""

    count: Ints
    first: Ints
    ids: npt.NDArray[np.uint64]


def read_flows(run: RunFolder, passes: Sequence[str] | None, processes: Mapping[str, int]) -> dict[str, Flows]:
    """Pair host calls and device work by (pass, process, correlation id); the rows are those that have a time.

    Each piece of device work gets an id of its own, so that one call with many kernels is the start of as many arrows
    and not of one chain. Where several calls share an id, the arrow starts at the first.
    """
    keys = [
        key_columns(with_time(whole(run, table, passes, [*_PAIRED_BY, "start_ns"])), _PAIRED_BY, processes)
        for table in ("launches", *_DEVICE_TABLES)
    ]
    calls = len(keys[0])
    work_call = _call_of(pa.concat_tables(keys), calls)
    work = np.flatnonzero(work_call >= 0)
    by_call = work[np.argsort(work_call[work], kind="stable")]
    count = np.bincount(work_call[work], minlength=calls)
    flows = {"launches": Flows(count, np.cumsum(count) - count, (by_call + 1).astype(np.uint64))}

    begin = 0
    for table, rows in zip(_DEVICE_TABLES, keys[1:], strict=True):
        at = np.arange(begin, begin + len(rows))
        flows[table] = Flows((work_call[at] >= 0).astype(np.int64), np.arange(len(rows)), (at + 1).astype(np.uint64))
        begin += len(rows)
    return flows


def _call_of(keys: pa.Table, calls: int) -> Ints:
    """The row of the call that each piece of work belongs to, -1 for none; calls are the first rows of `keys`."""
    owner, _ = numbered(keys.select(["pass", "process"]))
    paired = keys["correlation"].is_valid().to_numpy()
    correlation = keys["correlation"].fill_null(0).to_numpy()
    known = np.flatnonzero(paired[:calls])
    if not len(known):
        return np.full(len(keys) - calls, -1)
    ids = np.unique(correlation[known])
    place = np.minimum(np.searchsorted(ids, correlation), len(ids) - 1)
    pair = owner * np.int64(len(ids)) + place  # one number for (pass, process, correlation)
    made, first = np.unique(pair[known], return_index=True)
    found = np.minimum(np.searchsorted(made, pair[calls:]), len(made) - 1)
    exists = paired[calls:] & (ids[place[calls:]] == correlation[calls:]) & (made[found] == pair[calls:])
    return np.where(exists, known[first[found]], -1)
