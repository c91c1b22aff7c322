"""Nodes of a graph as given that leave no kernel of their own, because ONNX Runtime makes one with a neighbour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

import onnx

from workbench.capture.subgraph import Wiring

_SCALE: Final = frozenset(("Mul", "Div"))
_GELU_TAIL: Final = ("Add", "Mul", "Mul")


def absorbed_nodes(graph: onnx.GraphProto, wiring: Wiring, dynamic: set[str]) -> set[int]:
    """Indices of nodes that take no pass over memory of their own once the graph is optimised for CUDA.

    Only fusions seen in optimised graphs of ONNX Runtime at its default level, each around a node that stays: batch
    normalisation after a convolution; the parts of GELU around its Erf, and the bias before; the addition, and the bias
    before it, whose sum only a layer normalisation reads; the mask added before a softmax; a scalar factor on a matrix
    product that only a softmax reads. dynamic: tensors that change with the feeds.
    """
    seen = _Graph(graph, wiring, dynamic)
    return {found for index, node in enumerate(graph.node) for found in _RULES.get(node.op_type, _none)(seen, index)}


class _Graph:
    """Who makes a tensor, and who alone reads it."""

    def __init__(self, graph: onnx.GraphProto, wiring: Wiring, dynamic: set[str]) -> None:
        self.nodes = list(graph.node)
        self._wiring, self._dynamic = wiring, dynamic
        reads = Counter(name for names in wiring.reads for name in names)
        reads.update(value.name for value in graph.output)
        self._reader = {name: index for index, names in enumerate(wiring.reads) for name in names if reads[name] == 1}

    def changing(self, index: int) -> list[str]:
        """The inputs of a node that change with the feeds."""
        return [name for name in self._wiring.reads[index] if name in self._dynamic]

    def maker(self, name: str, op_types: frozenset[str], *, inputs: int, alone: bool = True) -> int | None:
        """The node of one of these types that makes a tensor from so many changing inputs.

        alone: only where a single node reads the tensor, and it is no output of the graph.
        """
        index = self._wiring.producer.get(name)
        if index is None or self.nodes[index].op_type not in op_types or (alone and name not in self._reader):
            return None
        return index if len(self.changing(index)) == inputs else None

    def reader(self, index: int, op_type: str) -> int | None:
        """The node of this type that alone reads the first output of a node."""
        found = self._reader.get(self.nodes[index].output[0])
        return found if found is not None and self.nodes[found].op_type == op_type else None


_ADD: Final = frozenset(("Add",))
_CONVOLUTION: Final = frozenset(("Conv",))
_PRODUCT: Final = frozenset(("MatMul",))


def _none(graph: _Graph, index: int) -> Iterator[int]:
    return iter(())


def _normalisation(graph: _Graph, index: int) -> Iterator[int]:
    if graph.maker(graph.nodes[index].input[0], _CONVOLUTION, inputs=1) is not None:
        yield index


def _gelu(graph: _Graph, index: int) -> Iterator[int]:
    """x · (1 + erf(x / √2)) · ½, as PyTorch exports it: all but the Erf; and a bias on x."""
    scaled = graph.maker(graph.nodes[index].input[0], _SCALE, inputs=1)
    if scaled is None:
        return
    tail, at = [], index
    for op_type in _GELU_TAIL:
        reader = graph.reader(at, op_type)
        if reader is None:
            return
        tail.append(reader)
        at = reader
    yield from (scaled, *tail)
    bias = graph.maker(graph.changing(scaled)[0], _ADD, inputs=1, alone=False)
    if bias is not None:
        yield bias


def _layer_norm(graph: _Graph, index: int) -> Iterator[int]:
    total = graph.maker(graph.nodes[index].input[0], _ADD, inputs=2)
    if total is not None:
        yield total
        biases = (graph.maker(name, _ADD, inputs=1) for name in graph.changing(total))
        yield from [bias for bias in biases if bias is not None][:1]


def _softmax(graph: _Graph, index: int) -> Iterator[int]:
    source = graph.nodes[index].input[0]
    masked = graph.maker(source, _ADD, inputs=2)
    sources = [source] if masked is None else graph.changing(masked)
    if masked is not None:
        yield masked
    for name in sources:
        scaled = graph.maker(name, _SCALE, inputs=1)
        if scaled is not None and graph.maker(graph.changing(scaled)[0], _PRODUCT, inputs=2) is not None:
            yield scaled


_RULES: Final = {
    "BatchNormalization": _normalisation,
    "Erf": _gelu,
    "LayerNormalization": _layer_norm,
    "Softmax": _softmax,
}
