"""The model file before it runs: is it whole, what does it take, and its copy at another batch size."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper

from workbench.errors import ModelError

_PROTOBUF_START: Final = b"\x08"  # field 1 (ir_version), wire type varint: how exporters begin an ONNX file


@dataclass(frozen=True)
class Input:
    """A model input that must be fed: NumPy-style dtype name and dimensions (size, symbol or None)."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


def read_model(path: Path) -> onnx.ModelProto:
    """Read the graph without external data, and check that the file and its external data are whole.

    Raises `ModelError`: no such file, not ONNX, truncated, or external data missing or too short.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelError(f"Cannot read the model {path}: {error.strerror}.") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(raw)
    except DecodeError:
        cause = "is cut off or damaged" if raw.startswith(_PROTOBUF_START) else "is not an ONNX file"
        raise ModelError(f"The model {path} {cause}: export or copy it again.") from None
    if not model.graph.node or not model.opset_import:
        raise ModelError(f"The model {path} is not an ONNX file, or holds no graph: export it again.")
    _check_external_data(model, path)
    return model


def _check_external_data(model: onnx.ModelProto, path: Path) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        file = path.parent / entries.get("location", "")
        needed = sum(int(text) for key in ("offset", "length") if (text := entries.get(key, "0")).isdecimal())
        if not file.is_file():
            raise ModelError(f"The model {path.name} keeps its weights in {file}, which is missing: copy it there too.")
        if file.stat().st_size < needed:
            raise ModelError(
                f"The weights file {file} is cut off ({file.stat().st_size} of at least {needed} bytes): copy it again."
            )


def model_inputs(model: onnx.ModelProto) -> list[Input]:
    """The inputs that must be fed, in the graph's order; initializers that are listed as inputs are left out."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [_input(value) for value in model.graph.input if value.name not in held]


def _input(value: onnx.ValueInfoProto) -> Input:
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"Input {value.name!r} is no tensor, which cannot be fed: profile a part of the model.")
    return Input(value.name, *type_and_shape(value))


def type_and_shape(value: onnx.ValueInfoProto) -> tuple[str, tuple[int | str | None, ...]]:
    """NumPy-style dtype name (`undefined` for what is no tensor) and dimensions of a model's input or output."""
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None) for dim in tensor.shape.dim)
    known = TensorProto.DataType.values()
    dtype = TensorProto.DataType.Name(tensor.elem_type).lower() if tensor.elem_type in known else "undefined"
    return {"float": "float32", "double": "float64"}.get(dtype, dtype), shape


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_fixed_batch(model: onnx.ModelProto, batch: int) -> bool:
    """Whether the first dimension of some input is a fixed size other than `batch`."""
    firsts = [value.shape[0] for value in model_inputs(model) if value.shape]
    return any(isinstance(first, int) and first != batch for first in firsts)


def rebatch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy whose inputs carry `batch` in their first dimension, for models exported with a fixed batch.

    The batch is the first dimension that all inputs share. Constant targets of Reshape that begin with it are opened
    (0 copies the dimension). Shape inference must then give the new batch in every output, else `ModelError`.
    """
    old = {value.shape[0] for value in model_inputs(model) if value.shape}
    if len(old) != 1 or not isinstance(next(iter(old)), int):
        raise ModelError(f"The inputs share no fixed batch ({sorted(map(str, old))}): export it with a symbolic batch.")
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ModelError("The batch is fixed and the weights lie outside the file: export it with a symbolic batch.")
    new = onnx.ModelProto()
    new.CopyFrom(model)
    held = {tensor.name for tensor in new.graph.initializer}
    for value in new.graph.input:
        if value.name not in held and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    for value in new.graph.output:
        value.type.tensor_type.ClearField("shape")
    del new.graph.value_info[:]
    _open_reshapes(new, next(iter(old)))
    try:
        inferred = onnx.shape_inference.infer_shapes(new, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        cause = " ".join(str(error).split())
        raise ModelError(f"The model does not fit batch {batch} ({cause}): export it with a symbolic batch.") from None
    for value in inferred.graph.output:
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].HasField("dim_value") and dims[0].dim_value != batch:
            raise ModelError(
                f"Output {value.name!r} keeps a first dimension of {dims[0].dim_value} at batch {batch}: "
                "export it with a symbolic batch."
            )
    return new


def _open_reshapes(model: onnx.ModelProto, old: object) -> None:
    targets = {node.input[1] for node in model.graph.node if node.op_type == "Reshape" and len(node.input) > 1}
    for tensor in model.graph.initializer:
        if tensor.name in targets:
            shape = numpy_helper.to_array(tensor).copy()
            if shape.ndim == 1 and shape.size and shape[0] == old:
                shape[0] = 0
                tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
