"""Which call of the model a moment belongs to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

OUTSIDE = -1


def assign_calls(times_ns: Any, call_starts_ns: Any, call_ends_ns: Any) -> NDArray[np.int32]:
    """Index of the call whose closed interval holds each moment, or `OUTSIDE`.

    times_ns: int64[n]. call_starts_ns, call_ends_ns: int64[calls], by start. Where calls overlap, as several threads
    make them, a moment inside any of them belongs to the call begun last. Returns int32[n].
    """
    times = np.asarray(times_ns, np.int64)
    starts, ends = np.asarray(call_starts_ns, np.int64), np.asarray(call_ends_ns, np.int64)
    if not len(starts):
        return np.full(times.shape, OUTSIDE, np.int32)
    reach = np.maximum.accumulate(ends)
    at = np.searchsorted(starts, times, side="right") - 1
    inside = (at >= 0) & (times <= reach[np.maximum(at, 0)])
    return np.where(inside, at, OUTSIDE).astype(np.int32)
