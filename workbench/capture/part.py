"""One node or one block, cut out of a model to run alone on the values that reach it in the whole model."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import onnx
from onnx import helper

from workbench.capture.feeds import Feeds
from workbench.capture.model import model_inputs, read_model, type_and_shape
from workbench.capture.subgraph import Wiring, all_nodes, extract
from workbench.capture.tensors import output_values
from workbench.config import Part
from workbench.errors import ConfigError, FeedError, ModelError, UnsupportedModelError
from workbench.runs.writer import full_disk_is_said

PART_FILE: Final = "part.onnx"
WEIGHTS_FILE: Final = "part.onnx.data"

_INLINE_BYTES: Final = 1 << 30  # a protobuf message ends at 2 GiB; half of it leaves room to convert the part
_NAMED_IN_NOTE: Final = 4
_SUGGESTED: Final = 3
_NUMBERED: Final = re.compile(r"(?P<op_type>.+)#(?P<number>\d+)")


def cut_part(
    model: Path, part: Part, feeds: Feeds, folder: Path, *, timeout_s: float | None
) -> tuple[Path, Feeds, list[str]]:
    """Write the part as `folder`/part.onnx; gives its path, its feeds, and what is to be said of it.

    feeds: arrays for the inputs of the whole model. The part's feeds have the shapes and values that these lead to:
    whatever lies before the part runs once on the CPU provider, in a process of its own with the limit `timeout_s` and
    without graph optimisation. Dimensions that the whole model leaves open stay open in the part, so that ONNX Runtime
    optimises both alike. What depends on no input of the model (weights, and what is computed from weights alone)
    stays inside the part as constants. Weights go to part.onnx.data when they exceed 1 GiB.

    Raises `ConfigError` for a name that the model lacks or bounds that do not close, `ModelError` for what cannot be
    cut, `FeedError` when an input has no feed, and what `output_values` raises.
    """
    whole = read_model(model)
    wiring = Wiring(whole.graph)
    notes: list[str] = []
    if part.node is not None:
        index = _find_node(whole.graph, part.node)
        what = f"node {part.node!r} ({wiring.nodes[index].op_type})"
        inputs, outputs = _node_bounds(whole.graph, wiring, index, what)
    else:
        inputs, outputs, fixed = _block_bounds(whole.graph, wiring, part)
        notes = [f"{name!r} is constant and stays inside the part." for name in fixed]
        what = "the block"
    block = wiring.between(inputs, outputs)
    _refuse_open(block.bypasses, [name for name in inputs if name not in block.inputs], outputs)
    values = _values(whole, wiring, inputs, feeds, model.parent, folder, timeout_s)
    cut = extract(whole, block.nodes, _typed_inputs(whole, feeds, values), _untyped(outputs))
    _type_outputs(cut, whole.graph)
    path = folder / PART_FILE
    _save(cut, model.parent, path)
    count = "" if part.node is not None else f" of {len(block.nodes)} nodes"
    notes.append(f"Cut {what}{count} out of the model, with the inputs {_described(values)} as they reach it there.")
    return path, values, notes


def _labels(graph: onnx.GraphProto) -> dict[str, int]:
    """The nodes by name, where the name is theirs alone, and all by `OpType#k`: the k-th of its type, from 0."""
    shared = Counter(node.name for node in graph.node)
    named = {node.name: index for index, node in enumerate(graph.node) if node.name and shared[node.name] == 1}
    seen: Counter[str] = Counter()
    numbered = {}
    for index, node in enumerate(graph.node):
        numbered[f"{node.op_type}#{seen[node.op_type]}"] = index
        seen[node.op_type] += 1
    return {**numbered, **named}


def _find_node(graph: onnx.GraphProto, name: str) -> int:
    labels = _labels(graph)
    if name in labels:
        return labels[name]
    same = [label for label, index in labels.items() if graph.node[index].name == name]
    if same:
        raise ConfigError(f"{len(same)} nodes are called {name!r}: choose one of {', '.join(same[:_SUGGESTED])}.")
    if any(name == node.name for node in all_nodes(graph)):
        raise ConfigError(
            f"Node {name!r} lies inside the subgraph of another node and cannot be cut out: cut the node around it."
        )
    if (match := _NUMBERED.fullmatch(name)) and (known := Counter(node.op_type for node in graph.node)[match[1]]):
        raise ConfigError(
            f"The model has no node {name!r}: its nodes of type {match[1]} are {match[1]}#0 to {match[1]}#{known - 1}."
        )
    # a fused or converted node carries the names of the file's nodes within its own
    parts = sorted((label for label in labels if len(label) > 1 and label in name), key=len, reverse=True)
    close = dict.fromkeys([*parts, *difflib.get_close_matches(name, labels, n=_SUGGESTED, cutoff=0.5)])
    found = ", ".join(repr(label) for label in list(close)[:_SUGGESTED])
    remedy = f"the nearest are {found}." if found else "OpType#k names the k-th node of a type, from 0."
    raise ConfigError(
        f"The model has no node {name!r}; names are those in the file, not those that ONNX Runtime gives to nodes that "
        f"it fuses: {remedy}"
    )


def _node_bounds(graph: onnx.GraphProto, wiring: Wiring, index: int, what: str) -> tuple[list[str], list[str]]:
    inputs = [name for name in wiring.reads[index] if name in wiring.dynamic]
    if not inputs:
        raise ModelError(
            f"The {what} depends on no input of the model, so ONNX Runtime computes it while it loads the model: "
            "choose another one."
        )
    made = [name for name in wiring.nodes[index].output if name]
    results = {value.name for value in graph.output}
    return inputs, [name for name in made if name in results or wiring.is_read(name)] or made


def _block_bounds(graph: onnx.GraphProto, wiring: Wiring, part: Part) -> tuple[list[str], list[str], list[str]]:
    """Inputs, outputs, and those given inputs that are constant.

    Raises `ConfigError` for a name that is no tensor, or an output that is no result.
    """
    made = {name for node in all_nodes(graph) for name in node.output}
    known = {*(value.name for value in graph.input), *wiring.held, *wiring.producer}
    for name in (*part.inputs, *part.outputs):
        if name not in known and name in made:
            raise ConfigError(f"Tensor {name!r} lies inside the subgraph of a node, and cannot bound a part.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            remedy = f"did you mean {close[0]!r}?" if close else "names are those in the file."
            raise ConfigError(f"The model has no tensor {name!r}: {remedy}")
    for name in part.outputs:
        if name not in wiring.producer or name not in wiring.dynamic or name in part.inputs:
            raise ConfigError(f"Output {name!r} of the part is not computed from its inputs: name one that is.")
    inputs = [name for name in dict.fromkeys(part.inputs) if name in wiring.dynamic]
    if not inputs:
        raise ConfigError("No input of the part depends on an input of the model: name one that does.")
    fixed = [name for name in part.inputs if name not in wiring.dynamic]
    return inputs, list(dict.fromkeys(part.outputs)), fixed


def _refuse_open(bypasses: list[str], unused: list[str], outputs: list[str]) -> None:
    if independent := [name for name in outputs if name in bypasses]:
        raise ConfigError(f"Output {independent[0]!r} of the part is not computed from its inputs: name one that is.")
    if bypasses:
        names = ", ".join(bypasses)
        raise ConfigError(f"The part also reads {names}, which its inputs do not lead to: name them in 'inputs', too.")
    if unused:
        raise ConfigError(f"Input {unused[0]!r} of the part leads straight to none of its outputs: leave it out.")


def _values(
    whole: onnx.ModelProto,
    wiring: Wiring,
    names: list[str],
    feeds: Feeds,
    weights_folder: Path,
    folder: Path,
    timeout_s: float | None,
) -> Feeds:
    """The arrays of these tensors, in this order; nothing runs for the model's own inputs."""
    infos = {value.name: value for value in whole.graph.input}
    inner = [name for name in names if name in wiring.producer]
    before = wiring.between(wiring.dynamic & infos.keys(), inner)
    for name in before.inputs.union(names).intersection(infos):
        if name not in feeds:
            raise FeedError(f"The feeds lack the input {name!r}, which the part depends on: add it.")
    computed: Feeds = {}
    if inner:
        fed = {name: feeds[name] for name in infos if name in before.inputs}
        model = extract(whole, before.nodes, [infos[name] for name in fed], _untyped(inner))
        try:
            computed = output_values(model, weights_folder.resolve(), fed, folder, timeout_s=timeout_s)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(
                f"The values that reach the part cannot be computed on the CPU ({str(error).rstrip('.')}), "
                "so bound the part by inputs of the model."
            ) from None
    return {name: computed[name] if name in computed else feeds[name] for name in names}


def _typed_inputs(whole: onnx.ModelProto, feeds: Feeds, values: Feeds) -> list[onnx.ValueInfoProto]:
    """Inputs of the values' types; a dimension is fixed where it is in the whole model, as far as ONNX can infer."""
    shapes: dict[str, tuple[int | str | None, ...]] = {name: array.shape for name, array in values.items()}
    if any(given.name in feeds and given.shape != feeds[given.name].shape for given in model_inputs(whole)):
        inferred = onnx.shape_inference.infer_shapes(whole).graph
        known = {value.name: type_and_shape(value)[1] for value in (*inferred.input, *inferred.value_info)}
        for name, shape in shapes.items():
            same_rank = len(known.get(name, ())) == len(shape)
            shapes[name] = known.get(name, ()) if same_rank else (None,) * len(shape)
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in values.items()}
    return [helper.make_tensor_value_info(name, kinds[name], shape) for name, shape in shapes.items()]


def _untyped(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
    """Graph outputs whose types ONNX Runtime infers."""
    return [onnx.ValueInfoProto(name=name) for name in names]


def _type_outputs(cut: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Give the outputs their inferred type and shape, or the type that the whole model declares."""
    inferred = onnx.shape_inference.infer_shapes(cut).graph.output
    declared = {value.name: value for value in (*graph.value_info, *graph.output)}
    for output, found in zip(cut.graph.output, inferred, strict=True):
        if found.type.WhichOneof("value"):
            output.type.CopyFrom(found.type)
        elif output.name in declared:
            output.type.CopyFrom(declared[output.name].type)


def _save(cut: onnx.ModelProto, weights_folder: Path, path: Path) -> None:
    try:
        onnx.load_external_data_for_model(cut, str(weights_folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        cause = " ".join(str(error).split())
        raise ModelError(f"The weights of the part cannot be read ({cause}): export or copy the model again.") from None
    path.with_name(WEIGHTS_FILE).unlink(missing_ok=True)  # ONNX would add to what an earlier cut left
    aside = sum(len(tensor.raw_data) for tensor in cut.graph.initializer) > _INLINE_BYTES
    with full_disk_is_said(path.parent):
        onnx.save_model(cut, path, save_as_external_data=aside, location=WEIGHTS_FILE if aside else None)


def _described(values: Feeds) -> str:
    texts = [f"{name} {array.dtype.name}{list(array.shape)}" for name, array in values.items()]
    more = len(texts) - _NAMED_IN_NOTE
    return ", ".join(texts[:_NAMED_IN_NOTE]) + (f" and {more} more" if more > 0 else "")
