"""Which stretches of an imported capture are calls of the model, and which part of it is wanted."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.runs.calls import OUTSIDE, assign_calls
from workbench.runs.imports.sink import small_database
from workbench.runs.statistics import median_interval, warmup_length

if TYPE_CHECKING:
    from pathlib import Path

FEWEST_FOR_WARMUP: Final = 6
SMALLEST_COVERAGE: Final = 0.5  # of the time from the first to the last; ranges that cover less mark no calls
_SHOWN: Final = 5
_LONGEST_NAME: Final = 40


class Window(NamedTuple):
    """[start, end) on the Unix epoch, in nanoseconds."""

    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Calls:
    """Calls by start: int64[n] starts and ends on the Unix epoch, their numbers, and what marked them.

    rows: which row of the arrays given to `of` each call was. slack_ns: how far a moment may lie outside a call that it
    belongs to, because the calls are known on another clock, or to the microsecond only.
    """

    starts_ns: NDArray[np.int64]
    ends_ns: NDArray[np.int64]
    numbers: NDArray[np.int32]
    rows: NDArray[np.intp]
    marked_by: str
    slack_ns: int = 0

    @classmethod
    def of(
        cls, starts_ns: NDArray[np.int64], ends_ns: NDArray[np.int64], marked_by: str, slack_ns: int = 0
    ) -> Calls:
        """Numbered from 0 in order of their start."""
        order = np.argsort(starts_ns, kind="stable")
        numbers = np.arange(len(order), dtype=np.int32)
        return cls(starts_ns[order], ends_ns[order], numbers, order, marked_by, slack_ns)

    def __len__(self) -> int:
        return len(self.starts_ns)

    @property
    def overlap(self) -> bool:
        """Whether some call begins before another has ended, as when several threads call."""
        return bool((self.starts_ns[1:] < np.maximum.accumulate(self.ends_ns)[:-1]).any())

    def inside(self, window: Window) -> Calls:
        """Those that lie wholly inside, numbered anew from 0."""
        slack = self.slack_ns
        kept = (self.starts_ns >= window.start_ns - slack) & (self.ends_ns <= window.end_ns + slack)
        return self._kept(kept, np.arange(kept.sum(), dtype=np.int32))

    def chosen(self, first: int, last: int) -> Calls:
        """Calls `first` to `last`, both included, with their numbers; raises `ConfigError` when there are none."""
        kept = (self.numbers >= first) & (self.numbers <= last)
        if not kept.any():
            raise ConfigError(
                f"Option 'calls' asks for {first}..{last}, and the capture holds {_count(len(self))}"
                f"{f', 0 to {len(self) - 1}' if len(self) else ''}: choose among them."
            )
        return self._kept(kept, self.numbers[kept])

    def _kept(self, kept: NDArray[np.bool_], numbers: NDArray[np.int32]) -> Calls:
        return replace(
            self, starts_ns=self.starts_ns[kept], ends_ns=self.ends_ns[kept], numbers=numbers, rows=self.rows[kept]
        )

    def numbers_of(self, times_ns: NDArray[np.int64]) -> NDArray[np.int32]:
        """The number of the call that each moment belongs to, `OUTSIDE` for none: int32[n].

        A moment outside every call goes to the one that ended within the slack before it, or else begins after it.
        """
        at = assign_calls(times_ns, self.starts_ns, self.ends_ns)
        if self.slack_ns and (free := np.flatnonzero(at == OUTSIDE)).size:
            late = assign_calls(times_ns[free], self.starts_ns, self.ends_ns + self.slack_ns)
            early = assign_calls(times_ns[free], self.starts_ns - self.slack_ns, self.ends_ns)
            at[free] = np.where(late == OUTSIDE, early, late)
        numbers = np.append(self.numbers, np.int32(OUTSIDE))
        return np.where(at == OUTSIDE, np.int32(OUTSIDE), numbers[at])

    @property
    def window(self) -> Window:
        """From the first start to the last end, with the slack; undefined without calls."""
        return Window(int(self.starts_ns[0]) - self.slack_ns, int(self.ends_ns.max()) + self.slack_ns + 1)

    def warmup(self, *, whole: bool) -> int:
        """How many of the first calls are warm-up; none when a phase was chosen, which is `whole` False."""
        if not whole or self.overlap or len(self) < FEWEST_FOR_WARMUP:
            return 0
        return warmup_length(self.ends_ns - self.starts_ns)

    def time_per_call(self, warmup: int) -> tuple[float, float, float]:
        """T and its 95 % interval in nanoseconds.

        The median of the calls after `warmup`; where calls overlap, the time in which any call ran over the number of
        calls, whose interval is not known and given as T itself.
        """
        if self.overlap:
            reach = np.maximum.accumulate(self.ends_ns)
            busy = np.maximum(self.ends_ns, reach) - np.maximum(self.starts_ns, np.concatenate(([0], reach[:-1])))
            mean = float(np.maximum(busy, 0).sum()) / len(self)
            return mean, mean, mean
        found = median_interval((self.ends_ns - self.starts_ns)[warmup:])
        return found.median, found.low, found.high


def shown(name: str) -> str:
    """A range's name in quotes, short enough for a sentence."""
    return repr(name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…")


def parse_calls(text: str) -> tuple[int, int]:
    """`20..30` → (20, 30), `7` → (7, 7); raises `ConfigError`."""
    found = re.fullmatch(r"\s*(\d{1,9})\s*(?:\.\.\s*(\d{1,9})\s*)?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if first > last:
        raise ConfigError(f"Option 'calls' cannot be {shown(text)}: give two numbers in order, such as 20..30.")
    return first, last


class RangeIndex:
    """The NVTX ranges of a capture, read into the run's folder already; asked with SQL, so that memory stays flat."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def window(self, name: str) -> tuple[Window, int]:
        """From the first start to the last end of the ranges of a name, and how many there are.

        Raises `ConfigError` when there are none.
        """
        rows = self._sql("SELECT min(start_ns), max(end_ns), count(*) FROM ranges WHERE name = ?", name)
        start, end, count = rows[0]
        if not count:
            raise ConfigError(f"The capture holds no NVTX range {shown(name)}: {self._nearest(name)}")
        return Window(start, end + 1), count

    def calls(self, name: str | None, window: Window | None, process: int | None) -> Calls | None:
        """The ranges that mark calls: those of the name given, or of the one that repeats and covers the most time.

        Only ranges of one name that never overlap on their thread are candidates, and they must cover half of the time
        from the first to the last. None when no range does. Raises `ConfigError` when `name` is not there.
        """
        where, values = "WHERE name IS NOT NULL AND kind IS DISTINCT FROM 'mark'", list[int]()
        if window is not None:
            where, values = f"{where} AND start_ns >= ? AND end_ns < ?", [window.start_ns, window.end_ns]
        if process is not None:
            where, values = f"{where} AND process = ?", [*values, process]
        if name is None:
            found = self._sql(
                f"""WITH sums AS (
                    SELECT name, count(*) AS calls, sum(end_ns - start_ns) AS covered,
                           count(DISTINCT thread)::HUGEINT AS threads, max(end_ns) - min(start_ns) AS extent
                    FROM ranges {where} GROUP BY name HAVING count(*) > 1)
                SELECT name FROM sums WHERE covered >= {SMALLEST_COVERAGE} * extent AND covered <= threads * extent
                ORDER BY covered DESC, calls, name LIMIT 1""",
                *values,
            )
            if not found:
                return None
            name = found[0][0]
        rows = self._sql(f"SELECT start_ns, end_ns FROM ranges {where} AND name = ?", *values, name)
        if not rows:
            raise ConfigError(f"The capture holds no NVTX range {shown(name)} there: {self._nearest(str(name))}")
        times = np.array(rows, np.int64)
        return Calls.of(times[:, 0], times[:, 1], f"the NVTX range {shown(str(name))}")

    def _nearest(self, name: str) -> str:
        longest = "GROUP BY name ORDER BY sum(end_ns - start_ns) DESC LIMIT 1000"
        names = [row[0] for row in self._sql(f"SELECT name FROM ranges WHERE name IS NOT NULL {longest}")]
        if not names:
            return "it holds none at all."
        near = difflib.get_close_matches(name, names, _SHOWN, 0.5) or names[:_SHOWN]
        return f"choose another, such as {', '.join(map(shown, near))}."

    def _sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        path = str(self._file).replace("'", "''")
        with small_database("The NVTX ranges") as database:
            database.execute(f"CREATE VIEW ranges AS SELECT * FROM read_parquet('{path}')")
            return list(database.execute(query, values).fetchall())


def _count(calls: int) -> str:
    return f"{calls} call{'' if calls == 1 else 's'}"
