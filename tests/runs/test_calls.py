"""Moments are given to calls as a person would do it by looking."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workbench.runs.calls import OUTSIDE, assign_calls

gaps = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5)), max_size=12)


def by_looking(times, starts, ends):
    found = []
    for time in times:
        holding = [index for index, (start, end) in enumerate(zip(starts, ends, strict=True)) if start <= time <= end]
        assert len(holding) <= 1  # the calls are disjoint
        found.append(holding[0] if holding else OUTSIDE)
    return found


@given(gaps, st.lists(st.integers(-3, 90), max_size=30), st.integers(0, 2**60))
def test_each_moment_belongs_to_the_call_that_holds_it(calls, times, epoch_ns):
    edges = np.cumsum([size for call in calls for size in call])
    starts, ends = edges[::2] + epoch_ns, edges[1::2] + epoch_ns
    moments = [time + epoch_ns for time in times]
    found = assign_calls(np.array(moments, np.int64), starts, ends)
    assert found.dtype == np.int32
    assert found.tolist() == by_looking(moments, starts.tolist(), ends.tolist())


def test_without_calls_every_moment_is_outside():
    assert assign_calls(np.array([1, 2], np.int64), [], []).tolist() == [OUTSIDE, OUTSIDE]


def test_without_moments_nothing_is_assigned():
    assert assign_calls(np.array([], np.int64), [1], [2]).shape == (0,)
