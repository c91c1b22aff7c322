"""Which nodes of a graph lie between some tensors and others, and a model of those nodes alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

# From IR version 4 on, an initializer need not be listed among the graph's inputs (ONNX IR specification).
_FREE_INITIALIZERS_IR: Final = 4


@dataclass(frozen=True)
class Block:
    """What `Wiring.between` found: the nodes in graph order, the inputs that they read, and what else they need.

    `bypasses` are tensors that change with the model's inputs, are read by the block, and depend on none of its inputs.
    """

    nodes: list[int]
    inputs: set[str]
    bypasses: list[str]


class Wiring:
    """Who makes and who reads each tensor of a main graph; values that a subgraph takes from outside are reads too.

    `producer`: tensor → index of its node. `held`: initializers. `dynamic`: tensors that change with the model's
    inputs; all others are constants of the model, whether initializers or computed from such.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.reads = [tensors_read(node) for node in self.nodes]
        self.producer = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        sparse = {tensor.values.name for tensor in graph.sparse_initializer}
        self.held = {tensor.name for tensor in graph.initializer} | sparse
        self._readers = defaultdict(list)
        for index, names in enumerate(self.reads):
            for name in names:
                self._readers[name].append(index)
        self.dynamic = self.downstream(value.name for value in graph.input if value.name not in self.held)

    def downstream(self, sources: Iterable[str]) -> set[str]:
        """The sources and every tensor that depends on one of them."""
        found = set(sources)
        waiting = list(found)
        while waiting:
            for index in self._readers.get(waiting.pop(), ()):
                new = [name for name in self.nodes[index].output if name and name not in found]
                found.update(new)
                waiting += new
        return found

    def is_read(self, name: str) -> bool:
        """Whether a node of the graph reads the tensor."""
        return name in self._readers

    def between(self, inputs: Iterable[str], outputs: Iterable[str]) -> Block:
        """The nodes that the outputs need when the inputs are given; constants are computed inside the block."""
        given = set(inputs)
        below = self.downstream(given)
        nodes: set[int] = set()
        used: set[str] = set()
        bypasses: set[str] = set()
        seen = set(outputs)
        waiting = list(seen)
        while waiting:
            name = waiting.pop()
            if name in given:
                used.add(name)
            elif name in self.dynamic and name not in below:
                bypasses.add(name)
            elif name in self.producer and self.producer[name] not in nodes:
                index = self.producer[name]
                nodes.add(index)
                waiting += [read for read in self.reads[index] if read not in seen]
                seen.update(self.reads[index])
        return Block(sorted(nodes), used, sorted(bypasses))


def tensors_read(node: onnx.NodeProto) -> list[str]:
    """Names that a node reads, each once: its own inputs, and what its subgraphs take from the graphs around them."""
    own = (name for name in node.input if name)
    outer = (name for graph in subgraphs(node) for name in _free_names(graph))
    return list(dict.fromkeys([*own, *outer]))


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes: branches of If, bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph itself and every graph inside its nodes."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of the graph and of the graphs inside its nodes."""
    return (node for each in all_graphs(graph) for node in each.node)


def _free_names(graph: onnx.GraphProto) -> list[str]:
    bound = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    bound |= {tensor.values.name for tensor in graph.sparse_initializer}
    bound |= {name for node in graph.node for name in node.output}
    read = [name for node in graph.node for name in tensors_read(node)]
    return [name for name in [*read, *(value.name for value in graph.output)] if name not in bound]


def extract(
    model: onnx.ModelProto,
    nodes: Sequence[int],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """A model of these nodes with the initializers that they read; external data stays where it is.

    `onnx.utils.Extractor` gives the same for plain graphs, but it asks for a type of every tensor at the border, leaves
    out what subgraphs read from outside, and takes no sparse initializers.
    """
    graph = model.graph
    kept = [graph.node[index] for index in nodes]
    read = {name for node in kept for name in tensors_read(node)} - {value.name for value in inputs}
    part = onnx.helper.make_graph(
        kept,
        graph.name,
        inputs,
        outputs,
        initializer=[tensor for tensor in graph.initializer if tensor.name in read],
        sparse_initializer=[tensor for tensor in graph.sparse_initializer if tensor.values.name in read],
    )
    return onnx.ModelProto(
        ir_version=max(model.ir_version, _FREE_INITIALIZERS_IR),
        opset_import=model.opset_import,
        functions=model.functions,
        graph=part,
    )
