"""Windows of a traced pass: against a twin that looks at every nanosecond, and against what the diagnosis shows."""

import numpy as np
import pandas as pd
import pytest
from given_tables import CEILINGS, H200, PASS, Given, call, copy, kernel, launch, node
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.device_work import call_times
from workbench.analysis.kernel_times import kernel_times
from workbench.analysis.node_times import node_times
from workbench.analysis.pass_trace import pass_trace
from workbench.analysis.tables import measured_calls
from workbench.runs.manifest import Ceilings, DeviceInfo

CALL_NS = 60
PARTS = ["wall_ns", "work_ns", "copy_ns", "exposed_copy_ns", "host_ns", "launch_latency_ns", "sync_ns"]

# in a call: (begin, length, how long before it was launched, kernel or copy)
pieces = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9), st.integers(0, 30), st.booleans()), max_size=6)
waits = st.lists(st.tuples(st.integers(0, 115), st.integers(0, 20)), max_size=3)


def trace_of(run, device=H200, ceilings=CEILINGS):
    nodes = node_times(run, device, ceilings, tf32=True, input_bytes={}, output_names=[], pass_name=PASS)
    return pass_trace(run, PASS, measured_calls(run, PASS), nodes, device.kind)


def given_run(calls, waits=()):
    """Calls of `CALL_NS` with a pause of 5 between them; all that a call launches ends before it does."""
    rows = {"latency": [], "kernels": [], "copies": [], "launches": []}
    for number, parts in enumerate(calls):
        begin = number * (CALL_NS + 5)
        rows["latency"].append(call(number, begin, begin + CALL_NS))
        for at, length, before, is_kernel in parts:
            correlation = len(rows["launches"]) + 1
            times = number, begin + at, begin + at + length, correlation
            rows["kernels" if is_kernel else "copies"].append(kernel(*times) if is_kernel else copy(*times, "h2d"))
            rows["launches"].append(launch(begin + max(at - before, 0), begin + max(at - before, 0) + 1, correlation))
    rows["launches"] += [launch(at, at + length, 0, name="cudaStreamSynchronize") for at, length in waits]
    return Given(**rows)


def causes(run):
    """What each nanosecond of the calls was spent on, looked at one by one."""
    launches = {row.correlation: row.start_ns for row in run.table("launches").itertuples()}
    syncs = [(w.start_ns, w.end_ns) for w in run.table("launches").itertuples() if w.name == "cudaStreamSynchronize"]
    spent = {}
    for each in run.table("latency").itertuples():
        begin, end = each.start_ns, each.start_ns + each.duration_ns
        work = [row for row in run.table("kernels").itertuples() if row.call == each.call]
        copies = [row for row in run.table("copies").itertuples() if row.call == each.call]
        free = []
        for at in range(begin, end):
            runs = any(row.start_ns <= at < row.end_ns for row in work)
            moves = any(row.start_ns <= at < row.end_ns for row in copies)
            spent[at] = {"wall_ns": 1, "work_ns": runs, "copy_ns": moves, "exposed_copy_ns": moves and not runs}
            if not runs and not moves:
                free.append(at)
        for at in free:
            first = at
            while first - 1 in free:
                first -= 1
            following = sorted(
                (row.start_ns, launches[row.correlation]) for row in [*work, *copies] if row.start_ns > at
            )
            known = following[0][1] if following else None
            if known is not None and known <= first:
                spent[at]["launch_latency_ns"] = 1
            elif (known is None or at < known) and any(low <= at < high for low, high in syncs):
                spent[at]["sync_ns"] = 1
            else:
                spent[at]["host_ns"] = 1
    return spent


@given(st.lists(pieces, min_size=1, max_size=2), waits, st.integers(-5, 130), st.integers(1, 140))
def test_every_nanosecond_of_a_window_is_where_the_twin_finds_it(calls, waits, start, length):
    run = given_run(calls, waits)
    twin = causes(run)
    found = trace_of(run).times(start, start + length)
    inside = [spent for at, spent in twin.items() if start <= at < start + length]
    assert {name: getattr(found, name) for name in PARTS} == {
        name: sum(spent.get(name, 0) for spent in inside) for name in PARTS
    }
    assert found.wall_ns == found.work_ns + found.exposed_copy_ns + found.idle_ns
    assert sum(found.limit_ns.values()) == found.work_ns


@given(st.lists(pieces, min_size=1, max_size=2), st.integers(0, 130))
def test_two_windows_that_touch_add_up(calls, cut):
    trace = trace_of(given_run(calls))
    whole, left, right = trace.times(-10, 200), trace.times(-10, cut), trace.times(cut, 200)
    for name in PARTS:
        assert getattr(left, name) + getattr(right, name) == getattr(whole, name)
    own = [trace.kernel_table(*window)["own_ns"].sum() for window in ((-10, cut), (cut, 200), (-10, 200))]
    assert own[0] + own[1] == own[2]


@given(st.lists(pieces, min_size=1, max_size=2), waits)
def test_the_longest_gaps_are_all_idle_time_by_length(calls, waits):
    trace = trace_of(given_run(calls, waits))
    gaps = trace.longest_gaps(-10, 200, 99)
    lengths = (gaps["end_ns"] - gaps["start_ns"]).tolist()
    assert sum(lengths) == trace.times(-10, 200).idle_ns
    assert lengths == sorted(lengths, reverse=True)


def test_a_cut_gap_keeps_its_cause():
    # work ends at 10; the next begins at 40 and was launched at 30, so that all of the gap is the host's
    trace = trace_of(given_run([[(0, 10, 0, True), (40, 5, 10, True)]]))
    late = trace.times(32, 38)
    assert (late.host_ns, late.launch_latency_ns) == (6, 0)
    assert trace.longest_gaps(0, 60, 1)["cause"].tolist() == ["the host came late"]


def test_a_node_counts_with_what_of_it_lies_in_the_window():
    run = Given(
        latency=[call(0, 0, 10_000)],
        nodes=[node(0, 0, 2_000, 0), node(0, 4_000, 2_000, 1)],
        kernels=[kernel(0, 1_000, 3_000, 1), kernel(0, 5_000, 9_000, 2, name="other")],
        launches=[launch(500, 600, 1), launch(4_500, 4_600, 2)],
    )
    trace = trace_of(run)
    table = trace.node_table(2_000, 6_000).sort_values("name")
    assert table[["name", "time_ns", "host_ns", "executions"]].to_numpy().tolist() == [
        ["n0", 1_000, 0, 0], ["n1", 1_000, 2_000, 1],
    ]  # fmt: skip
    assert table["share"].tolist() == [0.5, 0.5]
    kernels = trace.kernel_table(2_000, 6_000)
    assert kernels[["name", "count", "own_ns", "median_ns"]].to_numpy().tolist() == [
        ["k", 1, 1_000, 2_000], ["other", 1, 1_000, 4_000],
    ]  # fmt: skip
    assert len(trace.node_table(9_500, 9_900)) == len(trace.kernel_table(9_500, 9_900)) == 0


def test_on_a_cpu_the_nodes_are_the_work_and_the_rest_is_the_host():
    run = Given(latency=[call(0, 0, 100)], nodes=[node(0, 10, 30, 0), node(0, 60, 20, 1)])
    trace = trace_of(run, DeviceInfo(kind="cpu", name="CPU"), Ceilings())
    times = trace.times(20, 70)
    assert (times.wall_ns, times.work_ns, times.host_ns) == (50, 30, 20)
    assert times.limit_ns["unknown"] == 30
    assert trace.node_table(20, 70)["time_ns"].tolist() == [20, 10]
    assert len(trace.kernel_table(20, 70)) == 0


def test_a_pass_without_work_is_all_the_host():
    times = trace_of(Given(latency=[call(0, 0, 100)])).times(-50, 50)
    assert (times.calls, times.wall_ns, times.host_ns, times.work_ns) == (1, 50, 50, 0)


@pytest.mark.parametrize("name", ["resnet50_b1_numpy", "launch_device_graph", "pcie_numpy", "encoder_device"])
def test_over_all_measured_calls_it_is_what_the_diagnosis_shows(recorded, name):
    run = recorded(name)
    nodes = run.diagnosis.nodes
    calls = measured_calls(run, "nodes")
    start, end = int(calls["start_ns"].min()), int((calls["start_ns"] + calls["duration_ns"]).max())
    trace = pass_trace(run, "nodes", calls, nodes, "cuda")
    times, per_call = trace.times(start, end), call_times(run, "nodes").sum()
    assert {part: getattr(times, part) for part in PARTS} == {part: int(per_call[part]) for part in PARTS}
    table = trace.node_table(start, end).set_index("node")["time_ns"]
    shown = nodes.nodes["time_ns"] * nodes.calls
    assert np.array_equal(table.reindex(shown.index, fill_value=0).to_numpy(), shown.round().astype("int64").to_numpy())


@pytest.mark.parametrize("name", ["resnet50_b1_numpy", "compute_device"])
def test_over_all_measured_calls_the_kernels_are_those_of_the_report(recorded, name):
    run = recorded(name)
    calls = measured_calls(run, "activity")
    start, end = int(calls["start_ns"].min()), int((calls["start_ns"] + calls["duration_ns"]).max())
    config = {"tf32": True, "input_bytes": {}, "output_names": [], "pass_name": "activity"}
    nodes = node_times(run, run.manifest.device, run.manifest.ceilings, **config)
    table = pass_trace(run, "activity", calls, nodes, "cuda").kernel_table(start, end)
    columns = ["name", "family", "count", "own_ns", "median_ns", "share"]
    pd.testing.assert_frame_equal(
        table[columns].sort_values("name", ignore_index=True),
        kernel_times(run).kernels[columns].sort_values("name", ignore_index=True),
    )
