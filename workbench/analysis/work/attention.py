"""Fused attention: two matrix products around a softmax, and the input projection where the operator has one.

Per head, scores are 2 · pairs · width flops and the weighted sum of values as much, where pairs counts the (query,
key) pairs that may see each other: causal attention leaves out the others, any other mask is not subtracted.
"""

from __future__ import annotations

from typing import Final

from workbench.analysis.work.normalise import softmax_flops
from workbench.analysis.work.rule import Rule, Work, counted
from workbench.analysis.work.shapes import NodeShapes, ShapesMissingError


def _pairs(queries: int, keys: int, past: int, *, causal: bool) -> int:
    """Pairs per head: query i sees key j when not causal, or when j ≤ past + i."""
    if not causal:
        return queries * keys
    if past + queries > keys:
        raise ShapesMissingError("causal attention over fewer keys than queries")
    return queries * past + queries * (queries + 1) // 2


def _core(
    *, heads: int, queries: int, pairs: int, qk_width: int, value_width: int, biased: bool
) -> tuple[int, int, int]:
    """(tensor, fp, special) flops; `heads` over the whole batch, widths per head.

    Besides softmax: a multiplication by the scale per score, and an addition where a bias or mask is added.
    """
    scores = heads * pairs
    fp, special = softmax_flops(scores, heads * queries)
    return 2 * scores * (qk_width + value_width), fp + (1 + biased) * scores, special


def _multi_head(node: NodeShapes) -> Work:
    """MultiHeadAttention of com.microsoft: query (B, S, H·E) or packed (B, S, H, 3, E).

    Key and value: (B, T, H·E), packed in slot 1 (B, T, H, 2, E), or already split (B, H, T, E); past_key (B, H, P, E).
    """
    if node.optional(8) is not None:
        raise ShapesMissingError("a key buffer longer than what it holds")
    query, key, past_key, out = node.input(0), node.optional(1), node.optional(6), node.output()
    heads = node.attribute("num_heads")
    batch, queries = query.shape[:2]
    width = query.shape[2] // heads if len(query.shape) == 3 else query.shape[4]
    new_keys = queries if key is None else key.shape[2 if len(key.shape) == 4 else 1]
    past = 0 if past_key is None else past_key.shape[2]
    causal = bool(node.attribute("unidirectional", 0))
    tensor, fp, special = _core(
        heads=batch * heads,
        queries=queries,
        pairs=_pairs(queries, past + new_keys, past, causal=causal),
        qk_width=width,
        value_width=out.shape[2] // heads,
        biased=node.optional(4) is not None or node.optional(5) is not None,
    )
    if node.optional(3) is not None:  # one addition for each element of the projected query, key and value
        fp += batch * (queries * heads * width + new_keys * (heads * width + out.shape[2]))
    return counted(node, "attention", tensor=tensor, fp=fp, special=special, dtype=query.dtype)


def _projected(node: NodeShapes) -> Work:
    """Attention of com.microsoft: x (B, S, I) by weights (I, Dq + Dk + Dv), then attention; past (2, B, H, P, E)."""
    if node.attribute("past_present_share_buffer", 0):
        raise ShapesMissingError("a key buffer longer than what it holds")
    x, weights, past_keys, out = node.input(0), node.input(1), node.optional(4), node.output()
    heads = node.attribute("num_heads")
    batch, queries, depth = x.shape
    projected = weights.shape[1]
    past = 0 if past_keys is None else past_keys.shape[3]
    tensor, fp, special = _core(
        heads=batch * heads,
        queries=queries,
        pairs=_pairs(queries, past + queries, past, causal=bool(node.attribute("unidirectional", 0))),
        qk_width=(projected - out.shape[2]) // 2 // heads,
        value_width=out.shape[2] // heads,
        biased=node.optional(3) is not None or node.optional(5) is not None,
    )
    tensor += 2 * batch * queries * depth * projected
    if node.optional(2) is not None:
        fp += batch * queries * projected
    return counted(node, "attention", tensor=tensor, fp=fp, special=special, dtype=x.dtype)


def _onnx(node: NodeShapes) -> Work:
    """Attention of ONNX (opset 23): Q, K, V as (B, H, S, E) or (B, S, H·E); past_key (B, H, P, E).

    Key heads may be fewer than query heads, which saves bytes and no flops.
    """
    window = (node.attribute("left_window_size", -1), node.attribute("right_window_size", -1))
    if node.optional(6) is not None or window != (-1, -1):
        raise ShapesMissingError("a window or padding that decides which keys are seen")
    query, key, value, past_key = node.input(0), node.input(1), node.input(2), node.optional(4)
    if len(query.shape) == 4:
        batch, heads, queries, width = query.shape
        new_keys, value_width = key.shape[2], value.shape[3]
    else:
        batch, queries = query.shape[:2]
        heads = node.attribute("q_num_heads")
        width = query.shape[2] // heads
        new_keys, value_width = key.shape[1], value.shape[2] // node.attribute("kv_num_heads")
    past = 0 if past_key is None else past_key.shape[2]
    tensor, fp, special = _core(
        heads=batch * heads,
        queries=queries,
        pairs=_pairs(queries, past + new_keys, past, causal=bool(node.attribute("is_causal", 0))),
        qk_width=width,
        value_width=value_width,
        biased=node.optional(3) is not None,
    )
    return counted(node, "attention", tensor=tensor, fp=fp, special=special, dtype=query.dtype)


def _attention(node: NodeShapes) -> Work:
    """Two operators share this name; only the graph says which one ran."""
    if node.domain is None:
        raise ShapesMissingError("domain")
    return _projected(node) if node.domain == "com.microsoft" else _onnx(node)


RULES: Final[dict[str, Rule]] = {
    "Attention": _attention,
    "MultiHeadAttention": _multi_head,
}
