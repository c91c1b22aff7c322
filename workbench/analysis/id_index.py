"""Finds the first row with an id, for columns of many millions of ids that are asked about in blocks."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

NO_ROW: Final = -1

_MOST_SLOTS_PER_ROW: Final = 4  # a lookup array may be this much longer than the column; other ids are sorted
_BLOCK: Final = 1 << 16  # rows whose slots are filled at once, so that no second column is held

_Int64 = NDArray[np.int64]


class IdIndex:
    """The first row of each id in a column, int64[n] with n > 0: a lookup array where the ids are dense, else sorted.

    Profilers count their ids up, so that they are dense: 4 bytes a row, and O(1) for each id asked about.
    """

    def __init__(self, ids: _Int64) -> None:
        self._lowest, self._highest = int(ids.min()), int(ids.max())
        slots = self._highest - self._lowest + 1
        self._dense = slots <= _MOST_SLOTS_PER_ROW * len(ids)
        if self._dense:
            number = np.int32 if len(ids) <= np.iinfo(np.int32).max else np.int64
            self._rows = np.full(slots, NO_ROW, number)
            for stop in range(len(ids), 0, -_BLOCK):
                start = max(stop - _BLOCK, 0)
                # of repeated assignments the last stays, which is the first row
                self._rows[ids[start:stop][::-1] - self._lowest] = np.arange(stop - 1, start - 1, -1)
        else:
            self._ids, self._rows = np.unique(ids, return_index=True)

    def first_rows(self, ids: _Int64) -> _Int64:
        """The first row of each id, `NO_ROW` where the column does not have it: int64[m]."""
        if self._dense:
            inside = (ids >= self._lowest) & (ids <= self._highest)
            rows = self._rows[np.where(inside, ids, self._lowest) - self._lowest]
            return np.where(inside, rows, NO_ROW).astype(np.int64)
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[at] == ids, self._rows[at], NO_ROW)
