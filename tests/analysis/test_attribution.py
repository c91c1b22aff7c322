"""Which node launched what: nesting, borders and causes by hand; and no false pair on real captures."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.attribution import NO_LAUNCH, NO_NODE, OUTSIDE_NODES, attribute, innermost_node

# What a kernel's name must hold to have come from a node of this type, for the types that leave no doubt.
NAMES = {
    "Conv": r"conv|gemm|cudnn|op_generic_tensor|splitK|cutlass|xmma",
    "MatMul": r"gemm|gemv|cutlass|nvjet|splitK",
    "FusedMatMul": r"gemm|gemv|cutlass|splitK",
    "Gemm": r"gemm|gemv|cutlass|nvjet|splitK|BroadcastBias",
    **{op: f"OP_{op}" for op in ("Tanh", "Relu", "Sigmoid", "Exp", "Neg", "Abs", "Cast")},
    **dict.fromkeys(("Add", "Mul", "Sum", "Sub"), "BinaryElementWise"),
    **{op: op for op in ("BiasSoftmax", "Gather", "Concat", "Transpose", "BiasGelu")},
    "MaxPool": r"maxpool", "AveragePool": r"averpool", "Softmax": r"softmax", "ReduceSum": r"[Rr]educe",
    "SkipLayerNormalization": r"SkipLayerNorm", "LayerNormalization": r"LayerNorm",
}  # fmt: skip


def nodes(*rows):
    return pd.DataFrame(rows, columns=["start_ns", "duration_ns", "thread"])


def frame(rows, columns):
    return pd.DataFrame(rows, columns=columns)


CALLS = ["correlation", "start_ns", "end_ns", "thread"]
WORK = ["call", "start_ns", "correlation", "kind", "bytes"]
EVENTS = ["call", "name", "start_ns", "duration_ns"]
EXECUTE = "SequentialExecutor::Execute"


def test_the_innermost_of_nested_nodes_owns_the_launch():
    # an If of 100 us that holds two nodes; the launches lie in the first, between them, and in the second
    found = innermost_node(
        np.array([15_000, 42_000, 60_000, 105_000]),
        np.full(4, 7),
        nodes((10_000, 90_000, 7), (12_000, 20_000, 7), (50_000, 30_000, 7)),
    )
    assert found.tolist() == [1, 0, 2, NO_NODE]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 12)), max_size=8), st.lists(st.integers(0, 60), max_size=6)
)
def test_innermost_equals_a_search_through_nested_intervals(rows, moments):
    nested = []  # keep only intervals that nest or are disjoint, as executions on one thread do
    for start, length in sorted(rows, key=lambda row: (row[0], -row[1])):
        end = start + length + 1
        if all(end <= b or start >= b for a, b in nested if a <= start):
            nested.append((start, end))
    times = np.array(moments, np.int64) * 1_000_000
    table = nodes(*[(a * 1_000_000, (b - a) * 1_000_000 - 1_000, 1) for a, b in nested])
    if not len(table):
        table = table.astype("int64")
    found = innermost_node(times, np.ones(len(times), np.int64), table)
    for moment, row in zip(moments, found, strict=True):
        holding = [i for i, (a, b) in enumerate(nested) if a <= moment < b]
        smallest = min((nested[i][1] - nested[i][0] for i in holding), default=None)
        assert (row == NO_NODE) if not holding else (nested[row][1] - nested[row][0] == smallest and row in holding)


def test_border_copies_carry_inputs_and_outputs_and_the_rest_says_why():
    work = frame(
        [
            (0, 10_000, 1, "h2d", 400),  # before the executor: the input of 400 bytes, though it is listed second
            (0, 30_000, 2, "h2d", 999),  # before the executor, of no input's size
            (0, 50_000, 3, None, None),  # inside the node
            (0, 95_500, 4, "d2h", 16),  # after the executor
            (0, 60_000, 99, None, None),  # no host call known
        ],
        WORK,
    )
    launches = frame(
        [(1, 8_000, 9_000, 1), (2, 20_000, 21_000, 1), (3, 45_000, 49_000, 1), (4, 95_000, 96_000, 1)], CALLS
    )
    executor = frame([(0, EXECUTE, 40_000, 40_000)], EVENTS)
    found = attribute(
        work, launches, nodes((44_000, 10_000, 1)), executor, input_bytes={"a": 100, "b": 400}, output_names=["y"]
    )
    assert found["node"].tolist() == [NO_NODE, NO_NODE, 0, NO_NODE, NO_NODE]
    assert found["carries"].fillna("").tolist() == ["input b", "", "", "output y", ""]
    assert found["cause"].astype(object).fillna("").tolist() == ["", OUTSIDE_NODES, "", "", NO_LAUNCH]


@pytest.mark.parametrize(
    "name", ["launch_device", "launch_device_nsys", "memory_device", "compute_device", "resnet50_b1_device",
             "resnet50_b64_device", "encoder_device", "decoder_device"],
)  # fmt: skip
def test_no_kernel_of_a_real_run_leads_to_a_node_of_another_kind(recorded, name):
    found = recorded(name).diagnosis.nodes
    kernels = found.device[found.device["table"] == "kernels"]
    types = found.executions["op_type"].to_numpy()[kernels["node"]]
    judged = [(op, kernel) for op, kernel in zip(types, kernels["name"], strict=True) if op in NAMES]
    assert len(judged) > 0.9 * len(kernels)
    assert [pair for pair in judged if not re.search(NAMES[pair[0]], pair[1])] == []
