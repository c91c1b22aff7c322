"""Exact arithmetic on half-open intervals [start, end) in int64 nanoseconds.

Every function takes and returns arrays of int64; nothing is rounded. Lists of intervals are two arrays of equal
length, `starts` and `ends`; an interval whose end does not lie after its start is empty and counts for nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Nanoseconds = NDArray[np.int64]


class Intervals(NamedTuple):
    """Disjoint intervals in ascending order: int64[n] starts and int64[n] ends."""

    starts: Nanoseconds
    ends: Nanoseconds

    @property
    def length_ns(self) -> int:
        """Sum of the lengths, which is the measure of the union."""
        return int((self.ends - self.starts).sum())


def union(starts: ArrayLike, ends: ArrayLike) -> Intervals:
    """The union, as disjoint ascending intervals; touching ones are joined. O(n log n)."""
    begin, end = _nonempty(starts, ends)
    if not len(begin):
        return Intervals(begin, end)
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order], end[order]
    reach = np.maximum.accumulate(end)
    first = np.concatenate(([True], begin[1:] > reach[:-1]))
    last = np.concatenate((first[1:], [True]))
    return Intervals(begin[first], reach[last])


def clip(intervals: Intervals, start_ns: int, end_ns: int) -> Intervals:
    """The part of disjoint intervals that lies inside [start_ns, end_ns)."""
    return Intervals(*_nonempty(np.maximum(intervals.starts, start_ns), np.minimum(intervals.ends, end_ns)))


def complement(intervals: Intervals, start_ns: int, end_ns: int) -> Intervals:
    """The gaps of disjoint intervals inside [start_ns, end_ns), the margins included."""
    inside = clip(intervals, start_ns, end_ns)
    return Intervals(*_nonempty(np.concatenate(([start_ns], inside.ends)), np.concatenate((inside.starts, [end_ns]))))


def difference(a: Intervals, b: Intervals) -> Intervals:
    """The part of `a` outside `b`; both disjoint and ascending."""
    if not len(a.starts):
        return a
    return intersection(a, complement(b, int(a.starts[0]), int(a.ends[-1])))


def intersection(a: Intervals, b: Intervals) -> Intervals:
    """The part that lies in both; both disjoint and ascending. O((n + m) log m)."""
    if not len(a.starts) or not len(b.starts):
        return Intervals(a.starts[:0], a.ends[:0])
    first = np.searchsorted(b.ends, a.starts, side="right")  # the first of b that ends after a begins
    after = np.searchsorted(b.starts, a.ends, side="left")  # the first of b that begins after a ends
    count = np.maximum(after - first, 0)
    which_a = np.repeat(np.arange(len(a.starts)), count)
    offset = np.arange(len(which_a)) - np.repeat(np.cumsum(count) - count, count)
    which_b = np.repeat(first, count) + offset
    return Intervals(
        *_nonempty(np.maximum(a.starts[which_a], b.starts[which_b]), np.minimum(a.ends[which_a], b.ends[which_b]))
    )


def overlap_ns(starts: ArrayLike, ends: ArrayLike, cover: Intervals) -> Nanoseconds:
    """For each interval, how much of it lies inside `cover` (disjoint, ascending): int64[n]. O(n log m)."""
    begin, end = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    return np.where(end > begin, _measure_before(end, cover) - _measure_before(begin, cover), 0)


def own_time_ns(starts: ArrayLike, ends: ArrayLike) -> Nanoseconds:
    """For each interval, the time that no earlier-started one covers: int64[n], which sums to the union's length.

    Ties go to the interval that is listed first. This shares out overlapping kernels without counting any moment twice.
    """
    begin, end = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    if not len(begin):
        return begin
    order = np.argsort(begin, kind="stable")
    reach = np.maximum.accumulate(np.maximum(begin, end)[order])
    covered = np.concatenate(([begin[order[0]]], reach[:-1]))
    own = np.empty_like(begin)
    own[order] = np.maximum(end[order] - np.maximum(begin[order], covered), 0)
    return own


def _measure_before(times: Nanoseconds, cover: Intervals) -> Nanoseconds:
    """Length of the part of `cover` before each moment."""
    if not len(cover.starts):
        return np.zeros_like(times)
    lengths = cover.ends - cover.starts
    before = np.concatenate(([0], np.cumsum(lengths)))
    at = np.searchsorted(cover.starts, times, side="right")
    inside = np.minimum(times - cover.starts[np.maximum(at - 1, 0)], lengths[np.maximum(at - 1, 0)])
    return np.where(at > 0, before[np.maximum(at - 1, 0)] + inside, 0)


def _nonempty(starts: ArrayLike, ends: ArrayLike) -> tuple[Nanoseconds, Nanoseconds]:
    begin, end = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    kept = end > begin
    return begin[kept], end[kept]
