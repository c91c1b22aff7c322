"""Softmax, normalisations, reductions and pooling.

n is the number of elements, r the number of rows that are normalised or reduced each on its own. A sum of a row of m
takes m - 1 additions; over all rows that is n - r.
"""

from __future__ import annotations

import math
from typing import Final

from workbench.analysis.work.elementwise import activation_flops
from workbench.analysis.work.rule import Rule, Work, counted
from workbench.analysis.work.shapes import NodeShapes


def softmax_flops(elements: int, rows: int) -> tuple[int, int]:
    """(fp, special) of exp(x - max) / sum: maximum n - r, subtraction n, sum n - r; exponentials n, divisions n."""
    return 3 * elements - 2 * rows, 2 * elements


def _softmax_rows(node: NodeShapes) -> int:
    """Rows of Softmax: one axis since opset 13; before, all axes from `axis` on, 1 by default."""
    shape = node.output().shape
    if node.opset is not None and node.opset < 13:
        axis = int(node.attribute("axis", 1))
        return math.prod(shape[: axis if axis >= 0 else len(shape) + axis])
    return math.prod(shape) // shape[int(node.attribute("axis", -1))]


def _softmax(node: NodeShapes) -> Work:
    fp, special = softmax_flops(node.output().elements, _softmax_rows(node))
    return counted(node, "softmax", fp=fp, special=special)


def _bias_softmax(node: NodeShapes) -> Work:
    """Softmax(x + bias): n additions before; rows are the axes before `axis` (com.microsoft, 1 by default)."""
    x = node.input(0)
    rows = math.prod(x.shape[: int(node.attribute("axis", 1)) % len(x.shape)])
    fp, special = softmax_flops(x.elements, rows)
    return counted(node, "softmax", fp=fp + x.elements, special=special)


def _log_softmax(node: NodeShapes) -> Work:
    """(x - max) - log(sum(exp(x - max))): 3n - 2r as Softmax, n subtractions; exponentials n, logarithms r."""
    elements, rows = node.output().elements, _softmax_rows(node)
    return counted(node, "log softmax", fp=4 * elements - 2 * rows, special=elements + rows)


def layer_norm_flops(elements: int, rows: int, *, centred: bool, shifted: bool) -> tuple[int, int]:
    """(fp, special) of (x - mean) / √(var + ε) · γ + β.

    Mean n (n - r additions, r multiplications by 1 / m), subtraction n, square n, mean of squares n, ε r,
    1 / √ one evaluation per row, scaling n, γ n, β n. Root mean square alone leaves out the first two.
    """
    return (4 + 2 * centred + shifted) * elements + rows, rows


def _layer_norm(node: NodeShapes) -> Work:
    """LayerNormalization(x, γ, β): γ covers the normalised axes."""
    x, gamma = node.input(0), node.input(1)
    centred = node.op_type == "LayerNormalization"
    fp, special = layer_norm_flops(
        x.elements, x.elements // gamma.elements, centred=centred, shifted=node.optional(2) is not None
    )
    return counted(node, "layer norm", fp=fp, special=special)


def _skip_layer_norm(node: NodeShapes) -> Work:
    """LayerNormalization(x + skip + bias) (com.microsoft): slots x, skip, γ, then β unless simplified, then bias."""
    x, gamma = node.input(0), node.input(2)
    simplified = node.op_type == "SkipSimplifiedLayerNormalization"
    beta, bias = (None, node.optional(3)) if simplified else (node.optional(3), node.optional(4))
    fp, special = layer_norm_flops(
        x.elements, x.elements // gamma.elements, centred=not simplified, shifted=beta is not None
    )
    fp += x.elements * (1 + (bias is not None))
    return counted(node, "layer norm", fp=fp, special=special)


def _embed_layer_norm(node: NodeShapes) -> Work:
    """Sum of two or three gathered rows, then LayerNormalization (com.microsoft EmbedLayerNormalization).

    Of the tables (slots 2, 3, 4) no more is read than the gathered rows; positions are shared by the batch.
    """
    word, position, segment = node.input(2), node.input(3), node.optional(4)
    out, gamma = node.output(), node.input(5)
    fp, special = layer_norm_flops(
        out.elements, out.elements // gamma.elements, centred=True, shifted=node.optional(6) is not None
    )
    fp += out.elements * (2 if segment is not None else 1)
    read = node.read_bytes(5) + sum(t.size_bytes for t in (node.optional(0), node.optional(1)) if t is not None)
    read += min(word.size_bytes, out.size_bytes) + min(position.size_bytes, out.size_bytes // out.shape[0])
    if segment is not None:
        read += min(segment.size_bytes, out.size_bytes)
    return counted(node, "layer norm", fp=fp, special=special, read_bytes=read)


def _batch_norm(node: NodeShapes) -> Work:
    """Inference: a = γ / √(var + ε) and b = β - mean · a per channel (4 fp, 1 special), then ax + b per element."""
    elements, channels = node.output().elements, node.input(1).elements
    return counted(node, "batch norm", fp=2 * elements + 4 * channels, special=channels)


def _instance_norm(node: NodeShapes) -> Work:
    """LayerNormalization over the spatial axes of each batch item and channel."""
    x, gamma = node.input(0), node.input(1)
    fp, special = layer_norm_flops(x.elements, x.shape[0] * gamma.elements, centred=True, shifted=True)
    return counted(node, "instance norm", fp=fp, special=special)


def _group_norm(node: NodeShapes) -> Work:
    """LayerNormalization over each batch item and group; com.microsoft fuses Swish and a skip with its bias."""
    x = node.input(0)
    groups = node.attribute("num_groups") if node.domain in ("", "ai.onnx") else node.attribute("groups")
    fp, special = layer_norm_flops(x.elements, x.shape[0] * groups, centred=True, shifted=True)
    if node.op_type == "SkipGroupNorm":
        fp += x.elements * sum(node.optional(slot) is not None for slot in (3, 4))
    if node.attribute("activation", 0):
        swish_fp, swish_special = activation_flops("Swish", x.elements)
        fp, special = fp + swish_fp, special + swish_special
    return counted(node, "group norm", fp=fp, special=special)


_REDUCTIONS: Final[dict[str, tuple[int, int, int, int]]] = {
    # fp per input, fp per output, special per input, special per output
    "ReduceSum": (1, -1, 0, 0),
    "ReduceProd": (1, -1, 0, 0),
    "ReduceMax": (1, -1, 0, 0),
    "ReduceMin": (1, -1, 0, 0),
    "ArgMax": (1, -1, 0, 0),
    "ArgMin": (1, -1, 0, 0),
    "ReduceMean": (1, 0, 0, 0),  # and a multiplication by 1 / m per output
    "ReduceL1": (2, -1, 0, 0),
    "ReduceSumSquare": (2, -1, 0, 0),
    "ReduceL2": (2, -1, 0, 1),
    "ReduceLogSum": (1, -1, 0, 1),
    "ReduceLogSumExp": (3, -1, 1, 1),  # maximum, subtraction, sum; exp; log; maximum added back
    "GlobalMaxPool": (1, -1, 0, 0),
    "GlobalAveragePool": (1, 0, 0, 0),
    "QLinearGlobalAveragePool": (1, 3, 0, 0),  # and per output: multiply by the scale, round, zero point, saturate
}


def _reduction(node: NodeShapes) -> Work:
    fp_in, fp_out, special_in, special_out = _REDUCTIONS[node.op_type]
    n, r = node.input(0).elements, node.output().elements
    return counted(node, "reduction", fp=fp_in * n + fp_out * r, special=special_in * n + special_out * r)


def _top_k(node: NodeShapes) -> Work:
    """A lower bound: every element is compared at least once."""
    return counted(node, "top-k, lower bound", fp=node.input(0).elements)


_AFTER_WINDOW: Final = {
    "MaxPool": 0,
    "NhwcMaxPool": 0,
    "AveragePool": 1,  # multiplication by 1 / window
    "QLinearAveragePool": 4,  # the same by the scale; round, add the zero point, saturate
}


def _pool(node: NodeShapes) -> Work:
    """window - 1 operations per output element, and what `_AFTER_WINDOW` says; padding is not subtracted."""
    window = math.prod(node.attribute("kernel_shape"))
    return counted(node, "pooling", fp=(window - 1 + _AFTER_WINDOW[node.op_type]) * node.output().elements)


def _local_response_norm(node: NodeShapes) -> Work:
    """x / (bias + α / size · Σ x²)^β: square 1, sum size - 1, multiplication 1, addition 1; power 1, division 1."""
    n = node.output().elements
    return counted(node, "local response norm", fp=(node.attribute("size") + 2) * n, special=2 * n)


RULES: Final[dict[str, Rule]] = {
    "Softmax": _softmax,
    "BiasSoftmax": _bias_softmax,
    "LogSoftmax": _log_softmax,
    "LayerNormalization": _layer_norm,
    "SimplifiedLayerNormalization": _layer_norm,
    "RMSNormalization": _layer_norm,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_layer_norm,
    "EmbedLayerNormalization": _embed_layer_norm,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNorm": _group_norm,
    "SkipGroupNorm": _group_norm,
    "GroupNormalization": _group_norm,
    "LRN": _local_response_norm,
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "TopK": _top_k,
    **dict.fromkeys(_AFTER_WINDOW, _pool),
}
