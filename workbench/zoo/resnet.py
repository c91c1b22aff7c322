"""ResNet-50 with weights that mean something: the onnx package ships its graph with constants in their place."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from workbench.errors import ModelError
from workbench.zoo.builder import IR_VERSION, OPSET

_IMAGES: Final = 4
"""Noise images behind the statistics: 196 values for each channel of the last stage, of 7 × 7."""

_SPREAD: Final = 0.1
"""Standard deviation of batch-norm scales and biases, so that no channel is like another."""

_BRANCH_SCALE: Final = 0.5
"""Scale of the last normalisation of a block: each of the at most 6 blocks of a stage adds a quarter to the variance
of the trunk, which stays of order one. Training starts it small too (Goyal et al., "Accurate, Large Minibatch SGD",
2017, section 5.1, take 0)."""

Weights = dict[str, NDArray[Any]]


def resnet50(light: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """`light`, the onnx package's light_resnet50, with seeded weights, an open batch and opset 17; 102 MB.

    Weights of convolutions and of the last product are He-normal: N(0, 2 / fan-in) (He et al., "Delving Deep into
    Rectifiers", 2015). Batch normalisation holds the mean and the variance that its input has on seeded noise, as
    training leaves them: without, a deep random network gives nearly the same output for every input. They come from
    one run of ONNX Runtime on the CPU and are rounded to float16, so that other kinds of CPU hardly change them.

    Raises `ModelError` when `light` is another graph.
    """
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in light.graph.initializer}
    shapes = {name: values.shape for name, values in held.items()}
    for node in light.graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(int(size) for size in held[node.input[0]])
    nodes = [node for node in light.graph.node if node.op_type != "ConstantOfShape"]
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for node in nodes:
        try:
            weights |= _weights(node, shapes, rng)
        except KeyError as error:
            raise ModelError(f"This light_resnet50 has no weight {error}: install another version of onnx.") from None
    image, output = light.graph.input[0].name, light.graph.output[0].name
    version = next(each.version for each in light.opset_import if not each.domain)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "resnet50",
            [helper.make_tensor_value_info(image, onnx.TensorProto.FLOAT, ["batch", 3, 224, 224])],
            [helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, ["batch", 1000])],
            [numpy_helper.from_array(values, name) for name, values in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", version)],
        ir_version=IR_VERSION,
        producer_name="workbench.zoo",
    )
    model = onnx.version_converter.convert_version(model, OPSET)
    noise = rng.standard_normal((_IMAGES, 3, 224, 224), dtype=np.float32)
    statistics = _statistics(model, {image: noise})
    for tensor in model.graph.initializer:
        if tensor.name in statistics:
            tensor.CopyFrom(numpy_helper.from_array(statistics[tensor.name], tensor.name))
    return model


def _weights(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> Weights:
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
        scale = _BRANCH_SCALE if node.input[1].endswith("branch2c_bn_s_0") else 1.0
        return normal(1, _SPREAD * scale, scale) | normal(2, _SPREAD) | normal(3, 0.0) | normal(4, 0.0, 1.0)
    if node.op_type == "Reshape":
        return {node.input[1]: np.array([0, -1])}  # 0 keeps the batch
    return {}


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
