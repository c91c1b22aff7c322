"""Kernels of a replayed CUDA graph lead back to the nodes of the call that captured it."""

import pytest
from given_tables import CEILINGS, H200, PASS, Given, call, copy, kernel, launch, node

from workbench.analysis.attribution import GRAPH_NODE_UNKNOWN, GRAPH_NODES_MISSING, OUTSIDE_NODES
from workbench.analysis.node_times import node_times

# The warm-up call 1 captures two nodes at 1,000..9,000 and 10,000..19,000 us; calls 2 and 3 replay them.
US = 1000
NODES = [node(1, 1_000 * US, 8_000 * US, 0), node(1, 10_000 * US, 9_000 * US, 1)]
CALLS = [
    call(1, 0, 20_000 * US, phase="warm-up"),
    call(2, 30_000 * US, 40_000 * US),
    call(3, 50_000 * US, 60_000 * US),
]
# 11 and 12 are captured, 21 and 22 their executable clones, 31 and 32 clones of these
GRAPH_NODES = [
    {"graph_node": 11, "time_ns": 2_000 * US, "thread": 1},
    {"graph_node": 12, "time_ns": 12_000 * US, "thread": 1},
    {"graph_node": 21, "origin": 11, "time_ns": 25_000 * US, "thread": 1},
    {"graph_node": 22, "origin": 12, "time_ns": 25_000 * US, "thread": 1},
    {"graph_node": 31, "origin": 21, "time_ns": 26_000 * US, "thread": 1},
    {"graph_node": 32, "origin": 22, "time_ns": 26_000 * US, "thread": 1},
]


def replay(number, correlation, *graph_nodes, process=None):
    """A replay's launch, and a kernel of 10 us for each graph node."""
    begin = (30_000 if number == 2 else 50_000) * US + 100
    kernels = [
        kernel(number, start, start + 10 * US, correlation, graph_node=graph_node, process=process)
        for start, graph_node in zip(range(begin + 20 * US, 2**62, 20 * US), graph_nodes, strict=False)
    ]
    return launch(begin, begin + 5 * US, correlation, name="cudaGraphLaunch", process=process), kernels


BOTH = (replay(2, 5, 31, 32), replay(3, 6, 31, 32))


def times(graph_nodes=GRAPH_NODES, nodes=NODES, replays=BOTH, **tables):
    run = Given(
        latency=CALLS, nodes=nodes, launches=[each[0] for each in replays],
        kernels=[each for _, kernels in replays for each in kernels], graph_nodes=graph_nodes, **tables,
    )  # fmt: skip
    return node_times(run, H200, CEILINGS, tf32=True, input_bytes={}, output_names=[], pass_name=PASS)


def test_each_replay_executes_the_captured_nodes_once_more():
    found = times()
    assert found.device["cause"].isna().all()
    owners = found.executions.iloc[found.device["node"]]
    assert owners["node_index"].tolist() == [0, 1, 0, 1]
    assert owners["call"].tolist() == found.device["call"].tolist() == [2, 2, 3, 3]
    assert owners["duration_ns"].tolist() == [0] * 4
    assert owners["start_ns"].tolist() == found.device["launch_ns"].tolist()
    assert len(found.executions) == 4  # the capture itself was not measured


def test_time_and_work_per_call_come_out_as_without_a_graph():
    table = times().nodes.set_index("node_index")
    assert table["executions"].tolist() == [1.0, 1.0]
    assert table["time_ns"].tolist() == [10 * US, 10 * US]
    assert table["host_ns"].tolist() == [0.0, 0.0]
    assert table["fp_flops"].tolist() == [1000.0, 1000.0]
    assert table["read_bytes"].tolist() == [4000.0, 4000.0]


def test_several_kernels_of_a_node_share_one_execution_and_two_replays_in_a_call_make_two():
    begin = replay(2, 7, 32)
    later = [
        {**each, "start_ns": each["start_ns"] + 2_000 * US, "end_ns": each["end_ns"] + 2_000 * US} for each in begin[1]
    ]
    again = (
        {**begin[0], "start_ns": begin[0]["start_ns"] + 1_000 * US, "end_ns": begin[0]["end_ns"] + 1_000 * US},
        later,
    )
    found = times(replays=[replay(2, 5, 31, 21, 32), again])
    assert found.device["node"].tolist() == [0, 0, 1, 2]
    assert found.executions["node_index"].tolist() == [0, 1, 1]
    assert found.nodes.set_index("node_index").loc[1, "executions"] == 1.0  # two in call 2, none in call 3


def test_a_measured_call_that_captures_keeps_its_own_rows():
    nodes = [node(2, 30_001 * US, 500 * US, 0)]
    made = [{"graph_node": 11, "time_ns": 30_100 * US, "thread": 1}, {"graph_node": 21, "origin": 11}]
    found = times(made, nodes, [replay(2, 5, 21), replay(3, 6, 21)])
    assert found.device["node"].tolist() == [0, 1]
    assert found.executions["duration_ns"].tolist() == [500 * US, 0]


@pytest.mark.parametrize(
    ("graph_nodes", "cause"),
    [
        ([], GRAPH_NODES_MISSING),
        ([{"graph_node": 99}], GRAPH_NODE_UNKNOWN),  # of another graph
        ([{"graph_node": 31, "origin": 77}], GRAPH_NODE_UNKNOWN),  # a clone of one that was not recorded
        ([{"graph_node": 31, "origin": 32}, {"graph_node": 32, "origin": 31}], GRAPH_NODE_UNKNOWN),  # a cycle
        ([{"graph_node": 31, "origin": 31, "time_ns": 2_000 * US, "thread": 1}], GRAPH_NODE_UNKNOWN),
        ([{"graph_node": 31, "thread": 1}], GRAPH_NODE_UNKNOWN),  # made at an unknown time
        ([{"graph_node": 31, "time_ns": 9_500 * US, "thread": 1}], OUTSIDE_NODES),  # between two nodes
    ],
)
def test_what_leads_nowhere_says_why_and_is_not_spread(graph_nodes, cause):
    found = times(graph_nodes, replays=[replay(2, 5, 31)])
    assert found.device["cause"].tolist() == [cause]
    assert found.device["node"].tolist() == [-1]
    assert len(found.executions) == 0
    assert sum(found.outside_ns.values()) == 10 * US / 2


def test_a_long_chain_of_clones_ends_at_its_captured_node():
    chain = [{"graph_node": 100, "time_ns": 12_000 * US, "thread": 1}]
    chain += [{"graph_node": 100 + i, "origin": 99 + i} for i in range(1, 1000)]
    found = times(chain[::-1], replays=[replay(2, 5, 1099)])
    assert found.executions["node_index"].tolist() == [1]


def test_graph_nodes_of_two_processes_are_not_mixed_up():
    nodes = [{**each, "process": process} for process, each in ((1, GRAPH_NODES[0]), (2, GRAPH_NODES[1]))]
    nodes[1]["graph_node"] = 11
    found = times(nodes, replays=[replay(2, 5, 11, process=1), replay(3, 5, 11, process=2)])
    assert found.executions["node_index"].tolist() == [0, 1]


def test_work_launched_inside_a_node_stays_with_it():
    own = [node(2, 30_000 * US, 9_000 * US, 4)]  # a node that replays a graph of its own
    found = times(nodes=[*NODES, *own], replays=[replay(2, 5, 31)])
    assert found.executions["node_index"].tolist() == [4]
    assert found.device["node"].tolist() == [0]


def test_copies_and_memsets_of_a_graph_lead_back_too():
    found = times(
        replays=[replay(2, 5)],
        copies=[copy(2, 30_050 * US, 30_060 * US, 5, "d2d", graph_node=31)],
        memsets=[{"call": 2, "start_ns": 30_070 * US, "end_ns": 30_075 * US, "correlation": 5, "graph_node": 32}],
    )  # fmt: skip
    assert found.executions["node_index"].tolist() == [0, 1]
    assert found.nodes.set_index("node_index")["memory_ns"].tolist() == [10 * US / 2, 5 * US / 2]
