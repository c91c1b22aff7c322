"""Matrix products and convolutions: 2 flops per multiply-add, counted on the dense product (no padding subtracted)."""

from __future__ import annotations

import math
from typing import Final

from workbench.analysis.work.elementwise import activation_flops
from workbench.analysis.work.rule import Rule, Work, counted
from workbench.analysis.work.shapes import NodeShapes, ShapesMissingError

_REQUANTISE: Final = 4  # of an int32 sum to 8 bits: multiply by the scale, round, add the zero point, saturate
_CONV_WITH_SUM: Final = ("Conv", "FusedConv", "NhwcFusedConv")


def _product(node: NodeShapes, left: int = 0, right: int = 1, *, fp: int = 0, special: int = 0) -> Work:
    """2 · elements of the output · K, with K the last axis of the left operand (NumPy's matmul, as ONNX MatMul)."""
    a, b, out = node.input(left), node.input(right), node.output()
    depth = a.shape[-1]
    if b.shape[-2 if len(b.shape) > 1 else 0] != depth:
        raise ShapesMissingError("operands do not share their inner axis")
    return counted(node, "matmul", tensor=2 * out.elements * depth, fp=fp, special=special, dtype=a.dtype)


def _matmul(node: NodeShapes) -> Work:
    return _product(node)


def _qlinear_matmul(node: NodeShapes) -> Work:
    """As MatMul; operands stand in slots 0 and 3, between them scales and zero points."""
    return _product(node, 0, 3, fp=_REQUANTISE * node.output().elements)


def _matmul_integer_to_float(node: NodeShapes) -> Work:
    """MatMulInteger, the sum multiplied by the scales; slot 6 holds a bias (com.microsoft)."""
    return _product(node, fp=node.output().elements * (1 + (node.optional(6) is not None)))


def _dynamic_quantize_matmul(node: NodeShapes) -> Work:
    """DynamicQuantizeLinear of A, then MatMulIntegerToFloat (com.microsoft); slot 4 holds a bias.

    The product runs in B's type.
    """
    fp, special = activation_flops("DynamicQuantizeLinear", node.input(0).elements)
    fp += node.output().elements * (1 + (node.optional(4) is not None))
    return _product(node, fp=fp, special=special)._replace(dtype=node.input(1).dtype)


def _gemm_fast_gelu(node: NodeShapes) -> Work:
    """FastGelu(X · W + bias) (com.microsoft); slot 2 holds the bias."""
    elements = node.output().elements
    fp, special = activation_flops("FastGelu", elements)
    return _product(node, fp=fp + elements * (node.optional(2) is not None), special=special)


def _fused_matmul(node: NodeShapes) -> Work:
    """MatMul with transposed operands, a factor alpha and an activation (com.microsoft FusedMatMul and its kin).

    transBatchA moves the first axis of A behind its batch axes before anything else.
    """
    a, out = node.input(0), node.output()
    transposed, batch_moved = node.attribute("transA", 0), node.attribute("transBatchA", 0)
    depth = a.shape[-1] if not transposed or len(a.shape) == 1 else a.shape[0 if batch_moved else -2]
    fp, special = activation_flops(node.attribute("activation", ""), out.elements)
    fp += out.elements if node.attribute("alpha", 1.0) != 1.0 else 0
    tensor = 2 * out.elements * depth
    return counted(node, "matmul", tensor=tensor, fp=fp, special=special, dtype=a.dtype, read_bytes=_with(node, 1))


def _with(node: NodeShapes, slot: int) -> int:
    """Bytes read, once it is sure that the operand in `slot` is among them."""
    node.input(slot)
    return node.read_bytes()


def _gemm(node: NodeShapes) -> Work:
    """αAB + βC: 2MNK, and per output element one operation for each of α ≠ 1, β ≠ 1, and the addition of C."""
    out = node.output()
    fp, special = activation_flops(node.epilogue("activation", ""), out.elements)
    fp += out.elements * (node.epilogue("alpha", 1.0) != 1.0)
    if node.optional(2) is not None:
        fp += out.elements * (1 + (node.epilogue("beta", 1.0) != 1.0))
    tensor = 2 * out.elements * _gemm_depth(node, 1)
    return counted(node, "gemm", tensor=tensor, fp=fp, special=special, dtype=node.input(0).dtype)


def _qgemm(node: NodeShapes) -> Work:
    """Gemm on 8 bits (com.microsoft QGemm): B in slot 3, C in 6; with the output's scale in 7, back to 8 bits.

    Without it the sum is multiplied by the operands' scales alone.
    """
    out = node.output()
    per_output = (node.optional(6) is not None) + (1 if node.optional(7) is None else _REQUANTISE)
    tensor = 2 * out.elements * _gemm_depth(node, 3)
    return counted(node, "gemm", tensor=tensor, fp=per_output * out.elements, dtype=node.input(0).dtype)


def _gemm_depth(node: NodeShapes, right: int) -> int:
    """K of A (M × K, or transposed) by B in slot `right` (K × N, or transposed)."""
    rows, columns = node.output().shape
    depth = node.input(0).elements // rows if rows else 0
    if node.input(right).elements != depth * columns:
        raise ShapesMissingError("operands do not share their inner axis")
    return depth


def _matmul_nbits(node: NodeShapes) -> Work:
    """A · Bᵀ with B of N × K packed codes (com.microsoft MatMulNBits): 2 · elements of the output · K.

    Dequantisation is a subtraction and a multiplication per weight; slot 5 holds a bias.
    """
    a, out = node.input(0), node.output()
    depth, columns = node.attribute("K"), node.attribute("N")
    bias_flops = out.elements if node.optional(5) is not None else 0
    return counted(
        node,
        "matmul",
        tensor=2 * out.elements * depth,
        fp=2 * depth * columns + bias_flops,
        dtype=a.dtype,
        read_bytes=_with(node, 1),
    )


def _conv(node: NodeShapes, kernel: int = 1, bias: int = 2) -> Work:
    """2 · batch · out spatial · C_out · C_in / group · kernel spatial.

    The last two factors are a weight's elements per output channel, its first axis, whatever its layout. Bias, the
    fused Sum that ORT passes in slot 3, and the fused activation are counted per output element.
    """
    x, weight, out = node.input(0), node.input(kernel), node.output()
    _same_rank(x.shape, weight.shape)
    if weight.shape[0] not in (out.shape[1], out.shape[-1]):  # channels first or last
        raise ShapesMissingError("the weight is missing from the row")
    fp, special = activation_flops(node.epilogue("activation", ""), out.elements)
    addends = [bias, 3] if node.op_type in _CONV_WITH_SUM else [bias]
    fp += out.elements * sum(node.optional(slot) is not None for slot in addends)
    if node.op_type == "QLinearConv":
        fp += _REQUANTISE * out.elements
    tensor = 2 * out.elements * math.prod(weight.shape[1:])
    return counted(node, "convolution", tensor=tensor, fp=fp, special=special, dtype=x.dtype)


def _conv_integer(node: NodeShapes) -> Work:
    """As Conv; slots 2 and 3 hold zero points."""
    return _conv(node, bias=len(node.inputs))


def _qlinear_conv(node: NodeShapes) -> Work:
    """As Conv; the weight stands in slot 3, the bias in slot 8."""
    return _conv(node, kernel=3, bias=8)


def _conv_transpose(node: NodeShapes) -> Work:
    """2 · batch · in spatial · C_in · C_out / group · kernel spatial: each input element meets a kernel once."""
    x, weight, out = node.input(0), node.input(1), node.output()
    _same_rank(x.shape, weight.shape)
    fp = out.elements if node.optional(2) is not None else 0
    tensor = 2 * x.elements * math.prod(weight.shape[1:])
    return counted(node, "transposed convolution", tensor=tensor, fp=fp, dtype=x.dtype)


def _same_rank(x: tuple[int, ...], weight: tuple[int, ...]) -> None:
    if len(x) != len(weight) or len(x) < 3:
        raise ShapesMissingError("the weight is missing from the row")


def _einsum(node: NodeShapes) -> Work:
    """Two operands, plain letters: a multiply-add per point of the index space, or a product where nothing is summed.

    One operand: an addition for each input element beyond the outputs. Ellipsis and repeated letters are not counted.
    """
    equation = node.attribute("equation").replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or not right or any(len(set(t)) != len(t) for t in terms) or len(terms) > 2:
        raise ShapesMissingError(equation)
    sizes: dict[str, int] = {}
    for slot, term in enumerate(terms):
        sizes.update(zip(term, node.input(slot).shape, strict=True))
    points = math.prod(sizes.values())
    summed = set(sizes) - set(right)
    if len(terms) == 1:
        return counted(node, "einsum", fp=points - node.output().elements)
    if not summed:
        return counted(node, "einsum", fp=points)
    return counted(node, "einsum", tensor=2 * points, dtype=node.input(0).dtype)


_RECURRENT: Final[dict[str, tuple[int, int, int, tuple[str, ...]]]] = {
    # gates; per step and hidden unit, (fp, special) with sigmoid (2, 2) and tanh (0, 1); the activations that are meant
    "RNN": (1, 2, 1, ("tanh",)),  # tanh(Wx + Rh + b)
    "GRU": (3, 15, 5, ("sigmoid", "tanh")),  # 3 gates of 2 additions, 2 sigmoid, 1 tanh, r∘h, (1 - z)∘n + z∘h
    # 4 gates of 2 additions, 3 sigmoid, 2 tanh, f∘c + i∘g, o∘tanh(c)
    "LSTM": (4, 18, 8, ("sigmoid", "tanh", "tanh")),
}
_PEEPHOLES: Final = 6  # of an LSTM: a product and an addition for each of three gates


def _recurrent(node: NodeShapes) -> Work:
    """2 · steps · batch · (elements of W and R), with the default activations (ONNX RNN, GRU, LSTM).

    X is (steps, batch, I) or batch first, W (directions, gates · H, I), R (directions, gates · H, H); P, the weights of
    an LSTM's peepholes, stands in slot 7. Sequences shorter than the longest are not subtracted.
    """
    x, w, r = node.input(0), node.input(1), node.input(2)
    gates, fp_per_unit, special_per_unit, default = _RECURRENT[node.op_type]
    named = tuple(name.lower() for name in node.attribute("activations", ()))
    if named and named != default * w.shape[0]:
        raise ShapesMissingError("activations")
    positions = x.shape[0] * x.shape[1]
    units = positions * w.shape[0] * w.shape[1] // gates
    if node.optional(7) is not None:
        fp_per_unit += _PEEPHOLES
    return counted(
        node,
        "recurrent",
        tensor=2 * positions * (w.elements + r.elements),
        fp=fp_per_unit * units,
        special=special_per_unit * units,
        dtype=x.dtype,
    )


RULES: Final[dict[str, Rule]] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "MatMulIntegerToFloat": _matmul_integer_to_float,
    "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
    "QLinearMatMul": _qlinear_matmul,
    "FusedMatMul": _fused_matmul,
    "FusedMatMulActivation": _fused_matmul,
    "TransposeMatMul": _fused_matmul,
    "GemmFastGelu": _gemm_fast_gelu,
    "MatMulNBits": _matmul_nbits,
    "Gemm": _gemm,
    "FusedGemm": _gemm,
    "QGemm": _qgemm,
    "Conv": _conv,
    "FusedConv": _conv,
    "NhwcConv": _conv,
    "NhwcFusedConv": _conv,
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    **dict.fromkeys(_RECURRENT, _recurrent),
}
