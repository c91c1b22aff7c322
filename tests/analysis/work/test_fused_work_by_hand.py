"""The work counter against numbers worked out by hand: fused, recurrent and quantised operators, attention."""

from __future__ import annotations

from typing import Any

import pytest
from one_node import MS, amounts, count, node, on

BYTES_WITH_SCALES = "uint8:2x3 scalar uint8:scalar int8:3x4 scalar int8:scalar"  # two operands, each with its two
ZERO = "scalar uint8:scalar"  # scale and zero point
BIDIRECTIONAL = {"direction": "bidirectional", "hidden_size": 4}
LSTM_DEFAULTS = ["Sigmoid", "Tanh", "Tanh"] * 2
NBITS = {"K": 32, "N": 4, "block_size": 16}
GROUPED = {"num_heads": 4, "kv_num_heads": 2}
PAST = "1x2x5x4 1x2x5x4"
LENGTHS = "int32:1 int32:scalar"
TABLES = "16x2 16x2"

# (operator, inputs, outputs, graph, tensor flops, fp flops, special flops, bytes read, bytes written)
BY_HAND: list[Any] = [
    # 2·2·4·3; C and Relu, one operation each for 8 elements
    ("FusedGemm", "2x3 3x4 4", "2x4", on("a b c", **MS, activation="Relu"), 48, 16, 0, 88, 32),
    ("FusedMatMulActivation", "2x3 3x4", "2x4", on("a b", **MS, alpha=0.5, activation="Relu"), 48, 16, 0, 72, 32),
    # bias 8, FastGelu 8·8
    ("GemmFastGelu", "2x3 3x4 4", "2x4", on("a b c", **MS), 48, 72, 8, 88, 32),
    # channels last, kernel 8 × (3·3·4): 200 outputs of 36 products
    ("NhwcConv", "1x5x5x4 8x3x3x4 8", "1x5x5x8", None, 14400, 200, 0, 1584, 800),
    # the sum of a residual branch, channels last: 16 outputs of 3 products; bias 16, residual 16, Relu 16
    (
        "NhwcFusedConv",
        "float16:1x2x2x3 float16:4x1x1x3 float16:4 float16:1x2x2x4",
        "float16:1x2x2x4",
        on("x k b z", **MS, activation="Relu"),
        *(96, 48, 0, 88, 32),
    ),
    ("BiasGelu", "2x3 3", "2x3", None, 0, 30, 6, 36, 24),
    ("FastGelu", "2x3 3", "2x3", on("x b", **MS), 0, 54, 6, 36, 24),
    ("FastGelu", "2x3", "2x3", on("x", **MS), 0, 48, 6, 24, 24),
    ("Gelu", "2x3", "2x3", on("x", opset=20, approximate="tanh"), 0, 48, 6, 24, 24),
    # 8 outputs: two additions of the bias, Gelu (4 and 1), one product
    ("BiasSplitGelu", "1x2x8 8", "1x2x4", on("x b", **MS), 0, 56, 8, 96, 32),
    # 2 rows of 4: squares 8, their means 8, ε 2, scaling 8, γ 8
    ("RMSNormalization", "2x4 4", "2x4", None, 0, 34, 2, 48, 32),
    # skip 8 and bias 8 on top of that
    ("SkipSimplifiedLayerNormalization", "2x4 2x4 4 4", "2x4", on("x s g b", **MS), 0, 50, 2, 96, 32),
    # β 8, bias 8, skip 8; means 8, differences 8, squares 8, variances 8, ε 2, scaling 8, γ 8
    ("SkipLayerNormalization", "2x4 2x4 4 4 4", "2x4", on("x s g b c", **MS), 0, 74, 2, 112, 32),
    # steps 2, I 3, H 1: W 3, R 1; two additions and a tanh for each of 2 units
    ("RNN", "2x1x3 1x1x3 1x1x1", "2x1x1x1", on("x k r"), 16, 4, 2, 40, 8),
    # W 3·3, R 3·1; for each of 2 units: 3 gates of two additions, 2 sigmoids (2 and 2), a tanh, r∘h, (1 - z)∘n + z∘h
    ("GRU", "2x1x3 1x3x3 1x3x1", "2x1x1x1", on("x k r"), 48, 30, 10, 72, 8),
    # 3 steps · 2 items · 2 directions · (3·4)·(5 + 4) products; 48 units
    ("GRU", "3x2x5 2x12x5 2x12x4", "3x2x2x4", on("x k r", **BIDIRECTIONAL), 2592, 720, 240, 984, 192),
    # 3 steps · 2 items · 2 directions · (4·4)·(5 + 4) products; 48 units; the default activations, spelt out
    (
        "LSTM",
        "3x2x5 2x16x5 2x16x4 2x32",
        "3x2x2x4",
        on("x k r b", **BIDIRECTIONAL, activations=LSTM_DEFAULTS),
        *(3456, 864, 384, 1528, 192),
    ),
    # peepholes: a product and an addition for 3 gates of 2 units, on top of 36
    ("LSTM", "2x1x3 1x4x3 1x4x1 1x3", "2x1x1x1", on("x k r - - - - p"), 64, 48, 16, 100, 8),
    # 8 sums of 3 products, 4 operations each to requantise
    ("QLinearMatMul", f"{BYTES_WITH_SCALES} {ZERO}", "uint8:2x4", None, 48, 32, 0, 33, 8),
    # and the addition of C
    ("QGemm", f"{BYTES_WITH_SCALES} int32:4 {ZERO}", "uint8:2x4", None, 48, 40, 0, 49, 8),
    # no output scale: one multiplication
    ("QGemm", BYTES_WITH_SCALES, "2x4", on("a s z b t v", **MS), 48, 8, 0, 28, 32),
    # 8 outputs of 27 products; a zero point, no bias
    ("ConvInteger", "uint8:1x3x4x4 int8:2x3x3x3 uint8:scalar", "int32:1x2x2x2", None, 432, 0, 0, 103, 32),
    ("MatMulIntegerToFloat", "uint8:2x3 int8:3x4 scalar scalar", "2x4", None, 48, 8, 0, 26, 32),
    # A: 6 elements of 5 and 1; then a multiplication and the bias for 8 outputs
    ("DynamicQuantizeMatMul", "2x3 int8:3x4 scalar int8:scalar 4", "2x4", None, 48, 46, 6, 57, 32),
    # dequantised, added, quantised: 2 + 2 + 1 + 3, and a division
    (
        "QLinearAdd",
        f"uint8:2x3 {ZERO} uint8:2x3 {ZERO} {ZERO}",
        "uint8:2x3",
        None,
        0,
        48,
        6,
        27,
        6,
    ),
    ("QLinearSigmoid", f"uint8:2x3 {ZERO} {ZERO}", "uint8:2x3", None, 0, 42, 18, 16, 6),
    ("NhwcMaxPool", "uint8:1x4x4x2", "uint8:1x2x2x2", on("x", **MS, kernel_shape=[2, 2]), 0, 24, 0, 32, 8),
    # 30 additions; 2 outputs of 4
    ("QLinearGlobalAveragePool", f"uint8:1x2x4x4 {ZERO} {ZERO}", "uint8:1x2x1x1", None, 0, 38, 0, 42, 2),
    # 32 weights of 4 columns: a subtraction and a multiplication each; 8 bits, two blocks with a scale and a zero point
    ("MatMulNBits", "2x32 uint8:4x2x16 8 uint8:8", "2x4", on("a b s z", **MS, **NBITS, bits=8), 512, 256, 0, 424, 32),
    # 4 bits: half of that, zero points packed as well
    ("MatMulNBits", "2x32 uint8:4x2x8 8 uint8:4", "2x4", on("a b s z", **MS, **NBITS, bits=4), 512, 256, 0, 356, 32),
    ("MatMulNBits", "2x32 uint8:4x2x8 8 4", "2x4", on("a b s - - c", **MS, **NBITS, bits=4), 512, 264, 0, 368, 32),
    # projection 2·3·8·24, its scales 72 and bias 72; 18 scores (2 heads · 3 · 3), widths 4 and 4; scale 18, softmax 42
    (
        "QAttention",
        "uint8:1x3x8 int8:8x24 24 scalar scalar uint8:scalar int8:scalar",
        "1x3x8",
        on("x k b s t - z v", **MS, num_heads=2),
        *(1440, 204, 36, 322, 96),
    ),
    # 4 heads, queries after 5 keys see 6, 7 and 8: 84 scores, widths 4 and 4; scale 84, softmax 3·84 - 2·12;
    # rotation of 3 · (4 + 2) · 4 elements, 3 each, with 3 rows of the tables
    (
        "GroupQueryAttention",
        f"1x3x16 1x3x8 1x3x8 {PAST} {LENGTHS} {TABLES}",
        "1x3x16 1x2x8x4 1x2x8x4",
        on("q k v p r l t c s", "y m n", **MS, **GROUPED, do_rotary=1),
        *(1344, 528, 168, 760, 704),
    ),
    # packed, no past: 2 heads of 1 + 2 scores; scale 6, softmax 3·6 - 2·4
    (
        "GroupQueryAttention",
        f"1x2x16 {LENGTHS}",
        "1x2x8",
        on("q - - - - l t", **MS, num_heads=2, kv_num_heads=1),
        *(96, 16, 12, 136, 64),
    ),
    # the same with softcap (a product, a division and a tanh per score) and normed queries and keys: 4 · 24 + 6
    (
        "GroupQueryAttention",
        f"1x2x16 {LENGTHS} 4 4",
        "1x2x8",
        on("q - - - - l t - - - - - - - g h", **MS, num_heads=2, kv_num_heads=1, softcap=50.0),
        *(96, 124, 30, 168, 64),
    ),
    # 24 elements; 3 rows of the tables, 3 positions
    ("RotaryEmbedding", f"1x3x8 int64:1x3 {TABLES}", "1x3x8", on("x p c s", **MS), 0, 72, 0, 168, 96),
    # one position to begin from, for both items
    ("RotaryEmbedding", f"2x3x8 int64:1 {TABLES}", "2x3x8", on("x p c s", **MS), 0, 144, 0, 248, 192),
    # ONNX: half of 8 elements of 2 heads at 3 positions
    (
        "RotaryEmbedding",
        f"1x2x3x8 {TABLES} int64:1x3",
        "1x2x3x8",
        on("x c s p", opset=23, rotary_embedding_dim=4),
        *(0, 72, 0, 264, 192),
    ),
]


@pytest.mark.parametrize("case", BY_HAND, ids=lambda c: c[0])
def test_formula_by_hand(case: Any) -> None:
    op_type, inputs, outputs, graph, *expected = case
    work = count(op_type, inputs, outputs, graph and node(op_type, **graph))
    assert work["how"] != "unknown"
    assert amounts(work) == tuple(expected)


@pytest.mark.parametrize(
    ("op_type", "inputs", "outputs", "graph"),
    [
        # past and present share a buffer of 8: how much it holds, no shape tells
        (
            "GroupQueryAttention",
            f"1x1x16 1x1x8 1x1x8 1x2x8x4 1x2x8x4 {LENGTHS}",
            "1x1x16 1x2x8x4 1x2x8x4",
            on("q k v p r l t", "y m n", **MS, **GROUPED),
        ),
        # a window of 2 keys
        (
            "GroupQueryAttention",
            f"1x3x16 1x3x8 1x3x8 {LENGTHS}",
            "1x3x16",
            on("q k v - - l t", **MS, **GROUPED, local_window_size=2),
        ),
        ("LSTM", "2x1x3 1x4x3 1x4x1", "2x1x1x1", on("x k r", activations=["Relu", "Tanh", "Tanh"])),
        ("RotaryEmbedding", f"1x3x8 int64:1x3 {TABLES}", "1x3x8", None),  # two operators have this name
    ],
    ids=["shared buffer", "window", "activations", "domain"],
)
def test_what_shapes_do_not_tell_is_unknown(op_type: str, inputs: str, outputs: str, graph: Any) -> None:
    assert count(op_type, inputs, outputs, graph and node(op_type, **graph))["how"] == "unknown"


def test_a_dynamically_quantised_product_runs_in_the_type_of_its_weight() -> None:
    work = count("DynamicQuantizeMatMul", "2x3 int8:3x4 scalar", "2x4")
    assert work["dtype"] == "int8"
