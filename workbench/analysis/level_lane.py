"""One lane of a timeline: intervals that may overlap, and the marks that stand for them at any zoom.

Count and busy time of a bin follow from sorted edges and a running sum, so they are exact for any bin and need no
levels; only the name that holds most of a bin does (`workbench.analysis.dominant`).

A moment belongs to the interval that began first among those that cover it: its own time, as in
`workbench.analysis.intervals.own_time_ns`. The pieces of own time are disjoint, and their lengths sum to the busy time.
An interval of no length takes part as the moment where it lies: it is counted and drawn, and adds no time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np

from workbench.analysis.dominant import Int32, Int64, Pyramid, dominant, pyramid

MERGED: Final = -1
"""The row of a mark that stands for several intervals."""
_BLOCK: Final = 1024


class Marks(NamedTuple):
    """Marks of one lane in ascending order, all int64[n]; times since the lane's origin.

    rows: position of a lone interval in the lane, `MERGED` for a mark of several. busy_ns: the part of the busy time
    that the mark stands for; the marks of a window sum to the busy time of the window.
    """

    starts: Int64
    ends: Int64
    names: Int64
    classes: Int64
    counts: Int64
    busy_ns: Int64
    rows: Int64


@dataclass(frozen=True)
class Lane:
    """Intervals by start, in nanoseconds since an origin that is not after the first of them, and what is derived.

    starts, ends: int64[n]. names, classes: int32[n] codes. sorted_ends: int64[n], the ends by time. moments: int64[],
    where the intervals of no length lie. own_starts, own_ends, own_rows: int64[p], the pieces of own time and the rows
    that they belong to; own_before: int64[p], own time before each. pyramid: the levels of the pieces.

    Where no intervals overlap, the pieces are the intervals, `own_rows` is empty and the same arrays serve twice.
    """

    starts: Int64
    ends: Int64
    names: Int32
    classes: Int32
    sorted_ends: Int64
    moments: Int64
    own_starts: Int64
    own_ends: Int64
    own_rows: Int64
    own_before: Int64
    pyramid: Pyramid

    @property
    def overlapping(self) -> bool:
        """Whether any intervals overlap."""
        return len(self.own_rows) > 0

    @property
    def busy_ns(self) -> int:
        """Length of the union of all intervals."""
        return int(self.own_before[-1] + self.own_ends[-1] - self.own_starts[-1])

    def count(self, start_ns: int, end_ns: int) -> int:
        """How many intervals overlap [start_ns, end_ns)."""
        return int(self._counts(np.array([start_ns, end_ns]))[0])

    def rows(self, start_ns: int, end_ns: int) -> Marks:
        """One mark for each interval that overlaps the window, with its own start and end."""
        first, last = np.searchsorted(self.starts, (start_ns, end_ns))
        rows = np.concatenate((self._open_at(start_ns, int(first)), np.arange(first, last)))
        starts, ends = self.starts[rows], self.ends[rows]
        if not self.overlapping:
            own = np.minimum(ends, end_ns) - np.maximum(starts, start_ns)
        else:
            piece = np.minimum(np.searchsorted(self.own_rows, rows), len(self.own_rows) - 1)
            inside = np.minimum(self.own_ends[piece], end_ns) - np.maximum(self.own_starts[piece], start_ns)
            own = np.where(self.own_rows[piece] == rows, np.maximum(inside, 0), 0)
        names, classes = self.names[rows].astype(np.int64), self.classes[rows].astype(np.int64)
        return Marks(starts, ends, names, classes, np.ones_like(rows), own, rows)

    def bins(self, start_ns: int, end_ns: int, level: int) -> Marks:
        """One mark for each bin of 2^level ns that holds anything of the window, cut to the window.

        A mark reaches from the first busy moment of its bin to the last. Neighbouring bins that hold only one and the
        same interval are one mark with that interval's own start and end, which may lie outside of bins and window.
        `name` and `class_` of a mark of several hold the most of the whole bin, also where the window cuts it.
        """
        number = np.arange(start_ns >> level, ((end_ns - 1) >> level) + 1)
        edges = np.clip(np.append(number, number[-1] + 1) << level, start_ns, end_ns)
        first, last = self._pieces(edges)
        held = np.flatnonzero(last > first)
        first, last, begins, finishes = first[held], last[held], edges[held], edges[held + 1]
        counts = self._counts(edges)[held] if self.overlapping else last - first
        busy = np.diff(self._own_time_before(edges))[held]
        lone = np.flatnonzero(counts == 1)
        several = np.flatnonzero(counts > 1)
        starts, ends = np.maximum(self.own_starts[first], begins), np.minimum(self.own_ends[last - 1], finishes)
        row = np.full(len(held), MERGED)
        row[lone] = self._row_of(first[lone])
        starts[lone], ends[lone] = self.starts[row[lone]], self.ends[row[lone]]
        name, class_ = np.empty_like(row), np.empty_like(row)
        name[lone], class_[lone] = self.names[row[lone]], self.classes[row[lone]]
        name[several], class_[several] = self._dominant(number[held[several]], level)
        keep = np.flatnonzero((row == MERGED) | (np.diff(row, prepend=MERGED) != 0))
        marks = Marks(starts, ends, name, class_, counts, busy, row)
        return Marks(*(each[keep] for each in marks))._replace(busy_ns=np.add.reduceat(busy, keep))

    def _counts(self, edges: Int64) -> Int64:
        """Intervals that overlap each [edges[i], edges[i + 1])."""
        ended = np.searchsorted(self.sorted_ends, edges[:-1], side="right")
        if len(self.moments):  # an interval of no length at the left edge lies inside
            at_edge = [np.searchsorted(self.moments, edges[:-1], side=side) for side in ("left", "right")]
            ended = ended - (at_edge[1] - at_edge[0])
        return np.searchsorted(self.starts, edges[1:]) - ended

    def _pieces(self, edges: Int64) -> tuple[Int64, Int64]:
        """Of the pieces that overlap each [edges[i], edges[i + 1]): the first, and the one after the last."""
        at = np.searchsorted(self.own_starts, edges)
        reaching = (at > 0) & (self.own_ends[np.maximum(at - 1, 0)] > edges)
        return (at - reaching)[:-1], at[1:]

    def _own_time_before(self, times: Int64) -> Int64:
        """Busy time before each moment."""
        at = np.searchsorted(self.own_starts, times)
        piece = np.maximum(at - 1, 0)
        inside = np.minimum(self.own_ends[piece], times) - self.own_starts[piece]
        return np.where(at > 0, self.own_before[piece] + inside, 0)

    def _row_of(self, pieces: Int64) -> Int64:
        return self.own_rows[pieces] if self.overlapping else pieces

    def _dominant(self, bins: Int64, level: int) -> tuple[Int64, Int64]:
        """Codes of name and class that hold the most of each of these bins, none of which is empty."""
        known, name, class_ = self.pyramid.find(level, bins)
        begins = bins[~known] << level
        ends = begins + (1 << level)
        first, last = (each[::2] for each in self._pieces(np.stack((begins, ends), axis=1).ravel()))
        which = np.repeat(np.arange(len(begins)), last - first)
        piece = np.arange(len(which)) - np.repeat(np.cumsum(last - first) - last, last - first)
        own = np.minimum(self.own_ends[piece], ends[which]) - np.maximum(self.own_starts[piece], begins[which])
        row = self._row_of(piece)
        name[~known] = dominant(which, self.names[row], own)
        class_[~known] = dominant(which, self.classes[row], own)
        return name, class_

    def _open_at(self, start_ns: int, first: int) -> Int64:
        """The rows before `first`, the first that starts at `start_ns` or later, which end after it."""
        if not self.overlapping:
            return np.arange(first - 1 if first and self.ends[first - 1] > start_ns else first, first)
        blocks = np.flatnonzero(self._block_ends[: -(-first // _BLOCK)] > start_ns)
        rows = (blocks[:, np.newaxis] * _BLOCK + np.arange(_BLOCK)).ravel()
        rows = rows[rows < first]
        open_rows: Int64 = rows[self.ends[rows] > start_ns]
        return open_rows

    @cached_property
    def _block_ends(self) -> Int64:
        """The last end of each `_BLOCK` rows, to find the few that are still open without reading all before them."""
        last: Int64 = np.maximum.reduceat(self.ends, np.arange(0, len(self.ends), _BLOCK))
        return last


def lane_of(starts: Int64, ends: Int64, names: Int32, classes: Int32) -> Lane:
    """Make a lane of at least one interval. starts, ends: int64[n], no start below 0; codes int32[n], none below 0.

    An end before its start is taken as the start. O(n log n).
    """
    if (starts[1:] < starts[:-1]).any():
        order = np.argsort(starts, kind="stable")
        starts, ends, names, classes = starts[order], ends[order], names[order], classes[order]
    ends = np.maximum(ends, starts)
    reach = np.maximum.accumulate(ends)
    moments = starts[starts == ends]
    if (starts[1:] >= reach[:-1]).all():
        sorted_ends, rows = ends, np.empty(0, np.int64)
        own_starts, own_ends, own_names, own_classes = starts, ends, names, classes
    else:
        free = np.maximum(starts, np.concatenate((starts[:1], reach[:-1])))  # when nothing earlier is open
        rows = np.flatnonzero((ends > free) | ((ends == starts) & (starts == free)))
        sorted_ends = np.sort(ends)
        own_starts, own_ends, own_names, own_classes = free[rows], ends[rows], names[rows], classes[rows]
    lengths = own_ends - own_starts
    return Lane(
        starts=starts,
        ends=ends,
        names=names,
        classes=classes,
        sorted_ends=sorted_ends,
        moments=moments,
        own_starts=own_starts,
        own_ends=own_ends,
        own_rows=rows,
        own_before=np.cumsum(lengths) - lengths,
        pyramid=pyramid(own_starts, own_ends, own_names, own_classes),
    )
