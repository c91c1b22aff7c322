"""Half precision: ONNX Runtime's float16 converter, and bfloat16 by retyping what it made."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, Final

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from workbench.capture.convert.files import opset, read_inferred, replace_nodes, sort_nodes, write
from workbench.capture.convert.request import Request
from workbench.capture.subgraph import all_graphs, all_nodes
from workbench.errors import ModelError

_TYPE_ATTRIBUTES: Final = ("to", "dtype")  # hold an element type: Cast, and the generators of random numbers
_FLOATS: Final = frozenset({"tensor(float)", "tensor(float16)"})


def float16(request: Request) -> list[str]:
    """Write the model in float16, its inputs and outputs in float32 (`keep_io_types=True`); return notes."""
    return _to_float16(request, keep_io_types=True)


def float16_io(request: Request) -> list[str]:
    """Write the model in float16, inputs and outputs too; return notes."""
    return _to_float16(request, keep_io_types=False)


def bfloat16(request: Request) -> list[str]:
    """Write the model in bfloat16, its inputs and outputs in float32; return notes.

    ONNX Runtime 1.31 has no bfloat16 converter. Its float16 converter decides where Casts go; then float16 becomes
    bfloat16 in types, Casts and weights. The weights are rounded from their float32 values, which keeps the range that
    float16 lacks. Operators learnt bfloat16 at different opsets (Conv at 22): the model is raised to the first that
    serves all of its operators, and an operator that never learnt it stays in float32.
    """
    model = _read_typed(request)
    needed, never = _bfloat16_support(model)
    if needed > opset(model):
        model = onnx.version_converter.convert_version(model, needed)
        model = onnx.shape_inference.infer_shapes(model)
    casts = _count_casts(model)
    rounded = {
        name: numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
        for name, tensor in _constants(model.graph)
        if tensor.data_type == TensorProto.FLOAT
    }
    model = _converted(model, keep_io_types=True, blocked=never)
    _retype(model.graph, rounded)
    write(model, request.target)
    return [_note(model, "bfloat16", casts)]


def _to_float16(request: Request, *, keep_io_types: bool) -> list[str]:
    model = _read_typed(request)
    casts = _count_casts(model)
    model = _converted(model, keep_io_types=keep_io_types)
    write(model, request.target)
    return [_note(model, request.conversion, casts)]


def _read_typed(request: Request) -> ModelProto:
    """The model with the type of every value, without which the converter would leave Casts out."""
    model = read_inferred(request.source, request.scratch / "inferred.onnx")
    graph = model.graph
    floats = any(tensor.data_type == TensorProto.FLOAT for _, tensor in _constants(graph))
    if not floats and not any(value.type.tensor_type.elem_type == TensorProto.FLOAT for value in graph.input):
        raise ModelError(
            f"There is nothing to convert to {request.conversion}: the model has no float32 weight or input."
        )
    known = {value.name for value in itertools.chain(graph.value_info, graph.output)}
    if any(name and name not in known for node in graph.node for name in node.output):
        _add_types_of_onnxruntime(model)
    return model


def _add_types_of_onnxruntime(model: ModelProto) -> None:
    """Add the types behind operators that ONNX does not know, such as those of `com.microsoft`.

    Types alone: merged symbolic shapes can be wrong, and the converter does not need them.
    """
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    try:
        inferred = SymbolicShapeInference.infer_shapes(model, auto_merge=True)
    except Exception:  # it gives up on operators it does not know; the converted model is checked by loading it
        return
    known = {value.name for value in model.graph.value_info}
    for value in inferred.graph.value_info:
        if value.name not in known and value.type.tensor_type.elem_type != TensorProto.UNDEFINED:
            added = model.graph.value_info.add(name=value.name)
            added.type.tensor_type.elem_type = value.type.tensor_type.elem_type


def _converted(model: ModelProto, *, keep_io_types: bool, blocked: Iterable[str] = ()) -> ModelProto:
    """The model after ONNX Runtime's converter, which changes its argument; `blocked` operators stay in float32."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    half: ModelProto = convert_float_to_float16(
        model,
        keep_io_types=keep_io_types,
        disable_shape_infer=True,
        op_block_list=[*DEFAULT_OP_BLOCK_LIST, *blocked],
    )
    # The converter adds one Cast for each float32 node that reads a value, all of the same name: one is enough.
    seen: set[str] = set()
    kept = []
    for node in half.graph.node:
        if node.op_type != "Cast" or node.output[0] not in seen:
            kept.append(node)
        seen.update(node.output)
    replace_nodes(half.graph, kept)
    sort_nodes(half.graph)
    return half


def _bfloat16_support(model: ModelProto) -> tuple[int, set[str]]:
    """The least opset at which the model's operators take bfloat16 wherever float32, and those that never do."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

    needed = current = opset(model)
    never = set()
    used = {node.op_type for node in all_nodes(model.graph) if node.domain in ("", "ai.onnx")}
    for name in used.difference(DEFAULT_OP_BLOCK_LIST):
        versions = range(current, onnx.defs.onnx_opset_version() + 1)
        first = next((version for version in versions if _takes_bfloat16(name, version)), None)
        if first is None:
            never.add(name)
        else:
            needed = max(needed, first)
    return needed, never


def _takes_bfloat16(op_type: str, version: int) -> bool:
    if not onnx.defs.has(op_type, version):  # an operator of ONNX Runtime's own: loading the model will tell
        return True
    constraints = onnx.defs.get_schema(op_type, version).type_constraints
    floats = [set(each.allowed_type_strs) for each in constraints if set(each.allowed_type_strs) >= _FLOATS]
    return all("tensor(bfloat16)" in allowed for allowed in floats)


def _constants(graph: GraphProto) -> Iterable[tuple[str, TensorProto]]:
    """Initializers by their name, tensors in attributes by the first output of their node."""
    for inner in all_graphs(graph):
        for tensor in inner.initializer:
            yield tensor.name, tensor
    for node in all_nodes(graph):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield node.output[0], attribute.t


def _retype(graph: GraphProto, rounded: dict[str, NDArray[Any]]) -> None:
    """Make bfloat16 of every float16 in the graph; `rounded` holds the constants that were float32 before."""
    for name, tensor in _constants(graph):
        if tensor.data_type == TensorProto.FLOAT16:
            values = rounded.get(name)
            if values is None:
                values = numpy_helper.to_array(tensor).astype(np.float32).astype(ml_dtypes.bfloat16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for inner in all_graphs(graph):
        for value in itertools.chain(inner.input, inner.output, inner.value_info):
            for kind in (value.type.tensor_type, value.type.sequence_type.elem_type.tensor_type):
                if kind.elem_type == TensorProto.FLOAT16:
                    kind.elem_type = TensorProto.BFLOAT16
    for node in all_nodes(graph):
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.BFLOAT16


def _count_casts(model: ModelProto) -> int:
    return sum(node.op_type == "Cast" for node in all_nodes(model.graph))


def _note(model: ModelProto, conversion: str, casts_before: int) -> str:
    """Casts cost a kernel each, and what stays in float32 gains nothing: both are said."""
    graph = model.graph
    wide = {
        value.name
        for value in itertools.chain(graph.value_info, graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    kept = sum(node.op_type != "Cast" and not wide.isdisjoint(node.output) for node in graph.node)
    added = _count_casts(model) - casts_before
    return f"Conversion {conversion!r} added {added} Cast nodes and left {kept} nodes in float32."
