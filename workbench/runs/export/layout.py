"""Where slices lie: on which lane of their track, and in which order they begin and end.

A Perfetto track is a stack: the end that comes next closes the slice that began last. Slices of one track that cross
each other (the clock of ONNX Runtime's profiler cuts to whole microseconds, so that neighbours overlap) are therefore
spread over lanes, sibling tracks on each of which any two slices are nested or apart. No time is changed.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

NESTING_LANES: Final = 16
"""So many lanes are searched for one in which a slice nests; further ones, which only a broken capture needs, hold
slices that are apart, found by a heap: a million slices that all cross then take seconds and not hours."""


@dataclass(frozen=True)
class Layout:
    """Lanes and events of n slices.

    `lane` (n,): the lane of each slice. `track` (lanes,): the track that each lane belongs to.
    `order` (events,): 2 × slice for its begin, 2 × slice + 1 for its end, in the order of time.
    """

    lane: npt.NDArray[np.int32]
    track: Ints
    order: Ints


def lay_out(track: npt.NDArray[np.int32], start_ns: Ints, end_ns: Ints, instant: npt.NDArray[np.bool_]) -> Layout:
    """Give each slice a lane of its track and put begins and ends in order; an instant has no end.

    `track` numbers the tracks from 0; `start_ns` <= `end_ns` for all, with equality for instants.
    """
    by_track = np.lexsort((~end_ns, start_ns, track))  # ~x orders as -x does, and cannot overflow
    rank = np.empty(len(track), np.int64)
    rank[by_track] = np.arange(len(track))
    lane = np.zeros(len(track), np.int32)
    tracks: list[int] = []
    edges = np.flatnonzero(np.diff(track[by_track], prepend=-1, append=-1)) if len(track) else np.zeros(1, np.intp)
    for first, last in pairwise(edges.tolist()):
        rows = by_track[first:last]
        within = _lanes(start_ns[rows], end_ns[rows])
        lane[rows] = within + len(tracks)
        tracks += [int(track[rows[0]])] * (int(within.max()) + 1)

    # At one moment of a lane: what began before ends, inner slices first; then outer slices begin before inner ones;
    # slices without a length come last, each with its end behind its begin.
    slices, closed = np.arange(len(track)), np.flatnonzero(~instant)
    event = np.concatenate([2 * slices, 2 * closed + 1])
    time_ns = np.concatenate([start_ns, end_ns[closed]])
    length = (end_ns > start_ns)[event >> 1]
    turn = np.where(length, 1 - (event & 1), 2).astype(np.int8)
    place = np.where(turn == 0, -2 * rank[event >> 1], 2 * rank[event >> 1] + (event & 1))
    return Layout(lane, np.array(tracks, np.int64), event[np.lexsort((place, turn, lane[event >> 1], time_ns))])


def _lanes(start_ns: Ints, end_ns: Ints) -> Ints:
    """The first lane in which each slice of one track nests; slices come by start, longer ones first."""
    lane = np.zeros(len(start_ns), np.int64)
    reach_ns = np.maximum.accumulate(end_ns)
    apart = np.append(True, start_ns[1:] >= reach_ns[:-1])
    alone = apart & np.append(apart[1:], True)
    open_ends: list[list[int]] = []
    flat: list[tuple[int, int]] = []  # (end, lane) of the lanes beyond the nesting ones
    # each choice depends on the ones before it, so this is a loop; slices that overlap nothing stay out of it
    for i in np.flatnonzero(~alone).tolist():
        begin, end = int(start_ns[i]), int(end_ns[i])
        for at, ends in enumerate(open_ends):
            while ends and ends[-1] <= begin:
                ends.pop()
            if not ends or end <= ends[-1]:
                ends.append(end)
                lane[i] = at
                break
        else:
            if len(open_ends) < NESTING_LANES:
                lane[i] = len(open_ends)
                open_ends.append([end])
            elif flat and flat[0][0] <= begin:
                lane[i] = flat[0][1]
                heapq.heapreplace(flat, (end, flat[0][1]))
            else:
                lane[i] = NESTING_LANES + len(flat)
                heapq.heappush(flat, (end, int(lane[i])))
    return lane
