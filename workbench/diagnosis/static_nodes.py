"""What a model has to compute before anything ran: the work of each node, from the graph as given and fixed shapes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
import pandas as pd

from workbench.analysis.filling import SM_LIMITS, Filling
from workbench.analysis.work import count_work
from workbench.capture.subgraph import Wiring
from workbench.diagnosis.static_fusions import absorbed_nodes
from workbench.runs.manifest import DeviceInfo

_SHAPE_OF: Final = frozenset(("Shape", "Size"))
_ROW_PER_BLOCK: Final = frozenset(
    ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization")
)
"""ONNX Runtime's CUDA kernels for these give each row one thread block: in recorded runs 1024 rows had 1024."""

TILE_ELEMENTS: Final = 128 * 128
"""Outputs of a matrix product that one block computes in the large tiles of cuBLAS and cuDNN; such a block needs most
of a multiprocessor's registers and shared memory, so that one is resident."""
ELEMENTS_PER_THREAD: Final = 4
BLOCK_THREADS: Final = 256
"""Of ONNX Runtime's element-wise CUDA kernels, and so are the four elements (GridDim in cuda/cu_inc/common.cuh); in
recorded runs 2²⁶ elements had 65,536 blocks."""


def static_nodes(
    model: onnx.ModelProto, feed_shapes: Mapping[str, Sequence[int]], *, fused: bool = True
) -> pd.DataFrame:
    """The nodes of the main graph that put work on the device, one row each, with the columns of `count_work`.

    Further columns: `op_type`; `elements`, the larger of the outputs and of the inputs that change with the feeds
    (int64); `rows`, the product of all output dimensions but the last (int64). What is left out: constants and nodes
    that only read such, which are folded; views; host arithmetic on shapes; and, where `fused`, `absorbed_nodes`. Other
    fusions of ONNX Runtime are not foreseen, so that their intermediate results are counted as traffic. A node whose
    shapes cannot be inferred, as of operators outside the ONNX standard, has unknown work. model: without weights,
    which then are inputs that are not among the feeds; it is not changed.
    """
    graph = _with_shapes(model, feed_shapes)
    wiring = Wiring(graph.graph)
    dynamic = wiring.downstream(name for name in feed_shapes)
    known = _known_tensors(graph.graph)
    absorbed = absorbed_nodes(graph.graph, wiring, dynamic) if fused else set()
    on_host: set[str] = set()
    rows = []
    for index, node in enumerate(graph.graph.node):
        read = [name for name in wiring.reads[index] if name in dynamic]
        if node.op_type in _SHAPE_OF or (read and on_host.issuperset(read)):
            on_host.update(node.output)
        elif read and index not in absorbed:
            outputs = [known[name] for name in node.output if name in known]
            inputs = [known[name] for name in read if name in known]
            sizes = [_elements(shape) for _, shape in outputs + inputs]
            rows.append(
                {
                    "name": node.name,
                    "op_type": node.op_type,
                    "input_shapes": _cell(node.input, known),
                    "output_shapes": _cell(node.output, known),
                    "elements": max(sizes, default=0),
                    "rows": max((_elements(shape[:-1]) for _, shape in outputs), default=0),
                }
            )
    table = pd.DataFrame(
        rows, columns=["name", "op_type", "input_shapes", "output_shapes", "elements", "rows"], dtype=object
    ).astype({"elements": np.int64, "rows": np.int64})
    counted = table[["op_type", "elements", "rows"]].join(count_work(table, graph))
    return counted[counted["how"] != "view"].reset_index(drop=True)


def static_filling(nodes: pd.DataFrame, bounds: pd.DataFrame, device: DeviceInfo) -> Filling:
    """Coverage and waves of each node's kernel, roughly, from how ONNX Runtime's and the libraries' kernels cut work.

    nodes: of `static_nodes`. bounds: their `bound_times`. NaN where the chip's limits are not known, and for the
    coverage of matrix products that are bound by memory: the libraries have kernels for those (GEMV, split inner
    dimension) that fill the GPU from few outputs.
    """
    limits = SM_LIMITS.get(device.compute_capability or "")
    if limits is None or not device.sm_count:
        unknown = np.full(len(nodes), np.nan)
        return Filling(unknown, unknown)
    elements = nodes["elements"].to_numpy(np.float64)
    matrix = nodes["tensor_flops"].to_numpy(np.float64) > 0
    by_row = nodes["op_type"].isin(_ROW_PER_BLOCK).to_numpy()
    blocks = np.where(by_row, nodes["rows"].to_numpy(np.float64), elements / (ELEMENTS_PER_THREAD * BLOCK_THREADS))
    waves = np.where(matrix, elements / TILE_ELEMENTS, blocks / (limits.threads / BLOCK_THREADS)) / device.sm_count
    few_outputs = matrix & ~(bounds["compute_ns"] > bounds["memory_ns"]).to_numpy()
    coverage = np.where(matrix, waves, blocks / device.sm_count)
    return Filling(np.where(few_outputs, np.nan, coverage), waves)


def output_shapes(model: onnx.ModelProto, feed_shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, list[int]]]:
    """ONNX type name and shape of each output of the graph that shape inference makes concrete."""
    known = _known_tensors(_with_shapes(model, feed_shapes).graph)
    return {
        value.name: (kind, list(shape))
        for value in model.graph.output
        if value.name in known
        for kind, shape in [known[value.name]]
    }


_Known = dict[str, tuple[str, tuple[int, ...]]]


def _with_shapes(model: onnx.ModelProto, feed_shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """A copy with unique node names, the feeds' shapes on its inputs, and every shape that follows from them."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    del graph.graph.value_info[:]
    for value in graph.graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in graph.graph.input:
        if value.name in feed_shapes:
            value.type.tensor_type.ClearField("shape")
            value.type.tensor_type.shape.SetInParent()  # a scalar has a shape without dimensions
            for size in feed_shapes[value.name]:
                value.type.tensor_type.shape.dim.add(dim_value=size)
    for index, node in enumerate(graph.graph.node):
        node.name = str(index)
    for propagate in (True, False):  # propagating data follows computed shapes, and fails on some valid graphs
        try:
            return onnx.shape_inference.infer_shapes(graph, data_prop=propagate)
        except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
            continue
    return graph


def _known_tensors(graph: onnx.GraphProto) -> _Known:
    """Type and shape of each tensor that has a concrete one."""
    found = {each.name: (_type_name(each.data_type), tuple(each.dims)) for each in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") and d.dim_value >= 0 for d in kind.shape.dim):
            found[value.name] = (_type_name(kind.elem_type), tuple(d.dim_value for d in kind.shape.dim))
    return found


def _elements(shape: Sequence[int]) -> int:
    """The product of the dimensions, at most what int64 holds: a hostile file may declare anything."""
    return min(math.prod(shape), np.iinfo(np.int64).max)


def _type_name(code: int) -> str:
    return onnx.TensorProto.DataType.Name(code).lower() if code in onnx.TensorProto.DataType.values() else "undefined"


def _cell(names: Sequence[str], known: _Known) -> str | None:
    """Shapes as the table `nodes` holds them; None unless all are known."""
    present = [name for name in names if name]
    if not all(name in known for name in present):
        return None
    return json.dumps([{known[name][0]: list(known[name][1])} for name in present])
