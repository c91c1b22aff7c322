"""The work counter against onnx-tool on the operators that it counts exactly.

onnx-tool counts multiply-adds, and the addition of a bias as one more each.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_tool
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node import count
from onnx import helper, numpy_helper, shape_inference

SIZE = st.integers(1, 6)
PRODUCTS = ("Conv", "Gemm", "MatMul", "Einsum", "QLinearConv")
ORT_NAMES = {1: "float", 2: "uint8", 3: "int8", 6: "int32"}
ORT_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6}


def graph_of(op_type: str, fed: dict[str, Any], weights: dict[str, Any], slots: str, **attributes: Any) -> Any:
    """One node whose inputs are named in `slots`; `fed` and `weights` give the arrays by name."""
    inputs = [helper.make_tensor_value_info(name, ORT_TYPES[x.dtype.name], x.shape) for name, x in fed.items()]
    out_type = ORT_TYPES[next(iter(fed.values())).dtype.name]
    graph = helper.make_graph(
        [helper.make_node(op_type, slots.split(), ["y"], name="n", **attributes)],
        "g",
        inputs,
        [helper.make_tensor_value_info("y", out_type, None)],
        [numpy_helper.from_array(x, name) for name, x in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def multiply_adds(model: onnx.ModelProto) -> dict[str, int]:
    """onnx-tool's count of each node, by name."""
    graph = onnx_tool.Model(model, {"constant_folding": False, "verbose": False}).graph
    graph.shape_infer(None)
    graph.profile()
    return {name: int(node.macs[0]) for name, node in graph.nodemap.items()}


def counted(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """(tensor flops, output elements) of each matrix product and convolution, with the shapes that ONNX infers."""
    graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {v.name: v.type.tensor_type for v in (*graph.input, *graph.value_info, *graph.output)}
    shapes = {name: (t.elem_type, [d.dim_value for d in t.shape.dim]) for name, t in types.items()}
    shapes.update({w.name: (w.data_type, list(w.dims)) for w in graph.initializer})

    def written(name: str) -> str:
        kind, dims = shapes[name]
        return f"{ORT_NAMES[kind]}:{'x'.join(map(str, dims)) or 'scalar'}"

    found = {}
    for node in graph.node:
        if node.op_type in PRODUCTS:
            out = node.output[0]
            work = count(node.op_type, " ".join(map(written, node.input)), written(out), only(node, model))
            found[node.name] = int(work["tensor_flops"]), math.prod(shapes[out][1])
    return found


def only(node: onnx.NodeProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """The node in a graph of its own, under the name that `count` gives to its row."""
    alone = onnx.NodeProto()
    alone.CopyFrom(node)
    alone.name = "n"
    return helper.make_model(helper.make_graph([alone], "g", [], []), opset_imports=model.opset_import)


def agree(model: onnx.ModelProto) -> None:
    """Each product and convolution of the model: 2 flops for each multiply-add that is not the addition of a bias."""
    theirs, ours = multiply_adds(model), counted(model)
    bias_slot = {"Conv": 2, "Gemm": 2}
    for node in model.graph.node:
        if node.op_type in PRODUCTS:
            flops, outputs = ours[node.name]
            biased = len(node.input) > bias_slot.get(node.op_type, len(node.input))
            assert flops == 2 * (theirs[node.name] - biased * outputs) > 0


def floats(*shape: int) -> Any:
    return np.ones(shape, np.float32)


@settings(max_examples=20, deadline=None)  # a model is made and profiled each time; shapes, not values, are at stake
@given(
    batch=SIZE, channels=SIZE, per_group=SIZE, out_per_group=SIZE, side=st.integers(3, 8), taps=st.integers(1, 3),
    rank=st.integers(1, 3), stride=st.integers(1, 2), pad=st.integers(0, 1), bias=st.booleans(),
)  # fmt: skip
def test_convolutions(
    batch: int, channels: int, per_group: int, out_per_group: int, side: int, taps: int, rank: int, stride: int,
    pad: int, bias: bool,
) -> None:  # fmt: skip
    groups = channels
    weights = {"k": floats(groups * out_per_group, per_group, *[taps] * rank)}
    if bias:
        weights["b"] = floats(groups * out_per_group)
    fed = {"x": floats(batch, groups * per_group, *[side] * rank)}
    spatial = {"group": groups, "strides": [stride] * rank, "pads": [pad] * 2 * rank}
    agree(graph_of("Conv", fed, weights, "x k b" if bias else "x k", **spatial))


@settings(max_examples=20, deadline=None)
@given(batch=SIZE, m=SIZE, k=st.integers(2, 6), n=SIZE, broadcast=st.booleans())
def test_products(batch: int, m: int, k: int, n: int, broadcast: bool) -> None:
    right = floats(k, n) if broadcast else floats(batch, k, n)
    agree(graph_of("MatMul", {"a": floats(batch, m, k)}, {"b": right}, "a b"))
    agree(graph_of("Gemm", {"a": floats(m, k)}, {"b": floats(n, k), "c": floats(n)}, "a b c", transB=1))
    transposed = {"b": floats(batch, n, k)}
    agree(graph_of("Einsum", {"a": floats(batch, m, k)}, transposed, "a b", equation="bik,bjk->bij"))


def test_a_quantised_convolution() -> None:
    weights = {"s": np.array(1, np.float32), "z": np.array(0, np.uint8), "v": np.array(0, np.int8)}
    weights["k"] = np.ones((5, 3, 3, 3), np.int8)
    agree(graph_of("QLinearConv", {"x": np.ones((2, 3, 6, 6), np.uint8)}, weights, "x s z k s v s z"))


def test_every_product_of_resnet50_as_published() -> None:
    model = onnx.load(str(Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx"))
    assert sum(node.op_type in PRODUCTS for node in model.graph.node) == 54
    for index, each in enumerate(model.graph.node):
        each.name = f"{each.op_type}_{index}"
    agree(model)
