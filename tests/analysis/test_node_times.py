"""The time of each node by limit; and of work that leads to no node, by its own launch configuration."""

import numpy as np
import pytest
from given_tables import CEILINGS, H200, PASS, Given, call, copy, kernel, launch, node

from workbench.analysis.attribution import OUTSIDE_NODES, STARTS_BEFORE_LAUNCH
from workbench.analysis.node_times import node_times
from workbench.analysis.roofline import LIMITS


def times(run):
    return node_times(run, H200, CEILINGS, tf32=True, input_bytes={}, output_names=[], pass_name=PASS)


def test_a_trace_without_nodes_is_classified_by_its_own_rows():
    work = [
        kernel(0, 100, 5_100, 1, grid_x=66),  # half of 132 multiprocessors
        kernel(0, 6_000, 11_000, 2, grid_x=65),  # less than half
        kernel(0, 12_000, 13_999, 3, grid_x=999),  # shorter than twice an empty kernel
        kernel(0, 14_000, 16_000, 4, grid_x=999),
        kernel(0, 17_000, 27_000, 5, grid_x=None),
    ]
    run = Given(
        latency=[call(0, 0, 100_000)],
        kernels=work,
        copies=[copy(0, 30_000, 30_500, 6, "d2d"), copy(0, 40_000, 41_000, 7, "h2d")],
        memsets=[{"call": 0, "start_ns": 50_000, "end_ns": 50_300, "correlation": 8, "bytes": 8}],
        graphs=[{"call": 0, "start_ns": 60_000, "end_ns": 61_000, "correlation": 9}],
        launches=[launch(10 * i, 10 * i + 5, i) for i in range(1, 10)],
    )
    found = times(run)
    limits = found.device["limit"].astype(object).where(found.device["limit"].notna(), None).tolist()
    under, unknown = "under-filled", "unknown"
    assert limits == [unknown, under, under, unknown, unknown, "memory", None, "memory", unknown]
    assert found.outside_ns == {"compute": 0.0, "memory": 800.0, under: 6_999.0, unknown: 18_000.0}
    assert set(found.device["cause"]) == {OUTSIDE_NODES}
    assert len(found.executions) == len(found.nodes) == 0
    assert found.calls == 1


def test_kernels_of_a_node_and_kernels_of_none_are_kept_apart():
    run = Given(
        latency=[call(0, 0, 100_000)],
        nodes=[node(0, 10_000, 5_000, 3)],
        kernels=[kernel(0, 14_000, 24_000, 1, grid_x=999, block_x=1024), kernel(0, 30_000, 35_000, 2, grid_x=1)],
        launches=[launch(11_000, 12_000, 1), launch(25_000, 26_000, 2)],
    )
    found = times(run)
    assert found.device["node"].tolist() == [0, -1]
    assert found.nodes.loc[0, ["memory_ns", "under-filled_ns", "time_ns"]].tolist() == [10_000, 0, 10_000]
    assert found.outside_ns["under-filled"] == 5_000.0


def test_a_kernel_before_its_launch_is_no_pair():
    run = Given(
        latency=[call(0, 0, 100_000)],
        nodes=[node(0, 10_000, 5_000, 3)],
        kernels=[kernel(0, 9_000, 9_900, 1)],
        launches=[launch(11_000, 12_000, 1)],
    )
    found = times(run).device
    assert found["cause"].tolist() == [STARTS_BEFORE_LAUNCH]
    assert found["launch_ns"].tolist() == [-1]


def test_replayed_or_not_nothing_is_lost(recorded):
    for name in ("launch_device", "launch_device_graph", "resnet50_b1_numpy"):
        run = recorded(name)
        device = run.manifest.device
        found = node_times(
            run, device, run.manifest.ceilings, tf32=True, input_bytes={}, output_names=[], pass_name=PASS
        )
        assert len(found.executions) == 0  # the pass recorded device work alone
        assert found.device["own_ns"].sum() / found.calls == pytest.approx(sum(found.outside_ns.values()))
        assert found.outside_ns["unknown"] + found.outside_ns["under-filled"] > 0.5 * sum(found.outside_ns.values())


def test_the_limits_of_nodes_sum_to_their_time(recorded):
    for name in ("resnet50_b64_device", "decoder_device"):
        found = recorded(name).diagnosis.nodes
        split = found.nodes[[f"{limit}_ns" for limit in LIMITS]].sum(axis=1)
        assert np.allclose(split, found.nodes["time_ns"], rtol=1e-12)
        assert sum(found.outside_ns.values()) == 0
