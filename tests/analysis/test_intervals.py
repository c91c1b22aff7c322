"""Interval arithmetic against a twin that marks every nanosecond in a set."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis import intervals as iv

EPOCH = 1_795_261_308_509_858_964  # real timestamps leave no room for float rounding

pairs = st.lists(st.tuples(st.integers(-40, 40), st.integers(-40, 40)), max_size=12)


def arrays(rows):
    starts = np.array([EPOCH + a for a, _ in rows], np.int64)
    ends = np.array([EPOCH + b for _, b in rows], np.int64)
    return starts, ends


def moments(rows):
    return {t for a, b in rows for t in range(a, b)}


def marked(found):
    return {int(t) - EPOCH for a, b in zip(found.starts, found.ends, strict=True) for t in range(a, b)}


@given(pairs)
def test_union_holds_the_same_moments_and_is_disjoint(rows):
    found = iv.union(*arrays(rows))
    assert marked(found) == moments(rows)
    assert found.length_ns == len(moments(rows))
    assert np.all(found.starts[1:] > found.ends[:-1])


@given(pairs, pairs)
def test_intersection_and_difference(rows, others):
    a, b = iv.union(*arrays(rows)), iv.union(*arrays(others))
    assert marked(iv.intersection(a, b)) == moments(rows) & moments(others)
    assert marked(iv.difference(a, b)) == moments(rows) - moments(others)


@given(pairs, st.integers(-45, 45), st.integers(-45, 45))
def test_clip_and_complement(rows, start, end):
    window = set(range(start, end))
    found = iv.union(*arrays(rows))
    assert marked(iv.clip(found, EPOCH + start, EPOCH + end)) == moments(rows) & window
    assert marked(iv.complement(found, EPOCH + start, EPOCH + end)) == window - moments(rows)


@given(pairs, pairs)
def test_overlap_of_each(rows, others):
    cover = iv.union(*arrays(others))
    expected = [len(set(range(a, b)) & moments(others)) for a, b in rows]
    assert iv.overlap_ns(*arrays(rows), cover).tolist() == expected


@given(pairs)
def test_own_time_counts_every_moment_once_for_the_first_comer(rows):
    taken, expected = set(), {}
    for index in sorted(range(len(rows)), key=lambda i: rows[i][0]):
        mine = set(range(*rows[index])) - taken
        expected[index], taken = len(mine), taken | mine
    own = iv.own_time_ns(*arrays(rows))
    assert own.tolist() == [expected[i] for i in range(len(rows))]
    assert own.sum() == len(moments(rows))
