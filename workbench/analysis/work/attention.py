"""Fused attention: two matrix products around a softmax, and what the operator does to its inputs first.

Per head, scores are 2 · pairs · width flops and the weighted sum of values as much, where pairs counts the (query,
key) pairs that may see each other: causal attention leaves out the others, any other mask is not subtracted.
"""

from __future__ import annotations

from typing import Final

from workbench.analysis.work.normalise import layer_norm_flops, softmax_flops
from workbench.analysis.work.rule import Rule, Work, counted
from workbench.analysis.work.shapes import NodeShapes, ShapesMissingError, dense_bytes

_ROTATION: Final = 3  # flops per element of a rotary embedding: x₁ · cos - x₂ · sin, or x₂ · cos + x₁ · sin


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


def _projected(node: NodeShapes, *, past: int = 4, addends: tuple[int, ...] = (3, 5), per_projected: int = 0) -> Work:
    """Attention of com.microsoft: x (B, S, I) by weights (I, Dq + Dk + Dv), then attention; past (2, B, H, P, E).

    past, addends: slots of the past keys and values, and of what is added to the scores. per_projected: fp flops per
    projected element besides the bias in slot 2.
    """
    if node.attribute("past_present_share_buffer", 0):
        raise ShapesMissingError("a key buffer longer than what it holds")
    x, weights, past_keys, out = node.input(0), node.input(1), node.optional(past), node.output()
    heads = node.attribute("num_heads")
    batch, queries, depth = x.shape
    projected = weights.shape[1]
    held = 0 if past_keys is None else past_keys.shape[3]
    tensor, fp, special = _core(
        heads=batch * heads,
        queries=queries,
        pairs=_pairs(queries, held + queries, held, causal=bool(node.attribute("unidirectional", 0))),
        qk_width=(projected - out.shape[2]) // 2 // heads,
        value_width=out.shape[2] // heads,
        biased=any(node.optional(slot) is not None for slot in addends),
    )
    tensor += 2 * batch * queries * depth * projected
    fp += batch * queries * projected * ((node.optional(2) is not None) + per_projected)
    return counted(node, "attention", tensor=tensor, fp=fp, special=special, dtype=x.dtype)


def _quantised(node: NodeShapes) -> Work:
    """Attention with a projection of integers, whose sums are multiplied by the scales (com.microsoft QAttention)."""
    return _projected(node, past=8, addends=(5,), per_projected=1)


def _grouped(node: NodeShapes) -> Work:
    """GroupQueryAttention of com.microsoft: query (B, S, H·E), key and value (B, S, G·E), or packed (B, S, (H + 2G)·E).

    Past and present keys are (B, G, P, E). A buffer that past and present share is longer than what it holds, which
    only the values of `seqlens_k` tell. Rotary embedding and the norms of queries and keys are counted.
    """
    if node.optional(12) is not None or node.attribute("sliding_window_cache", 0):
        raise ShapesMissingError("a quantised or sliding cache")
    query, key, past_key = node.input(0), node.optional(1), node.optional(3)
    heads, key_heads = node.attribute("num_heads"), node.attribute("kv_num_heads")
    batch, queries = query.shape[:2]
    width = query.shape[2] // (heads if key is not None else heads + 2 * key_heads)
    past = 0 if past_key is None else past_key.shape[2]
    keys = node.outputs[1].shape[2] if len(node.outputs) > 1 and node.outputs[1] is not None else past + queries
    if keys != past + queries or 0 <= node.attribute("local_window_size", -1) < keys:
        raise ShapesMissingError("a buffer or window that decides which keys are seen")
    pairs = _pairs(queries, keys, past, causal=bool(node.attribute("causal", 1)))
    tensor, fp, special = _core(
        heads=batch * heads,
        queries=queries,
        pairs=pairs,
        qk_width=width,
        value_width=width,
        biased=node.optional(10) is not None,
    )
    if node.attribute("softcap", 0.0):  # softcap · tanh(score / softcap)
        fp, special = fp + batch * heads * pairs, special + 2 * batch * heads * pairs
    for slot, vectors in ((14, batch * queries * heads), (15, batch * queries * key_heads)):
        if node.optional(slot) is not None:
            norm_fp, norm_special = layer_norm_flops(vectors * width, vectors, centred=False, shifted=False)
            fp, special = fp + norm_fp, special + norm_special
    read_bytes = node.read_bytes()
    if node.attribute("do_rotary", 0):
        rotated = 2 * node.input(7).shape[-1]
        fp += _ROTATION * batch * queries * (heads + key_heads) * rotated
        read_bytes -= _unread_rows(node, (7, 8), queries if node.optional(9) is None else node.input(9).elements)
    return counted(node, "attention", tensor=tensor, fp=fp, special=special, dtype=query.dtype, read_bytes=read_bytes)


def _unread_rows(node: NodeShapes, caches: tuple[int, int], positions: int) -> int:
    """Bytes of the tables of cosines and sines beyond one row for each position."""
    tables = [node.input(slot) for slot in caches]
    return sum(max(0, t.size_bytes - positions * dense_bytes(t.dtype, t.shape[-1])) for t in tables)


def _rotary(node: NodeShapes) -> Work:
    """RotaryEmbedding of ONNX (x, cos, sin, positions) and of com.microsoft (x, positions, cos, sin).

    x is (B, S, H·E) or (B, H, S, E); the tables have a column for each pair of rotated elements of a head.
    """
    if node.domain is None:
        raise ShapesMissingError("domain")
    microsoft = node.domain == "com.microsoft"
    caches, positions = ((2, 3), node.optional(1)) if microsoft else ((1, 2), node.optional(3))
    x, rotated = node.input(0), 2 * node.input(caches[0]).shape[-1]
    heads = node.attribute("num_heads", 0)
    width = x.shape[3] if len(x.shape) == 4 else x.shape[2] // heads if heads else rotated
    batch, steps = x.shape[0], x.shape[2 if len(x.shape) == 4 else 1]
    rows = steps if positions is not None and positions.elements == 1 else batch * steps  # one offset, or all positions
    return counted(
        node,
        "rotary embedding",
        fp=_ROTATION * x.elements // width * rotated,
        read_bytes=node.read_bytes() - _unread_rows(node, caches, rows),
    )


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
    "GroupQueryAttention": _grouped,
    "QAttention": _quantised,
    "RotaryEmbedding": _rotary,
    "MultiHeadAttention": _multi_head,
}
