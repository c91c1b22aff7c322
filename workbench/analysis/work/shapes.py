"""Run-time shapes of an executed node, joined with its node of the optimised graph.

The profiler lists the tensors that are present, in order: an absent optional input leaves no gap, and a
weight that the kernel prepacked is missing as well. Only the graph says which slot an entry belongs to,
and which shape a missing weight has.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Final

import onnx

from workbench.errors import RunFolderError

_DTYPES: Final[dict[str, tuple[str, int]]] = {
    "float": ("float32", 32),
    "double": ("float64", 64),
    "float16": ("float16", 16),
    "bfloat16": ("bfloat16", 16),
    "float8e4m3fn": ("float8_e4m3fn", 8),
    "float8e4m3fnuz": ("float8_e4m3fnuz", 8),
    "float8e5m2": ("float8_e5m2", 8),
    "float8e5m2fnuz": ("float8_e5m2fnuz", 8),
    "float8e8m0": ("float8_e8m0fnu", 8),
    "float4e2m1": ("float4_e2m1fn", 4),
    **{f"{sign}int{bits}": (f"{sign}int{bits}", bits) for sign in ("", "u") for bits in (2, 4, 8, 16, 32, 64)},
    "bool": ("bool", 8),
    "complex64": ("complex64", 64),
    "complex128": ("complex128", 128),
}
"""ONNX type name in lower case → (NumPy or ml_dtypes name, bits per element in a dense tensor).

Sources: `onnx.TensorProto.DataType` and the ONNX IR specification (4-bit and 2-bit elements are packed).
Strings have no fixed size and are left out.
"""

_BITS: Final = dict(_DTYPES.values())

_MAX_SLOTS_WITH_MISSING_WEIGHTS: Final = 16  # bounds the search; operators that prepack weights have at most 14 inputs


class ShapesMissingError(LookupError):
    """A rule needs a tensor or an attribute that neither the row nor the graph gives; the node is then unknown."""


@dataclass(frozen=True)
class Tensor:
    """Type and shape of one tensor. `repeated`: an earlier slot of the node holds the same tensor."""

    dtype: str
    shape: tuple[int, ...]
    repeated: bool = False

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Size of the dense tensor in bytes; raises `ShapesMissingError` for a type of no fixed size."""
        return dense_bytes(self.dtype, self.elements)


def dense_bytes(dtype: str, elements: int) -> int:
    """Bytes of `elements` densely packed elements; raises `ShapesMissingError` for a type of no fixed size."""
    if dtype not in _BITS:
        raise ShapesMissingError(dtype)
    return -(-elements * _BITS[dtype] // 8)


def tensor_of(onnx_type: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor from ONNX's or ORT's name of its type ("float", "FLOAT16", "Float8E4M3FN")."""
    lower = onnx_type.lower()
    return Tensor(_DTYPES.get(lower, (lower, 0))[0], shape)


def parse_shapes(text: str | None) -> tuple[Tensor, ...]:
    """Tensors of one cell of `input_shapes` or `output_shapes`; raises `RunFolderError` when it is damaged."""
    if not text:
        return ()
    try:
        return tuple(
            tensor_of(kind, tuple(int(d) for d in shape)) for entry in json.loads(text) for kind, shape in entry.items()
        )
    except (ValueError, TypeError, AttributeError):
        raise RunFolderError(
            "The table nodes holds a shape that is not a JSON list of {type: dimensions}: record the run again."
        ) from None


@dataclass(frozen=True)
class NodeShapes:
    """What a counting rule sees of one node.

    `inputs` and `outputs` follow the operator's slots, None where an optional tensor is absent. Without a graph
    node, `attributes` is None and the slots are the row's own entries in order.
    """

    op_type: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]
    domain: str | None = None
    opset: int | None = None
    attributes: Mapping[str, Any] | None = None

    def input(self, slot: int) -> Tensor:
        """The tensor in this input slot; raises `ShapesMissingError` when absent or unknown."""
        tensor = self.optional(slot)
        if tensor is None:
            raise ShapesMissingError(f"{self.op_type}: input {slot}")
        return tensor

    def optional(self, slot: int) -> Tensor | None:
        """The tensor in this input slot, or None."""
        return self.inputs[slot] if slot < len(self.inputs) else None

    def output(self, slot: int = 0) -> Tensor:
        """The tensor in this output slot; raises `ShapesMissingError` when absent or unknown."""
        tensor = self.outputs[slot] if slot < len(self.outputs) else None
        if tensor is None:
            raise ShapesMissingError(f"{self.op_type}: output {slot}")
        return tensor

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute or its default; raises `ShapesMissingError` when unknown or when required and absent."""
        if self.attributes is None:
            raise ShapesMissingError(f"{self.op_type}: {name}")
        value = self.attributes.get(name, default)
        if value is None:
            raise ShapesMissingError(f"{self.op_type}: {name}")
        return value

    def epilogue(self, name: str, default: Any) -> Any:
        """An attribute that adds elementwise work to a matrix product; the default when the graph is silent.

        A missing epilogue costs at most a few operations per output element, a missing matrix product everything.
        """
        return default if self.attributes is None else self.attributes.get(name, default)

    def read_bytes(self, first_slot: int = 0) -> int:
        """Bytes of the inputs from `first_slot` on, a tensor that fills several slots counted once."""
        return sum(t.size_bytes for t in self.inputs[first_slot:] if t is not None and not t.repeated)

    def written_bytes(self) -> int:
        """Bytes of all outputs; raises `ShapesMissingError` when the row names none."""
        if not self.outputs:
            raise ShapesMissingError(f"{self.op_type}: outputs")
        return sum(t.size_bytes for t in self.outputs if t is not None)


@dataclass(frozen=True)
class _Slot:
    """Input slot of a graph node. `static`: what a weight has in this slot, which the row may omit."""

    present: bool
    static: Tensor | None
    repeated: bool


@dataclass(frozen=True)
class _Template:
    """A graph node without its names: all that counting needs, equal for equal layers."""

    op_type: str
    domain: str
    opset: int | None
    attributes: Mapping[str, Any]
    slots: tuple[_Slot, ...]
    outputs_present: tuple[bool, ...]

    def bind(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> NodeShapes | None:
        """The row's tensors in this node's slots, or None when they do not fit."""
        placed = self._place(inputs)
        if placed is None or sum(self.outputs_present) != len(outputs):
            return None
        entries = iter(outputs)
        return NodeShapes(
            op_type=self.op_type,
            inputs=placed,
            outputs=tuple(next(entries) if present else None for present in self.outputs_present),
            domain=self.domain,
            opset=self.opset,
            attributes=self.attributes,
        )

    def _place(self, entries: tuple[Tensor, ...]) -> tuple[Tensor | None, ...] | None:
        present = [i for i, slot in enumerate(self.slots) if slot.present]
        weights = [i for i in present if self.slots[i].static is not None]
        missing = len(present) - len(entries)
        if missing < 0 or (missing > 0 and len(present) > _MAX_SLOTS_WITH_MISSING_WEIGHTS):
            return None
        for vanished in combinations(weights, missing):
            listed = [i for i in present if i not in vanished]
            found = dict(zip(listed, entries, strict=True))
            if all(self.slots[i].static in (None, tensor) for i, tensor in found.items()):
                tensors = [found.get(i, slot.static) for i, slot in enumerate(self.slots)]
                return tuple(t and replace(t, repeated=s.repeated) for t, s in zip(tensors, self.slots, strict=True))
        return None


class GraphNodes:
    """The nodes of an optimised graph and of its subgraphs, found by name and type."""

    def __init__(self, model: onnx.ModelProto | None) -> None:
        self._templates: dict[tuple[str, str], list[_Template]] = {}
        if model is None:
            return
        opsets = {entry.domain: entry.version for entry in model.opset_import}
        for name, template in _templates(model.graph, {}, opsets):
            known = self._templates.setdefault((name, template.op_type), [])
            if template not in known:
                known.append(template)

    def bind(self, name: str, op_type: str, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> NodeShapes:
        """The node's shapes in their slots.

        ORT makes up a profile name for a node without one, so an unknown name may be any unnamed node of its
        type. When several graph nodes fit and differ in what they say, the row speaks alone.
        """
        candidates = self._templates.get((name, op_type)) or self._templates.get(("", op_type), [])
        fits = [fit for template in candidates if (fit := template.bind(inputs, outputs)) is not None]
        if fits and all(fit == fits[0] for fit in fits[1:]):
            return fits[0]
        return NodeShapes(op_type=op_type, inputs=inputs, outputs=outputs)


def _templates(
    graph: onnx.GraphProto, outer: Mapping[str, Tensor], opsets: Mapping[str, int]
) -> Iterator[tuple[str, _Template]]:
    static = {**outer, **_static_tensors(graph)}
    for node in graph.node:
        attributes = {}
        for attribute in node.attribute:
            for subgraph in [attribute.g, *attribute.graphs]:
                yield from _templates(subgraph, static, opsets)
            attributes[attribute.name] = _value(attribute)
        yield (
            node.name,
            _Template(
                op_type=node.op_type,
                domain=node.domain,
                opset=opsets.get(node.domain),
                attributes=attributes,
                slots=tuple(
                    _Slot(bool(name), static.get(name), bool(name) and name in node.input[:i])
                    for i, name in enumerate(node.input)
                ),
                outputs_present=tuple(bool(name) for name in node.output),
            ),
        )


def _value(attribute: onnx.AttributeProto) -> Any:
    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        return None  # subgraphs have nodes of their own
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [text.decode("utf-8", "replace") for text in value]
    return value


def _static_tensors(graph: onnx.GraphProto) -> dict[str, Tensor]:
    """Initializers, and the graph inputs of fixed shape that stand in for them in a skeleton."""
    found = {}
    for value in graph.input:
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            shape = tuple(d.dim_value for d in kind.shape.dim)
            found[value.name] = tensor_of(onnx.TensorProto.DataType.Name(kind.elem_type), shape)
    for weight in graph.initializer:
        found[weight.name] = tensor_of(onnx.TensorProto.DataType.Name(weight.data_type), tuple(weight.dims))
    return found
