"""The innermost of many intervals, against a search through all of them; and shapes that would slow a climb down."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.spans import NO_SPAN, innermost

spans = st.lists(st.tuples(st.integers(0, 30), st.integers(-2, 20), st.sampled_from([5, 9, -1])), max_size=14)
moments = st.lists(st.tuples(st.integers(-3, 55), st.sampled_from([5, 9, 11])), max_size=12)


def search(time, thread, rows):
    """The span that starts last, the shorter one of two, the later row of two equal ones."""
    holding = [
        (start, -(start + length), row)
        for row, (start, length, on) in enumerate(rows)
        if on == thread and start <= time < start + length
    ]
    return max(holding)[2] if holding else NO_SPAN


def asked(points, rows, shift=0):
    times, threads = np.array(points, np.int64).reshape(-1, 2).T
    starts, lengths, on = np.array(rows, np.int64).reshape(-1, 3).T
    return innermost(times + shift, threads, starts + shift, starts + lengths + shift, on)


@given(moments, spans)
def test_any_intervals_on_any_threads(points, rows):
    assert asked(points, rows).tolist() == [search(time, thread, rows) for time, thread in points]


@given(moments, spans)
def test_times_too_far_apart_for_sums_of_64_bits(points, rows):
    far = [(-(2**62), 1, 5), (2**62, 1, 9)]
    assert asked(points, [*rows, *far]).tolist() == [search(time, thread, rows) for time, thread in points]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=120), st.integers(0, 200))
def test_ranges_that_nest_as_a_stack(steps, seed):
    rng, rows, stack, clock = np.random.default_rng(seed), [], [], 0
    for step in steps:  # opens one range, then closes some of those that are open
        stack.append(clock := clock + 1)
        for _ in range(min(step, len(stack))):
            start, clock = stack.pop(), clock + 1
            rows.append((start, clock - start, 5))
    points = [(int(time), 5) for time in rng.integers(0, clock + 2, 20)]
    assert asked(points, rows).tolist() == [search(time, thread, rows) for time, thread in points]


COUNT = 200_000
INDEX = np.arange(COUNT)


@pytest.mark.parametrize(
    ("starts", "ends", "times", "expected"),
    [
        # all equal: the last row
        (INDEX * 0, INDEX * 0 + 9, INDEX % 9, INDEX * 0 + COUNT - 1),
        # one inside the other, and all but the outermost over: no chain of parents may be walked for each moment
        (INDEX, np.r_[4 * COUNT, 2 * COUNT - INDEX[1:]], 2 * COUNT + INDEX, INDEX * 0),
        # a staircase of ranges that overlap their neighbours
        (2 * INDEX, 2 * INDEX + 3, 2 * INDEX, INDEX),
        # one long range around many short ones, and moments between these
        (np.r_[0, 4 * INDEX[1:]], np.r_[4 * COUNT, 4 * INDEX[1:] + 2], 4 * INDEX + 3, INDEX * 0),
    ],
)
def test_hostile_shapes(starts, ends, times, expected):
    thread = np.zeros(COUNT, np.int64)
    assert (innermost(times, thread, starts, ends, thread) == expected).all()


def test_as_many_threads_as_ranges():
    found = innermost(INDEX + 1, INDEX[::-1], INDEX, INDEX + 5, INDEX[::-1])
    assert (found == INDEX).all()
