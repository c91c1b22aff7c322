"""What the device and the host spent inside windows of time: unions, exposed copies and idle causes per window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.gaps import split_idle
from workbench.analysis.intervals import Intervals, Nanoseconds, overlap_ns, union

_BLOCK_ROWS: Final = 1 << 19  # windows are taken in blocks of about this much work, so that memory stays flat

Spent = dict[str, Nanoseconds]


class Work(NamedTuple):
    """Device work of one kind by ascending `window`: int64[n] each, as positions of windows and nanoseconds.

    launches: when the host call began that launched it, or `UNKNOWN_LAUNCH`. crosses: whether it copies between host
    and device. replays: whether it is the replay of a whole graph.
    """

    window: NDArray[np.int64]
    starts: Nanoseconds
    ends: Nanoseconds
    launches: Nanoseconds
    crosses: NDArray[np.bool_]
    replays: NDArray[np.bool_]


def connected(starts: Nanoseconds, ends: Nanoseconds) -> tuple[Intervals, NDArray[np.int64]]:
    """Connected groups of calls that overlap (touching ones do not), and the group of each call; calls by start."""
    if not len(starts):
        return Intervals(starts, ends), starts
    reach = np.maximum.accumulate(ends)
    first = np.concatenate(([True], starts[1:] >= reach[:-1]))
    return Intervals(starts[first], reach[np.append(first[1:], True)]), np.cumsum(first) - 1


def share_out(values: Nanoseconds, window_of_call: NDArray[np.int64]) -> Nanoseconds:
    """The value of each window divided among its calls, which lie together; the first ones take the remainder."""
    members = np.bincount(window_of_call, minlength=len(values))
    place = np.arange(len(window_of_call)) - np.repeat(np.cumsum(members) - members, members)
    whole, rest = np.divmod(values, np.maximum(members, 1))
    return whole[window_of_call] + (place < rest[window_of_call])


def spent(windows: Intervals, work: Sequence[Work], syncs: Intervals) -> Spent:
    """Nanoseconds per window, int64[windows]; the names are those of `workbench.analysis.device_work.call_times`.

    windows: disjoint and ascending. Work counts for its own window alone, as far as it lies inside. syncs: union of the
    host's synchronisation calls. O(n log n), in blocks of windows.
    """
    parts = [
        _spent(Intervals(windows.starts[low:high], windows.ends[low:high]), _between(work, low, high), syncs)
        for low, high in _blocks(len(windows.starts), work)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _blocks(windows: int, work: Sequence[Work]) -> Iterator[tuple[int, int]]:
    """Runs of windows [low, high) with about `_BLOCK_ROWS` of work each."""
    rows = sum((np.bincount(part.window, minlength=windows) for part in work), np.zeros(windows, np.int64))
    last = np.flatnonzero(np.diff(np.cumsum(rows) // _BLOCK_ROWS)) + 1
    return pairwise([0, *last.tolist(), windows])


def _between(work: Sequence[Work], low: int, high: int) -> Work:
    """The work of the windows [low, high), which are counted from `low`."""
    chosen = [slice(*np.searchsorted(part.window, (low, high))) for part in work]
    columns = zip(*([column[rows] for column in part] for part, rows in zip(work, chosen, strict=True)), strict=True)
    joined = Work(*map(np.concatenate, columns))
    return joined._replace(window=joined.window - low)


def _spent(windows: Intervals, work: Work, syncs: Intervals) -> Spent:
    low, high = windows.starts[work.window], windows.ends[work.window]
    begins, ends = np.maximum(work.starts, low), np.minimum(work.ends, high)
    busy = union(begins, ends)
    copies, kernels = (union(begins[chosen], ends[chosen]) for chosen in (work.crosses, ~work.crosses))
    inside = (work.starts >= low) & (work.starts < high)
    idle = split_idle(windows, busy, work.starts[inside], work.launches[inside], syncs)
    work_ns = overlap_ns(*windows, kernels)
    return {
        "work_ns": work_ns,
        "copy_ns": overlap_ns(*windows, copies),
        "exposed_copy_ns": overlap_ns(*windows, busy) - work_ns,
        "host_ns": idle.host_ns,
        "launch_latency_ns": idle.launch_latency_ns,
        "sync_ns": idle.sync_ns,
        "replay_ns": overlap_ns(*windows, union(begins[work.replays], ends[work.replays])),
    }
