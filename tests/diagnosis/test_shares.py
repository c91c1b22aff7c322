"""The arithmetic of shares and verdict: identities under hypothesis, and one example by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.node_times import NodeTimes
from workbench.analysis.thresholds import CLEAR_LEAD, LARGE_PAIR, LARGE_SHARE
from workbench.diagnosis.shares import CLASSES, LimitSplit, Traced, cpu_pieces, gpu_pieces, limit_split
from workbench.diagnosis.verdict import INCONCLUSIVE, judge, labels

amounts = st.floats(0, 1e9)
splits = st.lists(st.floats(0.001, 1), min_size=4, max_size=4).map(lambda v: LimitSplit(*(np.array(v) / sum(v))))


@given(st.floats(1e3, 1e9), amounts, amounts, st.booleans(), amounts, amounts, amounts, splits, amounts)
def test_gpu_pieces_sum_to_the_latency_and_none_is_negative(
    latency, work, exposed, replayed, host, waiting, sync, split, single
):
    traced = Traced(work, exposed, work if replayed else 0.0, host, waiting, sync)
    pieces = gpu_pieces(latency, traced, split, single)
    values = [float(value) for name, value in vars(pieces).items() if name != "latency_ns"]
    assert min(values) >= -1e-6 * latency
    assert sum(values) == pytest.approx(latency, rel=1e-9)
    assert abs(sum(pieces.shares().values()) - 1) < 1e-9


@given(st.floats(1e3, 1e9), amounts, st.floats(1, 1e9), splits)
def test_cpu_pieces_sum_to_the_latency(latency, node_ns, traced, split):
    pieces = cpu_pieces(latency, node_ns, max(traced, node_ns), split)
    assert sum(float(v) for k, v in vars(pieces).items() if k != "latency_ns") == pytest.approx(latency, rel=1e-9)


def test_one_call_by_hand():
    # T = 100: 40 kernels, 20 exposed copies, so 40 idle; the traced idle time is 30 host, 20 latency, 10 sync
    traced = Traced(work=40.0, exposed=20.0, replay=0.0, host=30.0, launch_latency=20.0, sync=10.0)
    pieces = gpu_pieces(100.0, traced, LimitSplit(0.5, 0.25, 0.25, 0.0), None)
    shares = {name: float(value) for name, value in pieces.shares().items()}
    assert shares == pytest.approx(
        {
            "compute": 0.20,
            "memory": 0.10,
            "pcie": 0.20,
            "launch": 0.20 + 40 / 60 * 0.2 + 0.10,
            "sync": 4 / 60,
            "other": 0,
        }
    )


def test_a_bare_pass_that_was_throttled_keeps_the_traced_proportions():
    traced = Traced(work=90.0, exposed=0.0, replay=0.0, host=10.0, launch_latency=0.0, sync=0.0)
    pieces = gpu_pieces(120.0, traced, LimitSplit(1.0, 0.0, 0.0, 0.0), None)
    assert float(pieces.shares()["compute"]) == pytest.approx(0.9)
    assert float(pieces.host) == pytest.approx(12.0)


def test_traced_work_above_the_latency_is_scaled_down_to_it():
    traced = Traced(work=90.0, exposed=30.0, replay=0.0, host=10.0, launch_latency=0.0, sync=0.0)
    shares = gpu_pieces(100.0, traced, LimitSplit(0.0, 1.0, 0.0, 0.0), None).shares()
    assert float(shares["memory"]) == pytest.approx(0.75)
    assert float(shares["pcie"]) == pytest.approx(0.25)


def test_what_a_replay_takes_beyond_its_kernels_is_launch_latency():
    traced = Traced(work=50.0, exposed=0.0, replay=50.0, host=10.0, launch_latency=0.0, sync=0.0)
    pieces = gpu_pieces(60.0, traced, LimitSplit(1.0, 0.0, 0.0, 0.0), 40.0)
    assert float(pieces.launch_latency) == pytest.approx(10.0)
    assert float(pieces.compute) == pytest.approx(40.0)


COLUMNS = ["compute_ns", "memory_ns", "under-filled_ns", "unknown_ns", "compute_bound_ns", "memory_bound_ns"]


def node_table(*rows, outside=(0.0, 0.0, 0.0, 0.0)):
    """Nodes by their rows of `COLUMNS`, and the time of work that leads to no node, by limit."""
    limits = ("compute", "memory", "under-filled", "unknown")
    device = pd.DataFrame({"own_ns": [1]})
    return NodeTimes(
        device.iloc[:0], device, pd.DataFrame(rows, columns=COLUMNS), 1, dict(zip(limits, outside, strict=True))
    )


def test_work_outside_nodes_counts_by_its_own_limit():
    split = limit_split(node_table((30.0, 0.0, 10.0, 0.0, 5.0, 2.0), outside=(0.0, 20.0, 25.0, 15.0)))
    assert [float(part) for part in split] == [0.30, 0.20, 0.35, 0.15]


def test_a_trace_without_nodes_still_splits():
    split = limit_split(node_table(outside=(0.0, 10.0, 30.0, 60.0)))
    assert [float(part) for part in split] == [0.0, 0.10, 0.30, 0.60]
    assert limit_split(None) == LimitSplit(0.0, 0.0, 0.0, 1.0)


def test_under_filled_work_goes_to_its_bounds_and_without_bounds_to_the_unknown():
    nodes = node_table((0.0, 0.0, 40.0, 0.0, 5.0, 2.0), outside=(0.0, 0.0, 60.0, 0.0))
    split = limit_split(nodes, 0.0, np.array([0.0, 0.5, 1.0]))
    assert np.broadcast_to(split.compute, 3) == pytest.approx([0.0, 0.2, 0.4])
    assert np.broadcast_to(split.under_filled, 3) == pytest.approx([1.0, 0.5, 0.0])
    assert np.broadcast_to(split.unknown, 3) == pytest.approx([0.0, 0.3, 0.6])


parts = st.floats(0, 1e6)


@given(st.lists(st.tuples(*[parts] * 4, *[st.floats(1, 1e6)] * 2), max_size=4), st.tuples(*[parts] * 4),
       st.floats(-3, 3), st.floats(0, 1))  # fmt: skip
def test_a_split_sums_to_one_and_none_is_negative(rows, outside, shift, moved):
    split = limit_split(node_table(*rows, outside=(0.0, *outside[1:])), np.array([shift]), np.array([moved]))
    values = [float(np.broadcast_to(part, 1)[0]) for part in split]
    assert sum(values) == pytest.approx(1.0)
    assert min(values) >= -1e-9


@given(st.lists(st.floats(0.001, 1), min_size=6, max_size=6))
def test_the_rule_names_what_it_says(values):
    values = np.array(values) / sum(values)
    shares = dict(zip((*CLASSES, "sync", "other"), values.tolist(), strict=True))
    verdict = judge(shares)
    first, second = sorted((shares[name] for name in CLASSES), reverse=True)[:2]
    if verdict.name != INCONCLUSIVE:
        assert shares[verdict.name] == first >= LARGE_SHARE
        assert first - second >= CLEAR_LEAD
    elif verdict.pair:
        assert first + second >= LARGE_PAIR
        assert first - second < CLEAR_LEAD
    else:
        assert first < LARGE_SHARE or first - second < CLEAR_LEAD
    assert verdict.reason.endswith(".")


def test_draws_are_judged_as_one_by_one():
    rng = np.random.default_rng(1)
    draws = rng.dirichlet(np.ones(6) * 0.7, 200)
    names = (*CLASSES, "sync", "other")
    together = labels(dict(zip(names, draws.T, strict=True)))
    for row, label in zip(draws, together, strict=True):
        verdict = judge(dict(zip(names, row.tolist(), strict=True)))
        assert label == ("+".join(sorted(verdict.pair)) if verdict.pair else verdict.name)
