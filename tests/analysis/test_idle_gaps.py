"""Gaps between device work: every idle nanosecond lies in one of them, and its causes sum to its length."""

from __future__ import annotations

from itertools import pairwise

import pytest
from given_tables import PASS, Given, call, copy, kernel, launch
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.device_work import call_times
from workbench.analysis.idle_gaps import idle_gaps

CAUSES = ["host_ns", "launch_latency_ns", "sync_ns"]
ENDS = (60, 100)


def rows(run):
    table = idle_gaps(run, PASS)
    return [tuple(row) for row in table[["start_ns", "duration_ns", *CAUSES]].to_numpy().tolist()]


def test_each_gap_has_the_cause_of_the_launch_that_ends_it():
    run = Given(
        latency=[call(0, 0, 100)],
        kernels=[kernel(0, 10, 20, 1), kernel(0, 30, 40, 2), kernel(0, 60, 70, 3)],
        launches=[
            launch(2, 3, 1),
            launch(15, 16, 2),
            launch(55, 56, 3),
            launch(42, 52, 9, name="cudaStreamSynchronize"),
        ],
    )
    assert rows(run) == [
        (0, 10, 10, 0, 0),  # launched after the call began
        (20, 10, 0, 10, 0),  # launched before the work ahead had ended
        (40, 20, 10, 0, 10),  # the host waited for half of it
        (70, 30, 30, 0, 0),  # nothing follows
    ]


def test_copies_and_calls_that_overlap_leave_only_the_gaps_of_their_common_window():
    run = Given(
        latency=[call(0, 0, 50), call(1, 40, 100)],
        kernels=[kernel(0, 0, 45, 1), kernel(1, 50, 90, 2)],
        copies=[copy(1, 80, 100, 3, "d2h")],
        launches=[launch(0, 1, 1), launch(46, 47, 2), launch(60, 61, 3)],
    )
    assert rows(run) == [(45, 5, 5, 0, 0)]


def test_without_device_work_there_are_no_gaps_to_speak_of():
    empty = idle_gaps(Given(latency=[call(0, 0, 100)]), PASS)
    assert len(empty) == 0
    assert list(empty) == ["start_ns", "duration_ns", *CAUSES]


spans = st.tuples(st.integers(0, 119), st.integers(0, 30), st.integers(0, 119))


@given(st.lists(spans, max_size=12), st.lists(st.tuples(st.integers(0, 110), st.integers(1, 20)), max_size=3))
def test_gaps_are_the_moments_without_work_and_their_causes_those_of_the_calls(work, waits):
    windows = [(0, ENDS[0]), (ENDS[0] + 5, 5 + sum(ENDS))]
    inside = [(at, length, host) for at, length, host in work if any(low <= at < high for low, high in windows)]
    run = Given(
        latency=[call(number, *window) for number, window in enumerate(windows)],
        kernels=[
            kernel(int(at >= windows[1][0]), at, at + length, number) for number, (at, length, _) in enumerate(inside)
        ],
        launches=[launch(min(host, at), min(host, at) + 1, number) for number, (at, _, host) in enumerate(inside)]
        + [launch(at, at + length, 1000, name="cudaDeviceSynchronize") for at, length in waits],
    )
    gaps = idle_gaps(run, PASS)
    if not inside:
        assert len(gaps) == 0
        return
    busy = {
        moment
        for at, length, _ in inside
        for moment in range(at, min(at + length, next(high for low, high in windows if low <= at < high)))
    }
    idle = {moment for low, high in windows for moment in range(low, high)} - busy
    found = [(start, start + length) for start, length in gaps[["start_ns", "duration_ns"]].to_numpy().tolist()]
    assert {moment for start, end in found for moment in range(start, end)} == idle
    assert sum(end - start for start, end in found) == len(idle)
    assert all(end < start or end == windows[0][1] for (_, end), (start, _) in pairwise(found))
    assert (gaps[CAUSES].sum(axis=1) == gaps["duration_ns"]).all()
    assert gaps[CAUSES].sum().equals(call_times(run, PASS)[CAUSES].sum())


@pytest.mark.parametrize("name", ["launch_numpy", "pcie_numpy", "launch_device_graph", "resnet50_b1_device_nsys"])
def test_the_gaps_of_recorded_runs_add_up_to_the_idle_time_of_their_calls(recorded, name):
    run = recorded(name)
    for pass_name in ("activity", "nodes"):
        assert idle_gaps(run, pass_name)[CAUSES].sum().equals(call_times(run, pass_name)[CAUSES].sum())
