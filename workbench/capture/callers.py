"""Several callers at once: each calls from a thread of its own, and what counts is how often any of them is served."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from workbench.capture.binding import Call
from workbench.capture.latency import FEWEST_CALLS, Measured, Series, timed_calls
from workbench.config import Budget
from workbench.runs.statistics import Interval, warmup_length

BATCHES: Final = 20
T_975: Final = 2.093
"""97.5 % quantile of Student's t with BATCHES - 1 degrees of freedom."""
_FIRST_LOOK_S: Final = 0.1
_LOOK_GROWTH: Final = 0.25  # looking costs the callers time, so that it becomes rarer
_FEWEST_WARMUP: Final = 3
_WARMUP_S: Final = 0.2


class Callers:
    """One thread for each call, all alive while the context is open.

    Each warms its call up in its own thread, one after the other, because ONNX Runtime captures a CUDA graph for the
    thread that calls, and a capture fails while another thread allocates. An exception in a thread is raised again in
    the thread that waits for it.
    """

    def __init__(self, calls: Sequence[Call], epoch_offset_ns: int) -> None:
        self._series: list[tuple[list[int], list[int]]] = [([], []) for _ in calls]
        self._calls, self._offset = calls, epoch_offset_ns
        self._go = threading.Barrier(len(calls) + 1)
        self._stop = threading.Event()
        self._one_by_one = threading.Lock()
        self._errors: list[Exception] = []
        self._threads: list[threading.Thread] = []

    @contextlib.contextmanager
    def running(self, most_calls: int | None = None) -> Iterator[None]:
        """Warmed up, and calling from here on until the block ends, or `most_calls` times each."""
        self._threads = [
            threading.Thread(target=self._work, args=(call, *series, most_calls), name=f"workbench-caller-{at}")
            for at, (call, series) in enumerate(zip(self._calls, self._series, strict=True))
        ]
        try:
            for thread in self._threads:
                thread.start()
            with contextlib.suppress(threading.BrokenBarrierError):
                self._go.wait()
            yield
            if most_calls is not None:
                self._join()
        finally:
            self._stop.set()
            self._go.abort()  # frees those that wait for a thread that the system refused
            self._join()
        self.check()

    def _join(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:  # it was started
                thread.join()

    def check(self) -> None:
        """Raise what a thread raised."""
        if self._errors:
            raise self._errors[0]

    def timed(self) -> tuple[Series, Series]:
        """Starts (Unix epoch) and durations of the calls so far, warm-up left out, by start: int64[calls] each."""
        # a thread appends the start first, so that the durations are the ones to count by
        counts = [len(durations) for _, durations in self._series]
        pairs = list(zip(self._series, counts, strict=True))
        starts = np.concatenate([np.array(starts[:count], np.int64) for (starts, _), count in pairs])
        durations = np.concatenate([np.array(durations[:count], np.int64) for (_, durations), count in pairs])
        order = np.argsort(starts, kind="stable")
        return starts[order], durations[order]

    def _work(self, call: Call, starts: list[int], durations: list[int], most_calls: int | None) -> None:
        try:
            with self._one_by_one:
                until = time.perf_counter_ns() + int(_WARMUP_S * 1e9) // len(self._calls)
                timed_calls(call, _FEWEST_WARMUP, [], [], 0, 2**63)
                timed_calls(call, most_calls or 2**63, [], [], 0, until)
            with contextlib.suppress(threading.BrokenBarrierError):
                self._go.wait()
            left = most_calls if most_calls is not None else 2**63
            while left and not self._stop.is_set():
                timed_calls(call, 1, starts, durations, self._offset, 2**63)
                left -= 1
        except Exception as error:
            self._errors.append(error)
            self._stop.set()
            self._go.abort()


def measure_together(
    calls: Sequence[Call], budget: Budget, *, epoch_offset_ns: int, progress: Callable[[float], None]
) -> Measured:
    """Let all callers call until the time between two completions is known well enough, or the budget is spent.

    The interval of the result is of that time, 1 / throughput, by batch means: the window is cut into `BATCHES` parts
    with as many completions each, whose means are nearly independent (Law, Simulation Modeling and Analysis, 9.5.3).
    Warm-up is found on the times between completions. Raises what a call raises.
    """
    callers = Callers(calls, epoch_offset_ns)
    begun = time.perf_counter_ns()
    with callers.running():
        spent_s = 0.0
        while True:
            time.sleep(max(_FIRST_LOOK_S, _LOOK_GROWTH * spent_s))
            callers.check()
            spent_s = (time.perf_counter_ns() - begun) / 1e9
            starts, durations = callers.timed()
            count = len(durations)
            over = spent_s >= budget.seconds and count >= FEWEST_CALLS * len(calls)
            if count < max(budget.min_calls, BATCHES) and not over:
                continue
            progress(min(1.0, spent_s / budget.seconds))
            window_start, interval = _between_completions(starts, durations)
            enough = (starts >= window_start).sum() >= budget.min_calls and spent_s >= budget.min_seconds
            if enough and interval.relative_half_width <= budget.relative_ci:
                stopped_by = "precise"
            elif count > budget.max_calls:
                stopped_by = "max calls"
            elif over:
                stopped_by = "budget"
            else:
                continue
            break
    starts, durations = callers.timed()
    warmup = int(np.searchsorted(starts, window_start))
    notes = []
    if interval.relative_half_width > budget.relative_ci:
        notes.append(
            f"The throughput is known to ±{100 * interval.relative_half_width:.1f} % only; "
            f"±{100 * budget.relative_ci:.1f} % was wanted."
        )
    return Measured(starts, durations, warmup, interval, stopped_by, notes)


def _between_completions(starts: Series, durations: Series) -> tuple[int, Interval]:
    """Where the warm-up ends (Unix epoch, ns), and the mean time between completions after it."""
    ends = np.sort(starts + durations)
    gaps = np.diff(ends)
    warmup = warmup_length(gaps) if len(gaps) > BATCHES else 0
    kept = ends[warmup:]
    mean = float((kept[-1] - kept[0]) / max(len(kept) - 1, 1))
    size = (len(kept) - 1) // BATCHES
    if not size:
        return int(kept[0]), Interval(mean, 0.0, math.inf)
    means = np.diff(kept[: size * BATCHES + 1 : size]) / size
    half = T_975 * float(means.std(ddof=1)) / math.sqrt(BATCHES)
    return int(kept[0]), Interval(mean, max(mean - half, 0.0), mean + half)
