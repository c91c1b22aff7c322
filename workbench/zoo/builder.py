"""A small builder of ONNX graphs: seeded weights, scoped names, the same bytes for the same calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike, NDArray
from onnx import helper, numpy_helper

from workbench.errors import ConfigError

OPSET: Final = 17
"""The first opset with LayerNormalization as one operator."""

IR_VERSION: Final = 8
"""The IR version that ONNX 1.12 released with opset 17."""

MAX_WEIGHT_BYTES: Final = 2**31 - 2**20
"""A protobuf message ends at 2 GiB (the limit of the format); 1 MiB is left for what is no weight."""


class GraphBuilder:
    """Collects inputs, weights and nodes of one graph, in the order of the calls.

    Names are dotted paths of the open scopes (`layers.0.attention.query.weight`), so that a node of a profile tells
    where it stands in the model. Weights are drawn from `numpy.random.default_rng(seed)` as float32 in the order of
    the calls and then cast to `dtype`: models that differ in dtype alone hold the same weights, rounded.
    """

    def __init__(self, name: str, *, dtype: str = "float32", seed: int = 0) -> None:
        self.dtype = np.dtype(dtype)
        self._name = name
        self._rng = np.random.default_rng(seed)
        self._scopes: list[str] = []
        self._used: Counter[str] = Counter()
        self._weight_bytes = 0
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._nodes: list[onnx.NodeProto] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put `name` before the names of the nodes and weights made inside."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def input(self, name: str, shape: Sequence[int | str], dtype: DTypeLike | None = None) -> str:
        """Declare an input; a text in `shape` is a symbolic dimension. Without `dtype`, that of the weights."""
        self._inputs.append(self._value_info(name, shape, dtype))
        return name

    def output(self, name: str, shape: Sequence[int | str], dtype: DTypeLike | None = None) -> None:
        """Declare the value `name`, which a node makes, as an output of the graph."""
        self._outputs.append(self._value_info(name, shape, dtype))

    def normal(self, name: str, shape: Sequence[int], *, scale: float, mean: float = 0.0) -> str:
        """Add a weight drawn from N(mean, scale²), of `shape` and the builder's dtype.

        Raises `ConfigError` before anything is drawn when the weights would not fit into one ONNX file.
        """
        self._weight_bytes += int(np.prod([int(size) for size in shape], dtype=object)) * self.dtype.itemsize
        if self._weight_bytes > MAX_WEIGHT_BYTES:
            raise ConfigError(
                f"The weights of this '{self._name}' exceed the 2 GiB that an ONNX file can hold: choose smaller sizes."
            )
        values = self._rng.standard_normal(shape, dtype=np.float32) * np.float32(scale) + np.float32(mean)
        return self._initializer(name, values.astype(self.dtype))

    def constant(self, name: str, value: ArrayLike, dtype: DTypeLike | None = None) -> str:
        """Add a constant, of the builder's dtype unless `dtype` is given."""
        return self._initializer(name, np.asarray(value, dtype=self.dtype if dtype is None else dtype))

    def node(self, op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node with one output and return that output's name, which `output` overrides."""
        name = self._path(op_type)
        self._used[name] += 1
        if self._used[name] > 1:
            name = f"{name}_{self._used[name] - 1}"
        value = output or f"{name}.output"
        self._nodes.append(helper.make_node(op_type, list(inputs), [value], name=name, **attributes))
        return value

    def model(self) -> onnx.ModelProto:
        """Everything so far as a model of opset 17."""
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, self._initializers)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="workbench.zoo",
        )

    def _path(self, name: str) -> str:
        return ".".join([*self._scopes, name])

    def _initializer(self, name: str, values: NDArray[Any]) -> str:
        path = self._path(name)
        self._initializers.append(numpy_helper.from_array(values, path))
        return path

    def _value_info(self, name: str, shape: Sequence[int | str], dtype: DTypeLike | None) -> onnx.ValueInfoProto:
        element = helper.np_dtype_to_tensor_dtype(self.dtype if dtype is None else np.dtype(dtype))
        return helper.make_tensor_value_info(name, element, list(shape))
