"""The worker's own log of its ranges, kept beside the NVTX calls because CUPTI does not deliver those."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import nvtx
import pyarrow as pa

_READINGS: Final = 9


def _epoch_offset_ns() -> int:
    """Unix time less `time.perf_counter_ns()`, from the tightest of several readings: a process may lose its core
    between the two clocks.
    """
    readings = ((time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()) for _ in range(_READINGS))
    return min((after - before, now - (before + after) // 2) for before, now, after in readings)[1]


@dataclass
class RangeLog:
    """Ranges of one pass. All times are int64 nanoseconds since the Unix epoch, from one monotonic clock.

    `epoch_offset_ns` added to `time.perf_counter_ns()` gives Unix time; it is found once, so that a clock that is
    set during a run moves nothing.
    """

    epoch_offset_ns: int = field(default_factory=_epoch_offset_ns)
    rows: list[tuple[str, int, int, int]] = field(default_factory=list)

    def now_ns(self) -> int:
        """The present moment, Unix epoch."""
        return time.perf_counter_ns() + self.epoch_offset_ns

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        """Mark the block in NVTX and in the log."""
        nvtx.push_range(name)
        start = self.now_ns()
        try:
            yield
        finally:
            self.rows.append((name, -1, start, self.now_ns()))
            nvtx.pop_range()

    def add_calls(self, starts_ns: list[int], durations_ns: list[int]) -> None:
        """Log calls that were timed elsewhere; call 0 is the first ever made."""
        for call, (start, duration) in enumerate(zip(starts_ns, durations_ns, strict=True)):
            self.rows.append(("call", call, start, start + duration))

    def steps(self, names: tuple[str, ...]) -> pa.Table:
        """The named ranges as rows of the table `steps`, without its `pass` column."""
        chosen = [row for row in self.rows if row[0] in names]
        return pa.table(
            {
                "name": pa.array([row[0] for row in chosen], pa.string()),
                "start_ns": pa.array([row[2] for row in chosen], pa.int64()),
                "duration_ns": pa.array([row[3] - row[2] for row in chosen], pa.int64()),
            }
        )

    def table(self) -> pa.Table:
        """All ranges as rows of the table `ranges`, without its `pass` column."""
        names, calls, starts, ends = zip(*self.rows, strict=True)
        thread = [threading.get_native_id()] * len(self.rows)
        return pa.table({"name": names, "call": calls, "thread": thread, "start_ns": starts, "end_ns": ends})
