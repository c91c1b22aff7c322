"""The work counter against numbers worked out by hand: operators of ONNX and their first fusions."""

from __future__ import annotations

from typing import Any

import pytest
from one_node import MS, amounts, count, node, on

QUANTISED = "uint8:1x3x2x2 scalar uint8:scalar int8:1x3x1x1 scalar int8:scalar scalar uint8:scalar int32:1"
PROJECTED = "1x3x8 8x24 24 2x1x2x5x4"
PRESENT = "1x3x8 2x1x2x8x4"
CAUSAL = {"num_heads": 1, "unidirectional": 1}

# (operator, inputs, outputs, graph, tensor flops, fp flops, special flops, bytes read, bytes written)
BY_HAND: list[Any] = [
    # 2·(2·3)·5 = 60 over 2 batches; 4 B · (2·3·5 + 5·4), 4 B · 2·3·4
    ("MatMul", "2x3x5 5x4", "2x3x4", None, 240, 0, 0, 200, 96),
    ("MatMul", "5 5", "scalar", None, 10, 0, 0, 40, 4),
    ("MatMulInteger", "int8:2x3 int8:3x4", "int32:2x4", None, 48, 0, 0, 18, 32),
    # 2·2·4·3; α and C: one operation each for 8 elements
    ("Gemm", "2x3 3x4 4", "2x4", on("a b c", alpha=0.5), 48, 16, 0, 88, 32),
    # 7 · 2·3·4·2
    ("FusedMatMul", "7x2x3 7x2x4", "7x3x4", on("a b", **MS, transA=1, alpha=0.125), 336, 84, 0, 392, 336),
    # 2 · 1·8·5·5 outputs · 4 inputs · 9 taps
    ("Conv", "1x4x5x5 8x4x3x3 8", "1x8x5x5", None, 14400, 200, 0, 1584, 800),
    # depthwise: one input channel per output channel
    ("Conv", "1x4x5x5 4x1x3x3", "1x4x5x5", None, 1800, 0, 0, 544, 400),
    ("Conv", "2x3x10 5x3x4", "2x5x7", None, 1680, 0, 0, 480, 280),
    ("Conv", "1x2x4x4x4 3x2x2x2x2", "1x3x3x3x3", None, 2592, 0, 0, 704, 324),
    # bias, fused sum and Relu: one operation each for 18 elements
    ("FusedConv", "1x1x3x3 2x1x1x1 2 1x2x3x3", "1x2x3x3", on("x k b z", **MS, activation="Relu"), 36, 54, 0, 124, 72),
    # every one of 1·2·3·3 inputs meets 4 outputs · 4 taps
    ("ConvTranspose", "1x2x3x3 2x4x2x2", "1x4x6x6", None, 576, 0, 0, 200, 576),
    ("Einsum", "2x3 3x4", "2x4", on("a b", equation="ij,jk->ik"), 48, 0, 0, 72, 32),
    ("Einsum", "2 3", "2x3", on("a b", equation="i,j->ij"), 0, 6, 0, 20, 24),
    # steps 2, batch 1, I 3, H 1: W 4·3, R 4·1; 2 units
    ("LSTM", "2x1x3 1x4x3 1x4x1", "2x1x1x1", on("x k r"), 64, 36, 16, 88, 8),
    # 3 rows of 4: maxima 3·3, subtractions 12, sums 3·3; 12 exp and 12 divisions
    ("Softmax", "3x4", "3x4", on("x"), 0, 30, 24, 48, 48),
    # before opset 13, axis 1 takes all that follow: 2 rows of 12
    ("Softmax", "2x3x4", "2x3x4", on("x", opset=11), 0, 68, 48, 96, 96),
    # 2 rows of 4: means 8, differences 8, squares 8, variances 8, ε 2, scaling 8, γ 8, β 8
    ("LayerNormalization", "2x4 4 4", "2x4", None, 0, 58, 2, 64, 32),
    ("SimplifiedLayerNormalization", "2x4 4", "2x4", None, 0, 34, 2, 48, 32),
    # the sum is written as well, from output slot 3
    ("SkipLayerNormalization", "2x4 2x4 4", "2x4 2x4", on("x s g", "y - - z", **MS), 0, 58, 2, 80, 64),
    # 3 channels: 12 for the folded factors, then 2 per element
    ("BatchNormalization", "1x3x2 3 3 3 3", "1x3x2", None, 0, 24, 3, 72, 24),
    ("Add", "2x3 3", "2x3", None, 0, 6, 0, 36, 24),
    ("Mul", "2x3 2x3", "2x3", on("x x"), 0, 6, 0, 24, 24),  # one tensor, read once
    ("Div", "4 scalar", "4", None, 0, 0, 4, 20, 16),
    ("Sigmoid", "float16:5", "float16:5", None, 0, 10, 10, 10, 10),
    ("Where", "bool:4 4 1", "4", None, 0, 4, 0, 24, 16),
    ("Sum", "4 4 4", "4", None, 0, 8, 0, 48, 16),
    ("ReduceSum", "6x5 int64:1", "6", None, 0, 24, 0, 128, 24),
    ("ReduceMean", "6x5", "6", None, 0, 30, 0, 120, 24),
    ("ReduceLogSumExp", "6x5", "6", None, 0, 84, 36, 120, 24),  # max 24, subtract 30, sum 24, add back 6
    ("MaxPool", "1x2x4x4", "1x2x2x2", on("x", kernel_shape=[2, 2]), 0, 24, 0, 128, 32),
    ("GlobalAveragePool", "1x2x4x4", "1x2x1x1", None, 0, 32, 0, 128, 8),
    ("QuantizeLinear", "6 scalar uint8:scalar", "uint8:6", None, 0, 18, 6, 29, 6),
    # 4 sums of 3 products, each with its bias and 4 operations to requantise
    ("QLinearConv", QUANTISED, "uint8:1x1x2x2", None, 24, 20, 0, 34, 4),
    # 2·2·6·4; a subtraction and a multiplication for each of 24 weights, half a byte each, and one scale per column
    ("MatMulNBits", "2x6 uint8:4x1x3 4", "2x4", on("a b s", **MS, K=6, N=4, bits=4), 96, 48, 0, 76, 32),
    # 2 items · 2 groups of 8 elements: 7·32 + 4, then x · Sigmoid(x)
    ("GroupNorm", "2x2x2x4 4 4", "2x2x2x4", on("x g b", **MS, groups=2, activation=1), 0, 356, 68, 160, 128),
    # 2·3 rows of 4 from 2 tables: 24 additions, 7·24 + 6; ids 24, words 96, positions 48 (shared), γ and β 32
    ("EmbedLayerNormalization", "int32:2x3 900x4 50x4 4 4", "2x3x4", on("i - v p - g b", **MS), 0, 198, 6, 200, 96),
    # 60 scores (2 items · 2 heads · 3 queries · 5 keys), widths 4 and 4; scale 60, softmax 3·60 - 2·12
    ("MultiHeadAttention", "2x3x8 2x5x8 2x5x8", "2x3x8", on("q k v", **MS, num_heads=2), 960, 216, 120, 832, 192),
    # causal: 1 + 2 + 3 + 4 scores
    ("MultiHeadAttention", "1x4x2 1x4x2 1x4x2", "1x4x2", on("q k v", **MS, **CAUSAL), 80, 32, 20, 96, 32),
    # projection 2·3·8·24, and its bias 72; then 48 scores (2 heads · 3 queries · 8 keys), widths 4 and 4
    ("Attention", PROJECTED, PRESENT, on("x k b - p", "y c", **MS, num_heads=2), 1920, 252, 96, 1280, 608),
    # ONNX's operator of that name, 4 query heads and 2 key heads: 60 scores, widths 8 and 6
    ("Attention", "1x4x3x8 1x2x5x8 1x2x5x6", "1x4x3x6", on("q k v", opset=23), 1680, 216, 120, 944, 288),
    ("Transpose", "2x3", "3x2", None, 0, 0, 0, 24, 24),
    ("Gather", "1000x8 int64:3", "3x8", None, 0, 0, 0, 120, 96),  # 3 rows and 3 indices, not the table
    ("Slice", "100 int64:1 int64:1", "10", None, 0, 0, 0, 56, 40),
    ("Expand", "1x4 int64:2", "50x4", None, 0, 0, 0, 32, 800),
    ("Concat", "2 3", "5", None, 0, 0, 0, 20, 20),
    # 2 × 2 neighbours: 4 products and 3 sums for each of 16 outputs
    ("Resize", "1x1x2x2 4", "1x1x4x4", on("x - s", mode="linear"), 0, 112, 0, 32, 64),
    ("Reshape", "2x3 int64:1", "6", None, 0, 0, 0, 0, 0),
    ("Transpose", "uint4:3", "uint4:3", None, 0, 0, 0, 2, 2),  # packed, two to a byte
]


@pytest.mark.parametrize("case", BY_HAND, ids=lambda c: c[0])
def test_formula_by_hand(case: Any) -> None:
    op_type, inputs, outputs, graph, *expected = case
    work = count(op_type, inputs, outputs, graph and node(op_type, **graph))
    assert work["how"] != "unknown"
    assert amounts(work) == tuple(expected)


@pytest.mark.parametrize(
    ("op_type", "inputs", "outputs", "dtype"),
    [
        ("Cast", "2", "float16:2", "float32"),
        ("Cast", "int64:2", "float16:2", "float16"),
        ("Where", "bool:2 bfloat16:2 bfloat16:2", "bfloat16:2", "bfloat16"),
        ("MatMulInteger", "uint8:2x3 int8:3x4", "int32:2x4", "uint8"),
        ("Gather", "float16:9x2 int64:1", "float16:1x2", "float16"),
    ],
)
def test_dtype_is_that_of_the_unit(op_type: str, inputs: str, outputs: str, dtype: str) -> None:
    assert count(op_type, inputs, outputs)["dtype"] == dtype
