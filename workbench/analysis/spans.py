"""Which of many nested intervals holds a moment: the innermost node of a launch, the innermost range of a launch."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

NO_SPAN: Final = -1

_Rows = NDArray[np.int64]


def innermost(
    times: ArrayLike, threads: ArrayLike, span_starts: ArrayLike, span_ends: ArrayLike, span_threads: ArrayLike
) -> NDArray[np.int64]:
    """Row of the innermost span [start, end) that holds each moment on its thread, `NO_SPAN` for none: int64[n].

    All int64, in nanoseconds and thread numbers. Innermost is the one that starts last, the shorter of two that start
    together, the later row of two equal ones; spans that overlap without nesting follow the same rule.
    O((n + m) log m) whatever the nesting, with no loop over rows.
    """
    moments, starts, ends = (np.asarray(each, np.int64) for each in (times, span_starts, span_ends))
    found = np.full(len(moments), NO_SPAN, np.int64)
    if not len(starts):
        return found
    lanes, known = pd.factorize(np.asarray(span_threads, np.int64))
    lane = pd.Index(known).get_indexer(pd.Index(np.asarray(threads, np.int64)))
    asked = np.flatnonzero((lane >= 0) & (moments >= starts.min()) & (moments < ends.max()))
    moments, starts, ends = _on_one_axis(moments[asked], lane[asked], starts, ends, lanes, len(known))
    order = np.lexsort((-ends, starts))
    found[asked] = np.append(order, NO_SPAN)[_last_that_holds(moments, starts[order], ends[order])]
    return found


def _on_one_axis(
    moments: _Rows, lane: _Rows, starts: _Rows, ends: _Rows, lanes: _Rows, count: int
) -> tuple[_Rows, _Rows, _Rows]:
    """Times shifted so that the lanes lie one after the other, far enough apart that no span reaches the next lane."""
    ends = np.maximum(starts, ends)
    low, length = int(starts.min()), int(ends.max()) - int(starts.min()) + 1
    if length * count >= 2**63:  # too long for 64 bits: ranks keep the order, which is all that counts
        edges = np.unique(np.concatenate((starts, ends)))
        moments = np.searchsorted(edges, moments, side="right") - 1
        starts, ends = np.searchsorted(edges, starts), np.searchsorted(edges, ends)
        low, length = 0, len(edges)
    return lane * length + (moments - low), lanes * length + (starts - low), lanes * length + (ends - low)


def _last_that_holds(moments: _Rows, starts: _Rows, ends: _Rows) -> _Rows:
    """Position of the last span with start <= moment < end, -1 for none; spans by start.

    Climbs a binary tree of the latest end in each aligned block of 2^k spans: up until a block reaches past the moment,
    then down to the last span of that block that does.
    """
    after = np.searchsorted(starts, moments, side="right")
    found = np.where((after > 0) & (ends[after - 1] > moments), after - 1, NO_SPAN)
    open_ = np.flatnonzero((found == NO_SPAN) & (np.append(NO_SPAN, np.maximum.accumulate(ends))[after] > moments))
    bound, time = after[open_], moments[open_]
    tree = [ends]
    while len(open_) and len(tree[-1]) > 1:
        whole = len(tree[-1]) // 2 * 2
        pairs = np.maximum(tree[-1][0:whole:2], tree[-1][1:whole:2])
        tree.append(np.append(pairs, tree[-1][whole:]))
    level = np.zeros(len(open_), np.int64)
    climbing = np.arange(len(open_))
    for k, latest in enumerate(tree):
        block = (bound[climbing] >> k) - 1  # of 2^k spans, and it ends at the bound where that is odd at this level
        ends_here = block & 1 == 0
        reaches = ends_here & (latest[block] > time[climbing])
        level[climbing[reaches]] = k
        bound[climbing[ends_here & ~reaches]] -= 1 << k
        climbing = climbing[~reaches]
        if not len(climbing):
            break
    for k in range(level.max(initial=0) - 1, -1, -1):
        inside = np.flatnonzero(level > k)
        block = (bound[inside] >> k) - 1
        bound[inside[tree[k][block] <= time[inside]]] -= 1 << k
    found[open_] = bound - 1
    return found


def depths(starts: ArrayLike, ends: ArrayLike) -> NDArray[np.int64]:
    """How many other spans of one thread are open when each begins, 0 for the outermost: int64[n].

    Of spans that begin together, the longer is the outer one. A span of no length ends after those that begin at the
    same moment, so that only earlier ones have ended.
    """
    begin, end = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
    order = np.lexsort((-end, begin))
    ended = np.searchsorted(np.sort(np.maximum(end, begin + 1)), begin[order], side="right")
    found = np.empty(len(begin), np.int64)
    found[order] = np.arange(len(begin)) - ended
    return found
