"""A graph without its weights: what the analysis needs to count work, small enough for a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from workbench.runs.writer import full_disk_is_said

KEPT_BYTES: Final = 1024  # small integer initializers are shapes, axes and indices: they stay


def write_skeleton(model: onnx.ModelProto, target: Path) -> None:
    """Write the graph with every weight turned into a typed input of the graph; `model` is changed.

    Weights are initializers, also those of subgraphs, and constants that are as large. Raises `DiskFullError`.
    """
    held = {value.name for value in model.graph.input}
    weights = {tensor.name: tensor for graph in _graphs(model.graph) for tensor in _take_weights(graph)}
    model.graph.input.extend(
        helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
        for name, tensor in weights.items()
        if name not in held
    )
    with full_disk_is_said(target):
        target.write_bytes(model.SerializeToString(deterministic=True))


def _take_weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Remove what holds values of weights from a graph, and yield it under the name of its value."""
    kept = []
    for tensor in graph.initializer:
        if _is_small(tensor):
            kept.append(tensor)
        else:
            yield tensor
    del graph.initializer[:]
    graph.initializer.extend(kept)
    nodes = []
    for node in graph.node:
        value = next((each.t for each in node.attribute if each.name == "value"), None)
        if node.op_type == "Constant" and value is not None and value.ByteSize() > KEPT_BYTES:
            weight = onnx.TensorProto(name=node.output[0], data_type=value.data_type, dims=value.dims)
            yield weight
        else:
            nodes.append(node)
    if len(nodes) < len(graph.node):
        del graph.node[:]
        graph.node.extend(nodes)


def _is_small(tensor: onnx.TensorProto) -> bool:
    integer = np.issubdtype(helper.tensor_dtype_to_np_dtype(tensor.data_type), np.integer)
    external = tensor.data_location == onnx.TensorProto.EXTERNAL
    return integer and not external and numpy_helper.to_array(tensor).nbytes <= KEPT_BYTES


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all of its subgraphs."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _graphs(inner)
