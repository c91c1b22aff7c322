"""The work counter as a whole: rows and graph joined, what stays unknown, NumPy and ONNX Runtime on the CPU."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from one_node import amounts, count, node, row
from onnx import helper, parser, shape_inference

from workbench.analysis.work import count_work, coverage
from workbench.errors import RunFolderError
from workbench.runs.ort_profile import read_ort_profile

RESNET50 = Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"


def test_prepacked_weight_comes_from_the_graph() -> None:
    listed = count("Gemm", "2x3 3x4 4", "2x4", node("Gemm", "a w3x4 w4"))
    prepacked = count("Gemm", "2x3 4", "2x4", node("Gemm", "a w3x4 w4"))
    assert amounts(prepacked) == amounts(listed) == (48, 8, 0, 88, 32)


@pytest.mark.parametrize(
    ("op_type", "inputs", "outputs"),
    [
        ("Conv", "1x4x5x5 8", "1x8x5x5"),  # the weight is prepacked, the bias left
        ("Conv", "1x4x5x5 1x8x5x5", "1x8x5x5"),  # the weight is prepacked, the fused sum left
        ("MatMul", "2x3", "2x4"),
        ("MaxPool", "1x2x4x4", "1x2x2x2"),  # the window is an attribute
        ("Attention", "1x4x3x8 1x4x3x8 1x4x3x8", "1x4x3x8"),  # two operators have this name
        ("NoSuchOperator", "2", "2"),
        ("Add", "string:2 string:2", "string:2"),
    ],
)
def test_unknown_is_never_zero(op_type: str, inputs: str, outputs: str) -> None:
    work = count(op_type, inputs, outputs)
    assert work["how"] == "unknown"
    assert all(math.isnan(amount) for amount in amounts(work))
    assert pd.isna(work["dtype"])


@pytest.mark.parametrize(
    ("op_type", "slots", "attributes"),
    [
        ("MultiHeadAttention", "q k v", {"num_heads": "two"}),
        ("GroupQueryAttention", "q k v", {"num_heads": [1, 2], "kv_num_heads": 1.5}),
        ("LSTM", "x k r", {"activations": [1, 2, 3]}),
        ("Einsum", "a b c", {"equation": 3}),
        ("MaxPool", "a b c", {"kernel_shape": "large"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_attributes_of_a_type_that_the_operator_cannot_have_are_unknown(
    op_type: str, slots: str, attributes: dict[str, Any]
) -> None:
    graph = node(op_type, slots, domain="com.microsoft", **attributes)
    assert count(op_type, "2x3x4 2x3x4 2x3x4", "2x3x4", graph)["how"] == "unknown"


def pools(*kernels: int, name: str) -> onnx.ModelProto:
    nodes = [helper.make_node("MaxPool", ["x"], ["y"], name=name, kernel_shape=[k]) for k in kernels]
    return helper.make_model(helper.make_graph(nodes, "g", [], []), opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize("name", ["n", ""])
def test_repeated_or_missing_names_join_only_when_the_graph_is_of_one_mind(name: str) -> None:
    shapes = ("1x1x8", "1x1x4")
    assert count("MaxPool", *shapes, pools(3, 3, name=name))["fp_flops"] == 8
    assert count("MaxPool", *shapes, pools(3, 2, name=name))["how"] == "unknown"


def test_nodes_of_subgraphs_are_found_and_coverage_leaves_control_flow_out() -> None:
    graph = parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 18]>
        g (bool c, float[1,1,8] x) => (float[1,1,4] y) {
            [branch] y = If (c) <
                then_branch = t () => (float[1,1,4] a) { [inner] a = MaxPool <kernel_shape = [5]> (x) },
                else_branch = e () => (float[1,1,4] b) { [other] b = MaxPool <kernel_shape = [3]> (x) }
            >
        }""")
    nodes = pd.DataFrame(
        [
            row("If", "bool:scalar", "1x1x4", name="branch"),
            row("MaxPool", "1x1x8", "1x1x4", name="inner"),
            row("Bernoulli", "2", "2", name="unheard-of"),
        ]
    )
    work = count_work(nodes, graph)
    assert work["fp_flops"].iloc[1] == 16
    assert coverage(work, nodes) == 0.5
    assert math.isnan(coverage(work.iloc[:1], nodes.iloc[:1]))


def test_rows_keep_their_index_and_equal_nodes_their_count() -> None:
    rows = [row("Relu", str(n), str(n), name=f"n{n}") for n in (3, 5, 3, 7, 5)]
    nodes = pd.DataFrame(rows, index=[9, 4, 4, 0, 1])
    work = count_work(nodes, None)
    assert work.index.tolist() == [9, 4, 4, 0, 1]
    assert work["fp_flops"].tolist() == [3, 5, 3, 7, 5]
    assert count_work(nodes.iloc[:0], None).empty


def test_missing_shapes_are_unknown_and_damaged_ones_an_error() -> None:
    nodes = pd.DataFrame([{**row("Relu", "", ""), "input_shapes": None, "output_shapes": None}])
    assert count_work(nodes, None)["how"].tolist() == ["unknown"]
    with pytest.raises(RunFolderError, match="record the run again"):
        count_work(nodes.assign(input_shapes='[{"float": "x"}'), None)


ARRAYS = mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=5)
NUMPY_TYPES = st.sampled_from([("float", np.float32), ("float16", np.float16), ("double", np.float64)])


@given(shapes=ARRAYS, kind=NUMPY_TYPES)
def test_broadcasting_agrees_with_numpy(shapes: Any, kind: Any) -> None:
    ort_name, numpy_type = kind
    a, b = (np.zeros(shape, numpy_type) for shape in shapes.input_shapes)
    c = a + b
    left, right, out = (f"{ort_name}:{'x'.join(map(str, x.shape)) or 'scalar'}" for x in (a, b, c))
    work = count("Add", f"{left} {right}", out)
    assert amounts(work) == (0, c.size, 0, a.nbytes + b.nbytes, c.nbytes)
    assert work["dtype"] == c.dtype.name


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, onnx.ModelProto]:
    """One call on the CPU: the table of nodes, and the optimised graph with its weights as typed inputs."""
    folder = tmp_path_factory.mktemp("resnet50")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    session = ort.InferenceSession(str(RESNET50), options, providers=["CPUExecutionProvider"])
    feed = session.get_inputs()[0]
    session.run(None, {feed.name: np.zeros(feed.shape, np.float32)})
    nodes = read_ort_profile(Path(session.end_profiling()), 0)["nodes"].to_pandas()
    model = onnx.load(str(folder / "optimised.onnx"))
    weights = model.graph.initializer
    model.graph.input.extend(helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights)
    del model.graph.initializer[:]
    return nodes, model


def reference_flops() -> int:
    """Multiply-adds of the graph as it was published, by ONNX's own shape inference, times 2."""
    graph = shape_inference.infer_shapes(onnx.load(str(RESNET50))).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    shapes.update({w.name: list(w.dims) for w in graph.initializer})
    total = 0
    for each in graph.node:
        if each.op_type == "Conv":
            _, c_out, height, width = shapes[each.output[0]]
            _, c_in_per_group, k_h, k_w = shapes[each.input[1]]
            total += 2 * c_out * height * width * c_in_per_group * k_h * k_w
        elif each.op_type == "Gemm":
            total += 2 * math.prod(shapes[each.input[1]])
    return total


def test_resnet50_end_to_end(resnet50: tuple[pd.DataFrame, onnx.ModelProto]) -> None:
    nodes, graph = resnet50
    work = count_work(nodes, graph)
    expected = reference_flops()
    assert 7e9 < expected < 9e9  # the published 3.8 to 4.1 billion multiply-adds
    assert work["tensor_flops"].sum() == pytest.approx(expected, rel=0.01)
    assert coverage(work, nodes) >= 0.99
    classifier = work[nodes["op_type"] == "Gemm"]  # prepacked: its weight is in the graph only
    assert classifier["read_bytes"].item() == 4 * (2048 + 2048 * 1000 + 1000)
