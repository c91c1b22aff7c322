"""Several callers at once: each is served in its own thread, and throughput is counted over all of them."""

import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from workbench.capture.callers import BATCHES, Callers, _between_completions, measure_together
from workbench.config import Budget

QUICK = Budget(seconds=1.0, min_seconds=0.1, min_calls=20, relative_ci=0.2)


def sleeper(seconds):
    return lambda: time.sleep(seconds)


def test_each_caller_makes_as_many_calls_as_asked_in_a_thread_of_its_own():
    threads = [set(), set(), set()]

    def noting(seen):
        return lambda: seen.add(threading.get_ident())

    callers = Callers([noting(seen) for seen in threads], epoch_offset_ns=10**18)
    with callers.running(most_calls=7):
        pass
    starts, durations = callers.timed()
    assert len(starts) == len(durations) == 21
    assert (np.diff(starts) >= 0).all()
    assert (starts > 10**18).all()
    assert [len(seen) for seen in threads] == [1, 1, 1]
    assert len(set.union(*threads)) == 3


def test_warm_up_is_made_by_one_caller_at_a_time():
    calls = []

    def call():
        begun = time.perf_counter()
        time.sleep(0.002)
        calls.append((threading.get_ident(), begun, time.perf_counter()))

    with Callers([call] * 3, 0).running(most_calls=3):
        pass
    by_thread = {name: [each[1:] for each in calls if each[0] == name][:3] for name, *_ in calls}
    spans = sorted((first[0], last[1]) for first, *_, last in by_thread.values())
    assert len(spans) == 3
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_waiting_callers_are_served_side_by_side():
    one = measure_together([sleeper(0.005)] * 1, QUICK, epoch_offset_ns=0, progress=lambda share: None)
    four = measure_together([sleeper(0.005)] * 4, QUICK, epoch_offset_ns=0, progress=lambda share: None)
    assert one.interval.median / four.interval.median > 2
    assert four.interval.median > 0.8 * 5e6 / 4  # four cannot do more; the window cuts off less than a call
    measured = four.durations_ns[four.warmup :]
    assert (measured >= 5e6).all()  # a call is as long as ever, only the time between two ends shrinks


def test_what_a_call_raises_reaches_the_caller_and_ends_the_others():
    def broken():
        raise RuntimeError("no memory left")

    with pytest.raises(RuntimeError, match="no memory left"):
        measure_together([sleeper(0.001), broken], QUICK, epoch_offset_ns=0, progress=lambda share: None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("workbench-caller")]


def test_a_thread_that_the_system_refuses_ends_the_others(monkeypatch):
    real, started = threading.Thread.start, []

    def refusing(thread):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    with (
        pytest.raises(RuntimeError, match="can't start new thread"),
        Callers([sleeper(0.001)] * 3, 0).running(most_calls=3),
    ):
        pytest.fail("nothing is to be measured")
    assert not started[0].is_alive()


def test_the_time_between_completions_is_the_window_over_its_calls():
    rng = np.random.default_rng(0)
    ends = np.cumsum(rng.integers(900, 1101, 4001))
    start, interval = _between_completions(ends - 5000, np.full(4001, 5000))
    assert abs(interval.median - 1000) < 3
    assert interval.low < 1000 < interval.high
    assert interval.relative_half_width < 0.01
    assert start in ends


def test_a_window_of_few_calls_has_no_interval():
    ends = np.arange(BATCHES // 2) * 1000
    _, interval = _between_completions(ends, np.zeros(len(ends), np.int64))
    assert interval.median == 1000
    assert interval.relative_half_width == float("inf")
