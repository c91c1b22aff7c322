"""Repeat a call and time it: wall-clock durations after a warm-up."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

import numpy as np
import numpy.typing as npt

MIN_ROUNDS: Final = 5
MIN_WARM_UP_ROUNDS: Final = 2  # the first call allocates and chooses algorithms, the second finds them chosen

Call = Callable[[], object]
Timer = Callable[[Call], int]
"""Runs the call and returns how long it took, in nanoseconds."""


def wall_ns(call: Call) -> int:
    """Wall-clock time of one call in nanoseconds; the call has to wait for the work it starts."""
    start_ns = perf_counter_ns()
    call()
    return perf_counter_ns() - start_ns


def durations_ns(
    *calls: Call, budget_ns: int = 300_000_000, warm_up_ns: int = 100_000_000, timer: Timer = wall_ns
) -> npt.NDArray[np.int64]:
    """Durations in nanoseconds, int64 of shape (rounds, calls), after a warm-up.

    The calls take turns, so that a drift of the clocks meets all of them alike. The warm-up lasts
    `warm_up_ns`, since idle clocks have to rise, and the rounds last `budget_ns`; there are
    `MIN_WARM_UP_ROUNDS` and `MIN_ROUNDS` of them at least.
    """

    def rounds(at_least: int, duration_ns: int) -> list[list[int]]:
        end_ns = perf_counter_ns() + duration_ns
        timed: list[list[int]] = []
        while len(timed) < at_least or perf_counter_ns() < end_ns:
            timed.append([timer(call) for call in calls])
        return timed

    rounds(MIN_WARM_UP_ROUNDS, warm_up_ns)
    return np.array(rounds(MIN_ROUNDS, budget_ns), np.int64)
