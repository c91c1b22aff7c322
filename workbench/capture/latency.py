"""How long a call takes: the bare measuring loop, when to stop it, and where the warm-up ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import nvtx
from numpy.typing import NDArray

from workbench.config import Budget
from workbench.runs.statistics import Interval, median_interval, warmup_length

Series = NDArray[np.int64]

UNSTABLE_SPREAD: Final = 0.025  # of the median, between the halves of a series; trtexec warns at the same 2.5 %
FEWEST_CALLS: Final = 3  # measured, however long they take
FIRST_BLOCK: Final = 10
BLOCK_GROWTH: Final = 1.5  # each further block is half as long as all before, so that checking costs little


@dataclass(frozen=True)
class Measured:
    """All calls in order: `starts_ns` (Unix epoch), `durations_ns`; those before `warmup` are warm-up."""

    starts_ns: Series
    durations_ns: Series
    warmup: int
    interval: Interval
    stopped_by: str
    notes: list[str]

    def after(self, first_ns: tuple[int, int]) -> Measured:
        """The same with the cold call, (start, duration), in front."""
        return replace(
            self,
            starts_ns=np.insert(self.starts_ns, 0, first_ns[0]),
            durations_ns=np.insert(self.durations_ns, 0, first_ns[1]),
            warmup=self.warmup + 1,
        )


def measure(
    call: Callable[[], object],
    budget: Budget,
    *,
    epoch_offset_ns: int,
    first_ns: tuple[int, int],
    progress: Callable[[float], None],
) -> Measured:
    """Call until the median is known well enough, or the budget is spent.

    epoch_offset_ns: added to `time.perf_counter_ns()` gives Unix time. first_ns: (start, duration) of the cold call,
    made before. progress: called now and then with how much of the budget is used, 0..1.
    """
    starts, durations = [first_ns[0]], [first_ns[1]]
    begun = time.perf_counter_ns()
    limit_ns = int(budget.seconds * 1e9)
    while True:
        size = max(FIRST_BLOCK, int(len(durations) * (BLOCK_GROWTH - 1)))
        size = min(size, budget.max_calls + 1 - len(durations))
        timed_calls(call, size, starts, durations, epoch_offset_ns, begun + limit_ns)
        series = np.array(durations, np.int64)
        warmup = warmup_length(series)
        interval = median_interval(series[warmup:])
        spent_ns = time.perf_counter_ns() - begun
        spent = spent_ns / limit_ns
        enough = len(durations) - warmup >= budget.min_calls and spent_ns >= budget.min_seconds * 1e9
        progress(min(1.0, spent))
        if enough and interval.relative_half_width <= budget.relative_ci:
            stopped_by = "precise"
        elif len(durations) > budget.max_calls:
            stopped_by = "max calls"
        elif spent >= 1 and len(durations) - warmup >= FEWEST_CALLS:
            stopped_by = "budget"
        else:
            continue
        notes = _notes(series, warmup, interval, budget)
        return Measured(np.array(starts, np.int64), series, warmup, interval, stopped_by, notes)


def timed_calls(
    call: Callable[[], object],
    count: int,
    starts: list[int],
    durations: list[int],
    epoch_offset_ns: int,
    deadline_ns: int,
) -> None:
    """Time `count` calls one by one, each in an NVTX range; nothing but the call lies between the clock readings.

    Appends Unix-epoch starts and durations, in nanoseconds, and ends early after the call that passes the deadline
    (on the clock of `time.perf_counter_ns`).
    """
    clock, enter, leave = time.perf_counter_ns, nvtx.push_range, nvtx.pop_range
    for _ in range(count):
        enter("call")
        before = clock()
        call()
        after = clock()
        leave()
        starts.append(before + epoch_offset_ns)
        durations.append(after - before)
        if after > deadline_ns:
            return


def _notes(series: Series, warmup: int, interval: Interval, budget: Budget) -> list[str]:
    kept = series[warmup:]
    notes = []
    if interval.relative_half_width > budget.relative_ci:
        notes.append(
            f"The median is known to ±{100 * interval.relative_half_width:.1f} % only; "
            f"±{100 * budget.relative_ci:.1f} % was wanted."
        )
    if len(kept) >= 20:
        early, late = np.median(kept[: len(kept) // 2]), np.median(kept[len(kept) // 2 :])
        drift = (late - early) / interval.median
        if abs(drift) > UNSTABLE_SPREAD:
            notes.append(f"The latency drifts: the second half of the calls is {100 * drift:+.1f} % against the first.")
        p95 = np.quantile(kept, 0.95)
        if p95 > 1.5 * interval.median:
            notes.append(f"The latency is unstable: one call in twenty takes over {p95 / interval.median:.1f} medians.")
    return notes
