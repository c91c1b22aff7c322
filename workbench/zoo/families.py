"""Four models, each of one kind of work: matrix products, memory traffic, copies, launches."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Final

import onnx

from workbench.zoo.builder import GraphBuilder

UNARY_CYCLE: Final = ("Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Exp", "Sigmoid", "Tanh")
"""Any input stays finite through any number of these: Exp only ever sees values in [-1, 0]."""


def compute(*, n: int = 4096, depth: int = 8, dtype: str = "float16", seed: int = 0) -> onnx.ModelProto:
    """`depth` chained products of an n×n input with one n×n weight: 2·depth·n³ flops.

    The weight is N(0, 1/n): each product is a sum of n terms, so the variance of the values stays that of the input
    and FP16 neither overflows nor vanishes. One weight for all keeps the file at n² elements.
    """
    graph = GraphBuilder("compute", dtype=dtype, seed=seed)
    value = graph.input("x", [n, n])
    weight = graph.normal("weight", [n, n], scale=n**-0.5)
    for layer in range(depth):
        value = graph.node("MatMul", value, weight, output="y" if layer == depth - 1 else None)
    graph.output("y", [n, n])
    return graph.model()


def memory(*, elements: int = 64 * 2**20, depth: int = 8) -> onnx.ModelProto:
    """`depth` unary operators, each of which reads and writes `elements` float32: 8·depth·elements bytes."""
    graph = GraphBuilder("memory")
    value = graph.input("x", [elements])
    for layer, op_type in enumerate(islice(cycle(UNARY_CYCLE), depth)):
        value = graph.node(op_type, value, output="y" if layer == depth - 1 else None)
    graph.output("y", [elements])
    return graph.model()


def pcie(*, elements: int = 64 * 2**20) -> onnx.ModelProto:
    """The sum of `elements` float32: one kernel that is far shorter than the copy of its input."""
    graph = GraphBuilder("pcie")
    graph.node("ReduceSum", graph.input("x", [elements]), output="y", keepdims=0)
    graph.output("y", [])
    return graph.model()


def launch(*, nodes: int = 300, width: int = 64, seed: int = 0) -> onnx.ModelProto:
    """`nodes` alternating MatMul 1×width×width and Tanh: each kernel is shorter than its own launch.

    The weight is N(0, 1/width), shared by all products; every node depends on the one before, so that neither
    folding nor parallel streams can shorten the chain.
    """
    graph = GraphBuilder("launch", seed=seed)
    value = graph.input("x", [1, width])
    weight = graph.normal("weight", [width, width], scale=width**-0.5)
    for index in range(nodes):
        output = "y" if index == nodes - 1 else None
        if index % 2 == 0:
            value = graph.node("MatMul", value, weight, output=output)
        else:
            value = graph.node("Tanh", value, output=output)
    graph.output("y", [1, width])
    return graph.model()
