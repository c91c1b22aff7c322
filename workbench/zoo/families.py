"""Models of one kind of work each: matrix products, memory traffic, copies, launches, an under-filled device."""

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


def narrow(*, width: int = 65536, depth: int = 16) -> onnx.ModelProto:
    """`depth` LayerNormalization over rows of `width` float32: a device with more multiprocessors than rows is idle.

    ONNX Runtime's CUDA kernel gives each row one thread block (onnxruntime/core/providers/cuda/nn/layer_norm_impl.cu,
    grid 1 × rows), so that a batch of b occupies at most b multiprocessors.
    The scale is N(1, 0.02²) and the bias N(0, 0.02²), shared by all: with 1 and 0 the chain would equal its first node.
    """
    graph = GraphBuilder("narrow")
    value = graph.input("x", ["batch", width])
    scale = graph.normal("scale", [width], scale=0.02, mean=1.0)
    bias = graph.normal("bias", [width], scale=0.02)
    for layer in range(depth):
        value = graph.node("LayerNormalization", value, scale, bias, output="y" if layer == depth - 1 else None)
    graph.output("y", ["batch", width])
    return graph.model()


def mlp(*, width: int = 6144, depth: int = 16, dtype: str = "float16", seed: int = 0) -> onnx.ModelProto:
    """`depth` products of a batch of rows with one width×width weight: 2·batch·depth·width² flops.

    Each product reads the whole weight, which at the default width (75 MB in FP16) exceeds the L2 of an H200 (50 MB).
    While the batch is far below the width, that is nearly all of its traffic: about `batch` flops a byte in FP16, so
    that the batch decides on which side of the ridge of the roofline (Williams et al., 2009) the model lies.
    The weight is N(0, 1/width), as in `compute`, and there is no activation between the products.
    """
    graph = GraphBuilder("mlp", dtype=dtype, seed=seed)
    value = graph.input("x", ["batch", width])
    weight = graph.normal("weight", [width, width], scale=width**-0.5)
    for layer in range(depth):
        value = graph.node("MatMul", value, weight, output="y" if layer == depth - 1 else None)
    graph.output("y", ["batch", width])
    return graph.model()


def conv(
    *, channels: int = 256, size: int = 112, depth: int = 8, dtype: str = "float16", seed: int = 0
) -> onnx.ModelProto:
    """`depth` convolutions 3×3 of ["batch", channels, size, size] by one shared weight, padded so that sizes stay:
    18·channels² flops for each of batch·size² pixels and layer.

    The weight is N(0, 1/(9·channels)), so that the variance of the values stays about that of the input.
    """
    graph = GraphBuilder("conv", dtype=dtype, seed=seed)
    shape: list[int | str] = ["batch", channels, size, size]
    value = graph.input("x", shape)
    weight = graph.normal("weight", [channels, channels, 3, 3], scale=(9 * channels) ** -0.5)
    for layer in range(depth):
        output = "y" if layer == depth - 1 else None
        value = graph.node("Conv", value, weight, output=output, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph.output("y", shape)
    return graph.model()
