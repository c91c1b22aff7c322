"""Levels of detail of a timeline: the marks of any window at any zoom, few of them, with exact counts and times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from workbench.analysis.dominant import Int32, Int64
from workbench.analysis.level_lane import Lane, Marks, lane_of
from workbench.errors import RunFolderError

MOST_MARKS: Final = 5000
_LONGEST_NS: Final = 1 << 61  # 73 years: sums of two times stay within int64


class Rows(NamedTuple):
    """Intervals to show in one lane, in any order: int64[n] nanoseconds, int32[n] codes of their names and classes."""

    key: str
    label: str
    starts: Int64
    ends: Int64
    names: Int32
    classes: Int32


@dataclass(frozen=True)
class LaneInfo:
    """A lane as a whole. key: unique and lasting; label: for people. busy_ns: the union of its intervals."""

    key: str
    label: str
    count: int
    busy_ns: int
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Levels:
    """The lanes of a timeline, ready to be drawn at any zoom.

    lanes: from top to bottom. names: the text of each name code, an Arrow array of large strings. classes: the class of
    each class code, None for what has none. origin_ns: the moment that the times of `contents` are counted from.
    """

    lanes: list[LaneInfo]
    names: pa.Array
    classes: list[str | None]
    origin_ns: int
    contents: list[Lane]

    @property
    def start_ns(self) -> int:
        """Where the first interval of all lanes begins; 0 without lanes."""
        return min((lane.start_ns for lane in self.lanes), default=0)

    @property
    def end_ns(self) -> int:
        """Where the last interval of all lanes ends; 0 without lanes."""
        return max((lane.end_ns for lane in self.lanes), default=0)

    def window(self, start_ns: int, end_ns: int, pixels: int, most: int = MOST_MARKS) -> pd.DataFrame:
        """The marks of [start_ns, end_ns) on a picture that is `pixels` wide: at most `most`, or one for each lane.

        A lane with few intervals in the window shows each of them. Another one shows bins of 2^k ns, none narrower
        than a pixel: the mark of a bin reaches from its first busy moment to its last. Marks are ordered by lane, then
        by start.

        Columns: `lane` (position in `lanes`), `start_ns`, `end_ns`, `name`, `class` (None where there is none),
        `count` (intervals that overlap the mark), `busy_ns` (int64: over the marks of a lane they sum to the time that
        any of its intervals covers in the window), `row`. A mark of one interval has that interval's own times, also
        outside of the window, and `row` is its position in the lane by start; `row` is -1 for a mark of several, whose
        name and class are those that hold the most of its bin. What overlaps counts for what began first.
        Raises `ValueError` when the window is empty or no marks are allowed.
        """
        if end_ns <= start_ns or pixels < 1 or most < 1:
            raise ValueError("A window has an end after its start, and at least one pixel and one mark.")
        pixel_ns = -(-(end_ns - start_ns) // pixels)
        spans = [self._inside(lane, start_ns, end_ns) for lane in self.lanes]
        counts = [
            lane.count(*span) if span[0] < span[1] else 0 for lane, span in zip(self.contents, spans, strict=True)
        ]
        budgets = _shared(counts, most)
        parts = [
            (number, _marks(self.contents[number], *spans[number], pixel_ns, count, budgets[number]))
            for number, count in enumerate(counts)
            if count
        ]
        return self._table(parts)

    def _inside(self, lane: LaneInfo, start_ns: int, end_ns: int) -> tuple[int, int]:
        """The part of the window that the lane reaches, since the origin; a moment at the lane's end is inside."""
        return max(start_ns, lane.start_ns) - self.origin_ns, min(end_ns, lane.end_ns + 1) - self.origin_ns

    def _table(self, parts: Sequence[tuple[int, Marks]]) -> pd.DataFrame:
        empty = Marks(*[np.empty(0, np.int64)] * len(Marks._fields))
        marks = Marks(*(np.concatenate(columns) for columns in zip(empty, *(each for _, each in parts), strict=True)))
        lane = np.repeat([number for number, _ in parts], [len(each.rows) for _, each in parts]).astype(np.int64)
        return pd.DataFrame(
            {
                "lane": lane,
                "start_ns": marks.starts + self.origin_ns,
                "end_ns": marks.ends + self.origin_ns,
                "name": self.names.take(pa.array(marks.names)).to_numpy(zero_copy_only=False),
                "class": np.array(self.classes, object)[marks.classes],
                "count": marks.counts,
                "busy_ns": marks.busy_ns,
                "row": marks.rows,
            }
        )


def build_levels(lanes: Iterable[Rows], names: Sequence[str], classes: Sequence[str | None]) -> Levels:
    """Build the levels of these lanes, of which empty ones are left out. O(n log n).

    names, classes: what the codes stand for. Raises `RunFolderError` when the times cannot belong to one recording.
    """
    kept = [rows for rows in lanes if len(rows.starts)]
    origin = min((int(rows.starts.min()) for rows in kept), default=0)
    last = max((int(max(rows.starts.max(), rows.ends.max())) for rows in kept), default=0)
    if last - origin >= _LONGEST_NS:
        raise RunFolderError("The times of this run lie more than 73 years apart: record or import it again.")
    contents, infos = [], []
    while kept:  # each input is let go before the next is built
        rows = kept.pop(0)
        lane = lane_of(rows.starts - origin, rows.ends - origin, rows.names, rows.classes)
        contents.append(lane)
        infos.append(
            LaneInfo(
                rows.key,
                rows.label,
                len(lane.starts),
                lane.busy_ns,
                int(lane.starts[0]) + origin,
                int(lane.sorted_ends[-1]) + origin,
            )
        )
    return Levels(infos, pa.array(names, pa.large_string()), list(classes), origin, contents)


def _shared(counts: Sequence[int], most: int) -> list[int]:
    """How many marks each lane may have: those with few intervals as many as they need, the others equal parts."""
    budgets, left = [0] * len(counts), most
    for done, lane in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        budgets[lane] = min(counts[lane], max(left // (len(counts) - done), 1))
        left -= budgets[lane]
    return budgets


def _marks(lane: Lane, start_ns: int, end_ns: int, pixel_ns: int, count: int, budget: int) -> Marks:
    if count <= budget:
        return lane.rows(start_ns, end_ns)
    last = end_ns - 1
    level = min((pixel_ns - 1).bit_length(), last.bit_length())
    while (last >> level) - (start_ns >> level) >= budget:
        level += 1
    return lane.bins(start_ns, end_ns, level)
