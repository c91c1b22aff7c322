"""How long to measure, where the warm-up ends, and what is said of an unsteady series."""

import math
import time

import numpy as np
import pytest

from workbench.capture.latency import measure, timed_calls
from workbench.config import Budget
from workbench.runs.statistics import Interval, median_interval, warmup_length

MILLISECOND = 1_000_000


def noise(count, *, seed=0, median_ns=MILLISECOND, sigma=0.01):
    """Calls without any warm-up: lognormal, as latencies are."""
    return (median_ns * np.random.default_rng(seed).lognormal(0, sigma, count)).astype(np.int64)


@pytest.mark.parametrize("count", [6, 11, 30, 101, 1000])
def test_the_interval_covers_the_true_median_as_often_as_it_says(count):
    rng = np.random.default_rng(count)
    samples = rng.lognormal(0, 0.5, (2000, count))  # skewed; its true median is 1
    intervals = [median_interval(sample) for sample in samples]
    covered = np.mean([interval.low <= 1 <= interval.high for interval in intervals])
    assert covered >= 0.94  # 0.95, less the noise of 2000 draws
    assert covered <= 0.995  # a wider interval would waste the user's time


def test_the_interval_holds_its_median_and_narrows_with_more_calls():
    widths = []
    for count in (10, 100, 1000):
        interval = median_interval(noise(count))
        assert interval.low <= interval.median <= interval.high
        widths.append(interval.relative_half_width)
    assert widths == sorted(widths, reverse=True)


def test_few_values_give_their_whole_range():
    assert median_interval(np.array([5, 1, 9])) == Interval(5.0, 1.0, 9.0)


def test_a_median_of_zero_is_never_precise():
    assert Interval(0.0, 0.0, 0.0).relative_half_width == math.inf


@pytest.mark.parametrize("seed", range(10))
def test_without_warm_up_little_is_left_out(seed):
    assert warmup_length(noise(400, seed=seed)) < 60


@pytest.mark.parametrize("seed", range(10))
def test_an_exponential_warm_up_is_left_out(seed):
    settle = 1 + 3 * np.exp(-np.arange(400) / 10)
    found = warmup_length((noise(400, seed=seed) * settle).astype(np.int64))
    assert settle[found] < 1.15
    assert found < 200


@pytest.mark.parametrize("length", [5, 40, 150])
def test_a_slow_start_ends_at_its_step(length):
    series = noise(400)
    series[:length] *= 3
    assert abs(warmup_length(series) - length) <= 5


def test_a_lone_spike_is_no_warm_up():
    series = noise(400, sigma=0.002)
    before = warmup_length(series)
    series[150] *= 100
    assert abs(warmup_length(series) - before) < 20


def test_the_cold_call_is_always_left_out_and_half_is_kept():
    assert warmup_length(np.full(100, 5)) == 1
    assert warmup_length(np.arange(100, 0, -1)) <= 50
    assert [warmup_length(np.array(values, np.int64)) for values in ([], [9], [9, 1])] == [0, 0, 1]


class Clock:
    """A clock that only the model's call moves, so that a series of durations is exactly what is measured."""

    def __init__(self, monkeypatch, durations_ns):
        self.now, self.durations, self.calls = 10**12, durations_ns, 0
        monkeypatch.setattr(time, "perf_counter_ns", lambda: self.now)

    def call(self):
        self.now += int(self.durations[self.calls % len(self.durations)])
        self.calls += 1


def measured(monkeypatch, durations_ns, **budget):
    clock = Clock(monkeypatch, durations_ns)
    progress = []
    offset = 1_700_000_000_000_000_000
    first = (clock.now + offset - 5 * MILLISECOND, 5 * MILLISECOND)
    found = measure(clock.call, Budget(**budget), epoch_offset_ns=offset, first_ns=first, progress=progress.append)
    assert len(found.starts_ns) == len(found.durations_ns) == clock.calls + 1
    assert found.durations_ns[0] == 5 * MILLISECOND
    assert (np.diff(found.starts_ns) >= found.durations_ns[:-1]).all()
    assert found.starts_ns[1] == 10**12 + offset
    assert progress == sorted(progress)
    assert progress[-1] <= 1
    return found


def test_a_steady_series_stops_when_it_is_precise(monkeypatch):
    found = measured(monkeypatch, noise(5000), min_seconds=0.1, seconds=100)
    assert found.stopped_by == "precise"
    assert found.interval.relative_half_width <= 0.01
    assert len(found.durations_ns) < 1000
    assert found.notes == []


def test_at_least_the_least_time_and_calls_are_measured(monkeypatch):
    found = measured(monkeypatch, [MILLISECOND], min_seconds=0.3, seconds=100)
    assert found.durations_ns[1:].sum() >= 300 * MILLISECOND
    found = measured(monkeypatch, [MILLISECOND], min_seconds=0, min_calls=200, seconds=100)
    assert len(found.durations_ns) - found.warmup >= 200


def test_an_unknowable_series_stops_at_the_budget_and_says_how_well_it_is_known(monkeypatch):
    found = measured(monkeypatch, noise(5000, sigma=1), seconds=1)
    assert found.stopped_by == "budget"
    spent = found.durations_ns[1:].sum()
    assert 1e9 <= spent <= 1e9 + found.durations_ns.max()
    assert any("was wanted" in note for note in found.notes)


def test_a_slow_model_is_called_three_times_whatever_it_costs(monkeypatch):
    found = measured(monkeypatch, [60 * 10**9], seconds=1)
    assert found.stopped_by == "budget"
    assert len(found.durations_ns) - found.warmup == 3


def test_the_most_calls_are_never_passed(monkeypatch):
    found = measured(monkeypatch, noise(5000, sigma=1), seconds=1000, max_calls=77)
    assert found.stopped_by == "max calls"
    assert len(found.durations_ns) == 77 + 1


def test_a_drift_is_said_with_its_sign(monkeypatch):
    rising = noise(3000, sigma=0.001) * np.linspace(1, 1.2, 3000)
    found = measured(monkeypatch, rising, seconds=1000, max_calls=3000, min_calls=2500, min_seconds=0)
    assert [note for note in found.notes if "drifts" in note and "+" in note]


def test_a_tail_of_slow_calls_is_said(monkeypatch):
    series = noise(2000, sigma=0.001)
    series[::10] *= 3
    found = measured(monkeypatch, series, min_calls=1000, min_seconds=0, seconds=1000)
    assert [note for note in found.notes if "unstable" in note and "3.0 medians" in note]


def test_timed_calls_end_with_the_call_that_passes_the_deadline(monkeypatch):
    clock = Clock(monkeypatch, [MILLISECOND])
    starts, durations = [], []
    timed_calls(clock.call, 100, starts, durations, 0, clock.now + 5 * MILLISECOND // 2)
    assert durations == [MILLISECOND] * 3
    assert starts == [10**12, 10**12 + MILLISECOND, 10**12 + 2 * MILLISECOND]
