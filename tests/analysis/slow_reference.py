"""The definitions of the analysis, read literally: every nanosecond is marked, every pair and range is searched for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """A piece of device work. launch: when the host call that launched it began, None where no call is known."""

    start: int
    end: int
    host_copy: bool
    launch: int | None
    replay: bool = False


def spent(start: int, end: int, pieces: Sequence[Piece], syncs: Iterable[tuple[int, int]]) -> dict[str, int]:
    """What the call [start, end) spent on the pieces that belong to it, as `call_times` names it.

    The next piece after an idle moment is the first that begins after it, and the earliest launched of several.
    """
    work, copy, replay, blocked = (np.zeros(end - start, bool) for _ in range(4))
    for piece in pieces:
        for marks, chosen in ((work, not piece.host_copy), (copy, piece.host_copy), (replay, piece.replay)):
            if chosen:
                marks[piece.start - start : piece.end - start] = True
    for begun, ended in syncs:
        blocked[max(begun - start, 0) : max(ended - start, 0)] = True
    host = latency = sync = 0
    for gap_start, gap_end in _runs(~work & ~copy):
        following = [piece for piece in pieces if piece.start == gap_end + start < end]
        launch = min((piece.launch for piece in following if piece.launch is not None), default=None)
        if launch is not None and launch <= gap_start + start:
            latency += gap_end - gap_start
            continue
        held_until = gap_end if launch is None else min(launch - start, gap_end)
        waited = int(blocked[gap_start:held_until].sum())
        sync += waited
        host += gap_end - gap_start - waited
    return {
        "wall_ns": end - start,
        "work_ns": int(work.sum()),
        "copy_ns": int(copy.sum()),
        "exposed_copy_ns": int((copy & ~work).sum()),
        "host_ns": host,
        "launch_latency_ns": latency,
        "sync_ns": sync,
        "replay_ns": int(replay.sum()),
    }


def _runs(marks: np.ndarray) -> list[tuple[int, int]]:
    """The stretches of True, as (first, one past the last)."""
    changes = np.flatnonzero(np.diff(np.concatenate(([False], marks, [False]))))
    return list(zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True))


def own_times(intervals: Sequence[tuple[int, int]]) -> list[int]:
    """The nanoseconds of each interval that none before it (by start, then as listed) has taken."""
    first = min((start for start, _ in intervals), default=0)
    taken = np.zeros(max((end for _, end in intervals), default=0) - first, bool)
    own = [0] * len(intervals)
    for row in sorted(range(len(intervals)), key=lambda row: intervals[row][0]):
        mine = taken[intervals[row][0] - first : intervals[row][1] - first]
        own[row] = int((~mine).sum())
        mine[:] = True
    return own


def innermost(moment: int, ranges: Sequence[tuple[int, int]]) -> int | None:
    """Position of the range around a moment that begins last, None outside all."""
    around = [row for row, (start, end) in enumerate(ranges) if start <= moment < end]
    return max(around, key=lambda row: ranges[row][0], default=None)
