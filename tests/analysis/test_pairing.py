"""Pairs of device work and host calls, against a search through all rows; and ids that a hostile file may hold."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.pairing import NO_CALL, TOO_EARLY, first_rows, launch_rows
from workbench.api import load

ids = st.integers(-3, 6) | st.sampled_from([2**62, -(2**62), 2**63 - 1, -(2**63), 2**32])
rows = st.lists(st.tuples(st.integers(0, 2), ids, st.integers(0, 20)), max_size=12)


def frame(found, start="start_ns"):
    process, correlation, start_ns = (np.array(column, np.int64) for column in zip(*found, strict=True)) if found else (
        [np.empty(0, np.int64)] * 3
    )  # fmt: skip
    return pd.DataFrame({"process": process, "correlation": correlation, start: start_ns})


@given(rows, rows)
def test_each_piece_gets_the_earliest_call_of_its_process_and_id(work, launches):
    found = launch_rows(frame(work), frame(launches))
    for (process, correlation, start), row in zip(work, found, strict=True):
        same = [index for index, each in enumerate(launches) if each[:2] == (process, correlation)]
        earliest = min(same, key=lambda index: (launches[index][2], index), default=None)
        if earliest is None:
            assert row == NO_CALL
        elif start < launches[earliest][2]:
            assert row == TOO_EARLY
        else:
            assert row == earliest


@given(st.lists(st.tuples(st.none() | st.integers(0, 2), st.none() | st.integers(0, 5)), max_size=10), st.data())
def test_null_is_the_only_process_or_one_of_its_own_and_never_an_id(held, data):
    asked = data.draw(st.lists(st.tuples(st.none() | st.integers(0, 2), st.none() | st.integers(0, 5)), max_size=10))
    several = len({process for process, _ in [*held, *asked]} - {None}) > 1
    numbers = [np.array([pair[side] for pair in pairs], np.float64) for pairs in (asked, held) for side in (0, 1)]
    for (process, wanted), row in zip(asked, first_rows(*numbers), strict=True):
        same = [
            index
            for index, (other, number) in enumerate(held)
            if number is not None and number == wanted and (other == process or not several)
        ]
        assert row == min(same, default=NO_CALL)


def test_the_runtime_call_around_a_driver_call_is_the_launch():
    launches = frame([(1, 7, 120), (1, 7, 100), (1, 8, 50)])  # the driver's call ended, and was written down, first
    assert launch_rows(frame([(1, 7, 130)]), launches).tolist() == [1]


def test_equal_ids_of_two_processes_are_not_mixed_up():
    launches = frame([(1, 7, 100), (2, 7, 110)])
    assert launch_rows(frame([(2, 7, 130), (1, 7, 130), (3, 7, 130)]), launches).tolist() == [1, 0, NO_CALL]


@pytest.mark.parametrize("spread", [1, 2**40])
def test_many_dense_and_many_sparse_ids_pair_alike(spread):
    count = 600_000  # more than one block
    order = np.random.default_rng(0).permutation(count)
    launches = pd.DataFrame({"correlation": order * spread, "start_ns": np.arange(count)})
    work = pd.DataFrame({"correlation": np.arange(count) * spread, "start_ns": count})
    assert (launch_rows(work, launches) == np.argsort(order)).all()


@pytest.mark.parametrize("name", ["launch_device_nsys", "launch_numpy", "decoder_device"])
def test_every_kernel_and_copy_of_a_real_run_has_one_launch(h200, name):
    run = load(h200 / name)
    for pass_name in ("activity", "nodes"):
        launches = run.launches[run.launches["pass"] == pass_name]
        for work in (run.kernels, run.copies):
            mine = work[work["pass"] == pass_name]
            found = launch_rows(mine, launches)
            assert (found >= 0).all()
            assert (launches["correlation"].to_numpy()[found] == mine["correlation"].to_numpy()).all()
