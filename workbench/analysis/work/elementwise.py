"""Elementwise operators: a fixed number of operations per output element, after broadcasting."""

from __future__ import annotations

from typing import Final

from workbench.analysis.work.rule import Rule, Work, counted
from workbench.analysis.work.shapes import NodeShapes, ShapesMissingError

ONE_FLOP: Final = (
    "Add Sub Mul Abs Neg Sign Relu Floor Ceil Round ThresholdedRelu Cast Where Not And Or Xor BitShift "
    "BitwiseAnd BitwiseOr BitwiseXor BitwiseNot Equal Greater GreaterOrEqual Less LessOrEqual IsNaN IsInf CumSum"
)
ONE_EVALUATION: Final = (
    "Div Mod Reciprocal Pow Sqrt Exp Log Erf Tanh Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh"
)

COST_PER_ELEMENT: Final[dict[str, tuple[int, int]]] = {
    **dict.fromkeys(ONE_FLOP.split(), (1, 0)),
    **dict.fromkeys(ONE_EVALUATION.split(), (0, 1)),
    "Clip": (2, 0),  # max, min
    "LeakyRelu": (2, 0),  # compare, multiply
    "PRelu": (2, 0),  # compare, multiply
    "HardSigmoid": (4, 0),  # max(0, min(1, αx + β))
    "HardSwish": (5, 0),  # x · HardSigmoid(x)
    "Sigmoid": (2, 2),  # 1 / (1 + exp(-x))
    "Softplus": (1, 2),  # log(1 + exp(x))
    "Softsign": (2, 1),  # x / (1 + |x|)
    "Elu": (3, 1),  # x < 0 ? α(exp(x) - 1) : x
    "Selu": (4, 1),  # γ · Elu(x)
    "Celu": (5, 2),  # max(0, x) + min(0, α(exp(x / α) - 1))
    "Mish": (2, 3),  # x · tanh(Softplus(x))
    "Swish": (4, 2),  # x · Sigmoid(αx)
    "QuickGelu": (4, 2),  # x · Sigmoid(αx)
    "Gelu": (4, 1),  # ½x(1 + erf(x · √½))
    "BiasGelu": (5, 1),  # Gelu(x + b)
    "FastGelu": (8, 1),  # ½x(1 + tanh(√(2/π)(x + 0.044715x³)))
    "BiasSplitGelu": (7, 1),  # left half · Gelu(right half), the bias added to both
    "BiasAdd": (2, 0),  # x + bias + skip
    "QuantizeLinear": (3, 1),  # saturate(round(x / scale) + zero point)
    "DequantizeLinear": (2, 0),  # (x - zero point) · scale
    "DynamicQuantizeLinear": (5, 1),  # minimum and maximum of x, then QuantizeLinear
    # of com.microsoft: DequantizeLinear of each operand, the operation, QuantizeLinear
    "QLinearAdd": (8, 1),
    "QLinearMul": (8, 1),
    "QLinearLeakyRelu": (7, 1),
    "QLinearSigmoid": (7, 3),
}
"""(fp flops, special evaluations) per output element, counted on the formula of the ONNX or com.microsoft operator."""

_NARY: Final = ("Sum", "Max", "Min", "Mean")


def activation_flops(name: str, elements: int) -> tuple[int, int]:
    """(fp, special) flops of an activation fused into another operator; raises `ShapesMissingError` if unknown."""
    if not name:
        return 0, 0
    if name not in COST_PER_ELEMENT:
        raise ShapesMissingError(name)
    fp, special = COST_PER_ELEMENT[name]
    return fp * elements, special * elements


def _elementwise(node: NodeShapes) -> Work:
    fp, special = activation_flops(node.op_type, node.output().elements)
    return counted(node, "elementwise", fp=fp, special=special)


def _gelu(node: NodeShapes) -> Work:
    name = "FastGelu" if node.attribute("approximate", "none") == "tanh" else "Gelu"
    fp, special = activation_flops(name, node.output().elements)
    return counted(node, "elementwise", fp=fp, special=special)


def _fast_gelu(node: NodeShapes) -> Work:
    elements = node.output().elements
    fp, special = activation_flops("FastGelu", elements)
    return counted(node, "elementwise", fp=fp + (elements if node.optional(1) else 0), special=special)


def _nary(node: NodeShapes) -> Work:
    """n - 1 operations per output element; Mean multiplies by 1 / n as well."""
    operands = sum(t is not None for t in node.inputs)
    per_element = operands if node.op_type == "Mean" else operands - 1
    return counted(node, "elementwise", fp=per_element * node.output().elements)


def _resize(node: NodeShapes) -> Work:
    """Separable interpolation: 1, 2 or 4 neighbours per axis whose size changes (ONNX Resize: nearest, linear, cubic).

    Each output is a weighted mean of its neighbours: a multiplication each, and one addition fewer.
    """
    source, target = node.input(0), node.output()
    neighbours_per_axis = {"nearest": 1, "linear": 2, "cubic": 4}[node.attribute("mode", "nearest")]
    resized_axes = sum(a != b for a, b in zip(source.shape, target.shape, strict=True))
    neighbours = neighbours_per_axis**resized_axes
    fp = target.elements * (2 * neighbours - 1) if neighbours > 1 else 0
    read = min(source.size_bytes, target.size_bytes * neighbours) + node.read_bytes(1)
    return counted(node, "resize", fp=fp, read_bytes=read)


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(COST_PER_ELEMENT, _elementwise),
    **dict.fromkeys(_NARY, _nary),
    "Gelu": _gelu,
    "FastGelu": _fast_gelu,
    "Resize": _resize,
    "Upsample": _resize,
}
