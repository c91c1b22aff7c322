"""Model files of any size: protobuf ends at 2 GiB, above it the weights lie beside the graph."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Final

import onnx
from onnx import TensorProto
from onnx.external_data_helper import load_external_data_for_model

from workbench.capture.subgraph import all_graphs, tensors_read

MOST_IN_ONE_FILE_BYTES: Final = 1_900_000_000
"""A protobuf message ends at 2 GiB; the rest is for the graph, and for what a tool adds to it."""


def weights_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the initializers that are in memory as raw data, as exporters and ONNX Runtime's tools write them."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def total_bytes(path: Path) -> int:
    """Size of the model with its external data."""
    beside = external_files(onnx.load(path, load_external_data=False))
    return path.stat().st_size + sum((path.parent / name).stat().st_size for name in beside)


def external_files(model: onnx.ModelProto) -> list[str]:
    """Locations, relative to the model, of the files that hold its initializers; sorted."""
    return sorted(
        {
            entry.value
            for graph in all_graphs(model.graph)
            for tensor in graph.initializer
            if tensor.data_location == TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        }
    )


def read_inferred(source: Path, scratch: Path) -> onnx.ModelProto:
    """The whole model with the types and shapes that ONNX infers; `scratch` is a file to make and remove on the way."""
    # by path, because inference in memory ends at 2 GiB
    onnx.shape_inference.infer_shapes_path(source, scratch)
    model = onnx.load(scratch, load_external_data=False)
    scratch.unlink()
    load_external_data_for_model(model, str(source.parent))
    return model


def write(model: onnx.ModelProto, target: Path) -> None:
    """Save the model, its weights beside it when they exceed `MOST_IN_ONE_FILE_BYTES`."""
    large = weights_bytes(model) > MOST_IN_ONE_FILE_BYTES
    onnx.save_model(model, target, save_as_external_data=large, location=f"{target.name}.data" if large else None)


def opset(model: onnx.ModelProto) -> int:
    """Version of the standard operators that the model imports."""
    version: int = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    return version


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put each node behind those that it depends on, and otherwise leave the order, as ONNX demands of a file."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    done: dict[int, None] = {}  # in the new order
    for first in range(len(graph.node)):
        stack = [first]
        while stack:
            reads = tensors_read(graph.node[stack[-1]])
            waits = [makers[name] for name in reads if name in makers and makers[name] not in done]
            if waits:
                stack += waits
            else:
                done[stack.pop()] = None
    replace_nodes(graph, [graph.node[index] for index in done])


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Make `nodes`, some of the graph's own, its only nodes."""
    kept = [copy.deepcopy(node) for node in nodes]  # the graph owns its messages, and clearing it would empty them
    del graph.node[:]
    graph.node.extend(kept)
