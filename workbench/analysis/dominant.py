"""Which code holds the most time of each bin of time, at every bin width that is a power of two.

A code is a small integer that stands for a name or a class. Bins of level k are 2^k ns wide and numbered from moment 0,
so that two neighbours of one level are one bin of the next. Sums are exact: a piece counts in each bin with the part
that lies inside. Ties go to the lowest code.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]

CROWDED: Final = 16
"""Pieces in a bin from which on its answer is kept; fewer are added up when asked, which is as quick as to look up."""
RUN_PIECES: Final = 1 << 14
RUN_BINS: Final = 1 << 10
"""A level is kept when some stretch of `RUN_BINS` bins, about a screen, holds more than `RUN_PIECES` pieces; what a
screen of a finer level holds is added up when asked, in about a millisecond."""
_KEY_BITS: Final = 62
"""A bin and a code share one int64 key, which sorts four times quicker than the two of them."""


class Level(NamedTuple):
    """The crowded bins of one level, ascending: int64[n] numbers, and int64[n] codes that hold the most of each."""

    bins: Int64
    codes: Int64


class Pyramid(NamedTuple):
    """The crowded bins of the levels `first`, `first` + 1, …, one level after the other.

    first: int64[1]. sizes: int64[levels]. bins: int64[n], ascending in each level. names, classes: int32[n] codes.
    """

    first: Int64
    sizes: Int64
    bins: Int64
    names: Int32
    classes: Int32

    def find(self, level: int, bins: Int64) -> tuple[NDArray[np.bool_], Int64, Int64]:
        """For each bin of a level: whether it is kept, and if so the codes of name and class, else -1."""
        at = level - int(self.first[0])
        known = np.zeros(len(bins), np.bool_)
        name, class_ = np.full(len(bins), -1), np.full(len(bins), -1)
        if 0 <= at < len(self.sizes) and self.sizes[at]:
            begin = int(self.sizes[:at].sum())
            kept = slice(begin, begin + int(self.sizes[at]))
            place = np.minimum(np.searchsorted(self.bins[kept], bins), int(self.sizes[at]) - 1)
            known = self.bins[kept][place] == bins
            name[known] = self.names[kept][place[known]]
            class_[known] = self.classes[kept][place[known]]
        return known, name, class_


class _Sums(NamedTuple):
    """Time and pieces by key, ascending by key."""

    keys: Int64
    own_ns: Int64
    pieces: Int64


_NOTHING: Final = _Sums(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))


def pyramid(starts: Int64, ends: Int64, names: Int32, classes: Int32) -> Pyramid:
    """The levels of disjoint ascending pieces, int64[n] each, the first start at 0 or later; codes int32[n].

    No level is kept for few pieces. O(n log n) time, O(n) memory.
    """
    first = _first_level(starts, max(_bits(names), _bits(classes)))
    if first is None:
        nothing = np.empty(0, np.int64)
        return Pyramid(np.zeros(1, np.int64), nothing, nothing, nothing.astype(np.int32), nothing.astype(np.int32))
    by_name = _levels(starts, ends, names, first)
    bins = np.concatenate([level.bins for level in by_name])
    if classes.min() == classes.max():
        of_class = np.full(len(bins), classes[0])
    else:
        of_class = np.concatenate([level.codes for level in _levels(starts, ends, classes, first)])
    return Pyramid(
        np.array([first]),
        np.array([len(level.bins) for level in by_name]),
        bins,
        np.concatenate([level.codes for level in by_name]).astype(np.int32),
        of_class.astype(np.int32),
    )


def dominant(bins: Int64, codes: Int32, own_ns: Int64) -> Int64:
    """The code with the largest sum of `own_ns` in each bin that occurs, by bin. All of length n."""
    bits = _bits(codes)
    return _largest(_added(_NOTHING, (bins << bits) | codes, own_ns), bits, 1).codes


def _first_level(starts: Int64, bits: int) -> int | None:
    """The finest level to keep for pieces with these ascending starts; None when the pieces are few.

    Taken from the densest stretch of `RUN_PIECES` pieces, wherever it lies, so that a burst in a long quiet recording
    is as sharp as it would be alone.
    """
    if len(starts) <= RUN_PIECES:
        return None
    densest_ns = int((starts[RUN_PIECES:] - starts[:-RUN_PIECES]).min())
    level = (densest_ns // RUN_BINS).bit_length()
    return max(level, int(starts[-1]).bit_length() + bits - _KEY_BITS)


def _bits(codes: Int32) -> int:
    return int(codes.max(initial=0)).bit_length()


def _levels(starts: Int64, ends: Int64, codes: Int32, first: int) -> list[Level]:
    """The crowded bins of each level from `first` to the one that holds everything in its bin 0.

    Each level is made from the sums of the finer one, and from those pieces that cross an edge of it.
    """
    bits = _bits(codes)
    lasts = np.maximum(ends - 1, starts)
    top = max(int(ends[-1]).bit_length(), first)
    whole = _NOTHING  # pieces that lie in one bin
    levels = []
    for level in range(first, top + 1):
        whole = whole._replace(keys=((whole.keys >> (bits + 1)) << bits) | (whole.keys & ((1 << bits) - 1)))
        bins = starts >> level
        crossing = bins != lasts >> level
        within = ~crossing
        whole = _added(whole, (bins[within] << bits) | codes[within], (ends - starts)[within])
        starts, ends, lasts, codes = starts[crossing], ends[crossing], lasts[crossing], codes[crossing]
        # a bin that a crossing piece fills holds nothing else, so only those where it begins and ends can be crowded
        heads, tails = starts >> level, lasts >> level
        edge_keys = (np.concatenate((heads, tails)) << bits) | np.concatenate((codes, codes))
        inside = np.concatenate((((heads + 1) << level) - starts, ends - (tails << level)))
        parted = _added(whole, edge_keys, inside) if len(starts) else whole
        levels.append(_largest(parted, bits, CROWDED))
    return levels


def _added(sums: _Sums, keys: Int64, own_ns: Int64) -> _Sums:
    """`sums`, whose keys may repeat, together with single pieces."""
    keys = np.concatenate((sums.keys, keys))
    # stable: Timsort, which takes the ascending stretches that both arrays consist of as they are
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    pieces = np.concatenate((sums.pieces, np.ones(len(own_ns), np.int64)))[order]
    times = np.concatenate((sums.own_ns, own_ns))[order]
    return _Sums(keys[first], np.add.reduceat(times, first), np.add.reduceat(pieces, first))


def _largest(sums: _Sums, bits: int, least: int) -> Level:
    """The code with the most time in each bin that holds at least `least` pieces."""
    bins = sums.keys >> bits
    first = np.flatnonzero(np.diff(bins, prepend=-1))
    most = np.maximum.reduceat(sums.own_ns, first)
    pieces = np.add.reduceat(sums.pieces, first)
    holds = np.flatnonzero(sums.own_ns == np.repeat(most, np.diff(first, append=len(bins))))
    holds = holds[np.diff(bins[holds], prepend=-1) > 0]  # of equals, the lowest code
    kept = pieces >= least
    return Level(bins[first][kept], (sums.keys[holds] & ((1 << bits) - 1))[kept])
