"""A transformer encoder, and one step of a decoder with a key-value cache, as exporters write them.

The operators and their order are those of models exported with opset 17, so that ONNX Runtime fuses what it fuses
in practice: skip layer normalisation, GELU with its bias, the scale into the product of queries and keys. The
attention fusion of ONNX Runtime 1.31 matches this graph only with the mask's Unsqueeze as before opset 13 (axes as an
attribute), so attention stays in its parts. Weights are N(0, 1/fan_in), which keeps activations of order one and
makes attention weights differ.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
from onnx import helper

from workbench.errors import ConfigError
from workbench.zoo.builder import GraphBuilder

EPSILON: Final = 1e-5
"""PyTorch's default of `LayerNorm`, large enough for FP16."""

MASKED: Final = -10_000.0
"""Added to the score of a masked key, as in BERT: within FP16, and its exponential is 0."""

JITTER: Final = 0.1
"""Spread of biases and layer-norm scales, so that leaving one out changes the result."""


def encoder(
    *,
    layers: int = 6,
    hidden: int = 512,
    heads: int = 8,
    feed_forward: int = 2048,
    vocabulary: int = 8192,
    positions: int = 512,
    dtype: str = "float32",
    seed: int = 0,
) -> onnx.ModelProto:
    """A post-norm encoder (as BERT without segments).

    Inputs: `input_ids` and `attention_mask` (1 keeps, 0 hides a key), int64 [batch, sequence]. Kept tokens count their
    positions from 1 to at most `positions`, hidden ones take position 0 (as RoBERTa does from its padding index).
    Output: `last_hidden_state` [batch, sequence, hidden] of `dtype`. Raises `ConfigError` when `heads` does not
    divide `hidden`.
    """
    head_size = _head_size(hidden, heads)
    graph = GraphBuilder("encoder", dtype=dtype, seed=seed)
    tokens = graph.input("input_ids", ["batch", "sequence"], np.int64)
    attention_mask = graph.input("attention_mask", ["batch", "sequence"], np.int64)
    mask = _additive_mask(graph, attention_mask)

    with graph.scope("embeddings"):
        word = graph.node("Gather", graph.normal("word", [vocabulary, hidden], scale=1.0), tokens)
        axis = graph.constant("sequence_axis", 1, np.int64)
        place = graph.node("Mul", graph.node("CumSum", attention_mask, axis), attention_mask)
        position = graph.node("Gather", graph.normal("position", [positions + 1, hidden], scale=1.0), place)
        x = _layer_norm(graph, "norm", graph.node("Add", word, position), hidden)

    for layer in range(layers):
        with graph.scope(f"layers.{layer}"):
            with graph.scope("attention"):
                query, value = (_heads(graph, name, x, heads, head_size, (0, 2, 1, 3)) for name in ("query", "value"))
                key = _heads(graph, "key", x, heads, head_size, (0, 2, 3, 1))
                attended = _attend(graph, query, key, value, mask, heads, head_size)
            x = _layer_norm(graph, "attention_norm", graph.node("Add", attended, x), hidden)
            mixed = _feed_forward(graph, x, hidden, feed_forward)
            output = "last_hidden_state" if layer == layers - 1 else None
            x = _layer_norm(graph, "output_norm", graph.node("Add", mixed, x), hidden, output)
    graph.output("last_hidden_state", ["batch", "sequence", hidden])
    return graph.model()


def decoder(
    *,
    layers: int = 6,
    hidden: int = 512,
    heads: int = 8,
    feed_forward: int = 2048,
    vocabulary: int = 8192,
    positions: int = 1024,
    dtype: str = "float32",
    seed: int = 0,
) -> onnx.ModelProto:
    """One step of a pre-norm decoder (as GPT-2) that reads and extends a key-value cache.

    Inputs: `input_ids` int64 [batch, 1]; `attention_mask` int64 [batch, past_sequence + 1], whose sum is the new
    token's position plus one, at most `positions`; for each layer i `past_key_values.{i}.key` and `.value` of
    `dtype`, [batch, heads, past_sequence, hidden / heads], where past_sequence may be 0.
    Outputs: `logits` [batch, 1, vocabulary]; for each layer `present.{i}.key` and `.value`, the cache with the new
    token appended. Raises `ConfigError` when `heads` does not divide `hidden`.
    """
    head_size = _head_size(hidden, heads)
    graph = GraphBuilder("decoder", dtype=dtype, seed=seed)
    tokens = graph.input("input_ids", ["batch", 1], np.int64)
    attention_mask = graph.input("attention_mask", ["batch", "past_sequence + 1"], np.int64)
    mask = _additive_mask(graph, attention_mask)

    with graph.scope("embeddings"):
        word = graph.node("Gather", graph.normal("word", [vocabulary, hidden], scale=1.0), tokens)
        axis = graph.constant("sequence_axis", [1], np.int64)
        seen = graph.node("ReduceSum", attention_mask, axis, keepdims=1)
        place = graph.node("Sub", seen, graph.constant("one", 1, np.int64))
        position = graph.node("Gather", graph.normal("position", [positions, hidden], scale=1.0), place)
        x = graph.node("Add", word, position)

    for layer in range(layers):
        past = [
            graph.input(f"past_key_values.{layer}.{part}", ["batch", heads, "past_sequence", head_size])
            for part in ("key", "value")
        ]
        with graph.scope(f"layers.{layer}"):
            normed = _layer_norm(graph, "attention_norm", x, hidden)
            with graph.scope("attention"):
                query, key, value = (
                    _heads(graph, name, normed, heads, head_size, (0, 2, 1, 3)) for name in ("query", "key", "value")
                )
                key = graph.node("Concat", past[0], key, output=f"present.{layer}.key", axis=2)
                value = graph.node("Concat", past[1], value, output=f"present.{layer}.value", axis=2)
                key = graph.node("Transpose", key, perm=(0, 1, 3, 2))
                attended = _attend(graph, query, key, value, mask, heads, head_size)
            x = graph.node("Add", attended, x)
            normed = _layer_norm(graph, "feed_forward_norm", x, hidden)
            x = graph.node("Add", _feed_forward(graph, normed, hidden, feed_forward), x)

    x = _layer_norm(graph, "final_norm", x, hidden)
    graph.node("MatMul", x, graph.normal("head.weight", [hidden, vocabulary], scale=hidden**-0.5), output="logits")
    graph.output("logits", ["batch", 1, vocabulary])
    for layer in range(layers):
        for part in ("key", "value"):
            graph.output(f"present.{layer}.{part}", ["batch", heads, "past_sequence + 1", head_size])
    return graph.model()


def _head_size(hidden: int, heads: int) -> int:
    if hidden % heads:
        raise ConfigError(f"Parameter 'hidden' ({hidden}) is no multiple of 'heads' ({heads}): choose one that is.")
    return hidden // heads


def _additive_mask(graph: GraphBuilder, mask: str) -> str:
    """[batch, keys] of 1 and 0 to [batch, 1, 1, keys] of 0 and `MASKED`."""
    with graph.scope("mask"):
        wide = mask
        for axis in (1, 2):
            wide = graph.node("Unsqueeze", wide, graph.constant(f"axis_{axis}", [axis], np.int64))
        kept = graph.node("Cast", wide, to=helper.np_dtype_to_tensor_dtype(graph.dtype))
        hidden = graph.node("Sub", graph.constant("one", 1), kept)
        return graph.node("Mul", hidden, graph.constant("masked", MASKED))


def _linear(graph: GraphBuilder, name: str, x: str, fan_in: int, fan_out: int) -> str:
    with graph.scope(name):
        product = graph.node("MatMul", x, graph.normal("weight", [fan_in, fan_out], scale=fan_in**-0.5))
        return graph.node("Add", product, graph.normal("bias", [fan_out], scale=JITTER))


def _layer_norm(graph: GraphBuilder, name: str, x: str, hidden: int, output: str | None = None) -> str:
    with graph.scope(name):
        scale = graph.normal("weight", [hidden], scale=JITTER, mean=1.0)
        bias = graph.normal("bias", [hidden], scale=JITTER)
        return graph.node("LayerNormalization", x, scale, bias, output=output, axis=-1, epsilon=EPSILON)


def _heads(graph: GraphBuilder, name: str, x: str, heads: int, head_size: int, perm: tuple[int, ...]) -> str:
    """Project [batch, sequence, hidden], cut it into [batch, sequence, heads, head_size], then permute."""
    hidden = heads * head_size
    projected = _linear(graph, name, x, hidden, hidden)
    with graph.scope(name):
        shape = graph.constant("shape", [0, 0, heads, head_size], np.int64)  # 0 keeps the input's dimension
        return graph.node("Transpose", graph.node("Reshape", projected, shape), perm=perm)


def _attend(graph: GraphBuilder, query: str, key: str, value: str, mask: str, heads: int, head_size: int) -> str:
    """Attention softmax(QKᵀ/√head_size + mask)·V and its output projection; `key` comes as [.., head_size, keys].

    Vaswani et al., "Attention Is All You Need" (2017), equation 1.
    """
    scores = graph.node("Div", graph.node("MatMul", query, key), graph.constant("scale", head_size**0.5))
    weights = graph.node("Softmax", graph.node("Add", scores, mask), axis=-1)
    context = graph.node("Transpose", graph.node("MatMul", weights, value), perm=(0, 2, 1, 3))
    shape = graph.constant("shape", [0, 0, heads * head_size], np.int64)
    return _linear(graph, "output", graph.node("Reshape", context, shape), heads * head_size, heads * head_size)


def _feed_forward(graph: GraphBuilder, x: str, hidden: int, feed_forward: int) -> str:
    """Linear, GELU x·(1 + erf(x/√2))/2 (Hendrycks and Gimpel, 2016) in its exported form, linear."""
    with graph.scope("feed_forward"):
        x = _linear(graph, "inner", x, hidden, feed_forward)
        error = graph.node("Erf", graph.node("Div", x, graph.constant("sqrt_two", 2**0.5)))
        doubled = graph.node("Mul", x, graph.node("Add", error, graph.constant("one", 1)))
        x = graph.node("Mul", doubled, graph.constant("half", 0.5))
        return _linear(graph, "outer", x, feed_forward, hidden)
