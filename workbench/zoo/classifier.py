"""Image classifiers with weights that mean something: the onnx package ships their graphs with constants instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from workbench.errors import ModelError
from workbench.zoo.builder import IR_VERSION, OPSET

CLASSIFIERS: Final = ("resnet50", "shufflenet", "squeezenet")

_IMAGES: Final = 4
"""Noise images behind the statistics: 196 values for each channel of the last stage, of 7 × 7."""

_SPREAD: Final = 0.1
"""Standard deviation of batch-norm scales and biases, so that no channel is like another."""

_BRANCH_SCALE: Final = 0.5
"""Scale of the last normalisation of a block: each of the at most 7 blocks of a stage adds a quarter to the variance
of the trunk, which stays of order one. Training starts it small too (Goyal et al., "Accurate, Large Minibatch SGD",
2017, section 5.1, take 0)."""

_EPSILON: Final = 1e-5
"""Of the normalisations that are folded, as ONNX's BatchNormalization has it by default."""

Weights = dict[str, NDArray[Any]]


def seeded(light: onnx.ModelProto, name: str, seed: int) -> onnx.ModelProto:
    """`light`, the onnx package's graph of `name`, with seeded weights, an open batch and opset 17.

    Weights of convolutions and of the last product are He-normal: N(0, 2 / fan-in) (He et al., "Delving Deep into
    Rectifiers", 2015). Batch normalisation holds the mean and the variance that its input has on seeded noise, as
    training leaves them: without, a deep random network gives nearly the same output for every input. They come from
    one run of ONNX Runtime on the CPU and are rounded to float16, so that other kinds of CPU hardly change them.
    A network without batch normalisation holds it folded into its convolutions, as deployment leaves it. Dropout,
    which does nothing in inference, is left out.

    Raises `ModelError` when `light` is another graph.
    """
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in light.graph.initializer}
    shapes = {tensor: values.shape for tensor, values in held.items()}
    for node in light.graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(int(size) for size in held[node.input[0]])
    nodes = _without_dropout([node for node in light.graph.node if node.op_type != "ConstantOfShape"])
    branches = {node.input[0] for node in nodes if node.op_type == "Sum"}  # the trunk or its projection comes second
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for node in nodes:
        try:
            if node.op_type == "Reshape":
                weights[node.input[1]] = np.array([0, *held[node.input[1]][1:-1], -1])  # 0 keeps the batch
            else:
                weights |= _weights(node, shapes, branches, rng)
        except KeyError as error:
            raise ModelError(f"This light_{name} has no weight {error}: install another version of onnx.") from None
    model = _open_batch(light, name, nodes, weights)
    feeds = {model.graph.input[0].name: rng.standard_normal((_IMAGES, 3, 224, 224), dtype=np.float32)}
    if any(node.op_type == "BatchNormalization" for node in nodes):
        _replace(model, _statistics(model, feeds))
    else:
        _replace(model, _folded(model, weights, feeds))
    return model


def _without_dropout(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    passed = {node.output[0]: node.input[0] for node in nodes if node.op_type == "Dropout"}
    kept = [node for node in nodes if node.op_type != "Dropout"]
    for node in kept:
        for index, value in enumerate(node.input):
            node.input[index] = passed.get(value, value)
    return kept


def _weights(
    node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], branches: set[str], rng: np.random.Generator
) -> Weights:
    """What `node` holds: weights, scales and biases; the statistics of a normalisation are a beginning."""

    def normal(index: int, deviation: float, mean: float = 0.0) -> Weights:
        name = node.input[index]
        values = rng.standard_normal(shapes[name], dtype=np.float32) * np.float32(deviation) + np.float32(mean)
        return {name: values}

    if node.op_type in ("Conv", "Gemm"):  # both keep the output channel first
        fan_in = int(np.prod(shapes[node.input[1]][1:]))
        bias = normal(2, _SPREAD) if len(node.input) > 2 else {}
        return normal(1, (2 / fan_in) ** 0.5) | bias
    if node.op_type == "BatchNormalization":
        scale = _BRANCH_SCALE if node.output[0] in branches else 1.0
        return normal(1, _SPREAD * scale, scale) | normal(2, _SPREAD) | normal(3, 0.0) | normal(4, 0.0, 1.0)
    return {}


def _open_batch(
    light: onnx.ModelProto, name: str, nodes: Sequence[onnx.NodeProto], weights: Weights
) -> onnx.ModelProto:
    """A model of `nodes` at `OPSET` for any batch.

    The last Softmax is put back after the conversion: before opset 13 it flattened all dimensions from axis 1 on, for
    which the converter adds Shape, Flatten and Reshape. The dimensions behind axis 1 are 1 here: nothing to flatten.
    """
    held = {tensor.name for tensor in light.graph.initializer}
    image = next(each.name for each in light.graph.input if each.name not in held)
    output = light.graph.output[0]
    *body, softmax = nodes
    if softmax.op_type != "Softmax":
        raise ModelError(f"This light_{name} ends in a {softmax.op_type}: install another version of onnx.")
    shape = ["batch", *(dim.dim_value for dim in output.type.tensor_type.shape.dim[1:])]
    graph = helper.make_graph(
        body,
        name,
        [helper.make_tensor_value_info(image, onnx.TensorProto.FLOAT, ["batch", 3, 224, 224])],
        [helper.make_tensor_value_info(softmax.input[0], onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(values, tensor) for tensor, values in weights.items()],
    )
    version = next(each.version for each in light.opset_import if not each.domain)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", version)],
        ir_version=IR_VERSION,
        producer_name="workbench.zoo",
    )
    model = onnx.version_converter.convert_version(model, OPSET)
    model.graph.node.append(
        helper.make_node("Softmax", [softmax.input[0]], [output.name], name=softmax.name, axis=1 - len(shape))
    )
    model.graph.value_info.append(model.graph.output[0])
    model.graph.output[0].name = output.name
    return model


def _replace(model: onnx.ModelProto, weights: Weights) -> None:
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))


def _statistics(model: onnx.ModelProto, feeds: Weights) -> Weights:
    """The mean and the variance of what reaches each normalisation, by the names that hold them.

    ONNX's BatchNormalization in training mode normalises by the batch and, at momentum 0, gives its statistics out,
    so that one run yields all of them, each behind normalised layers.
    """
    import onnxruntime as ort

    training = onnx.ModelProto()
    training.CopyFrom(model)
    wanted: dict[str, str] = {}
    for node in training.graph.node:
        if node.op_type == "BatchNormalization":
            made = {f"{node.name}.mean": node.input[3], f"{node.name}.variance": node.input[4]}
            node.output.extend(made)
            node.attribute.extend([helper.make_attribute("training_mode", 1)])
            momentum = [each for each in node.attribute if each.name != "momentum"]
            del node.attribute[:]
            node.attribute.extend([*momentum, helper.make_attribute("momentum", 0.0)])
            wanted |= made
    training.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in wanted)
    session = ort.InferenceSession(training.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(list(wanted), feeds)
    rounded = (values.astype(np.float16).astype(np.float32) for values in found)
    return dict(zip(wanted.values(), rounded, strict=True))


def _folded(model: onnx.ModelProto, weights: Weights, feeds: Weights) -> Weights:
    """Weights and biases of the convolutions as if the output of each had been normalised before its bias was added.

    (w·x - mean) / √(variance + ε) + bias = (w / √(variance + ε))·x + (bias - mean / √(variance + ε)).
    """
    normalised = onnx.ModelProto()
    normalised.CopyFrom(model)
    graph = normalised.graph
    del graph.node[:]
    for node in model.graph.node:
        graph.node.append(node)
        if node.op_type != "Conv":
            continue
        weight, bias = node.input[1:]
        scale, mean, variance, bare = (f"{weight}.{part}" for part in ("scale", "mean", "variance", "bare"))
        channels = weights[weight].shape[0]
        for tensor, value in ((scale, 1), (mean, 0), (variance, 1)):
            graph.initializer.append(numpy_helper.from_array(np.full(channels, value, np.float32), tensor))
        del graph.node[-1].input[2]
        graph.node[-1].output[0] = bare
        inputs, name = [bare, scale, bias, mean, variance], f"{node.name}.norm"
        graph.node.append(
            helper.make_node("BatchNormalization", inputs, list(node.output), name=name, epsilon=_EPSILON)
        )
    found = _statistics(normalised, feeds)
    folded: Weights = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight, bias = node.input[1:]
            deviation = np.sqrt(found[f"{weight}.variance"] + np.float32(_EPSILON))
            folded[weight] = weights[weight] / deviation[:, None, None, None]
            folded[bias] = weights[bias] - found[f"{weight}.mean"] / deviation
    return folded
