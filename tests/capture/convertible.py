"""Small models to convert, and the request for one conversion of one of them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workbench import zoo
from workbench.capture.convert.request import Request
from workbench.capture.feeds import load_feeds, make_feeds, save_feeds
from workbench.capture.model import read_model
from workbench.config import RunConfig

ENCODER = {"layers": 1, "hidden": 64, "heads": 4, "feed_forward": 64, "vocabulary": 50, "positions": 12}
DIMS = {"encoder": {"batch": 2, "sequence": 7}, "convolution": {"batch": 2}}


def save(path: Path, nodes, inputs, outputs, held, opset=17) -> Path:
    """A model of float32 inputs and outputs (name → shape) and held arrays."""
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in each.items()]
        for each in (inputs, outputs)
    ]
    weights = [numpy_helper.from_array(np.asarray(values), name) for name, values in held.items()]
    graph = helper.make_graph([helper.make_node(*args, **kw) for args, kw in nodes], "g", *infos, weights)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def node(op_type, reads, makes, **attributes):
    return (op_type, reads.split(), makes.split()), attributes


def write_models(folder: Path) -> dict[str, Path]:
    """One of attention, one of convolution, one with operators that stay in float32, one without weights."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(max(1, np.prod(shape[1:]))))

    held = {"W": normal(16, 3, 3, 3), "B": normal(16), "scale": 1 + normal(16) / 9, "shift": normal(16)}
    held |= {"mean": normal(16) / 9, "variance": np.abs(1 + normal(16) / 9), "F": normal(16, 16)}
    convolution = [
        node("Conv", "x W B", "c", name="conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c scale shift mean variance", "n", name="norm"),
        node("Relu", "n", "r", name="relu"),
        node("GlobalAveragePool", "r", "p", name="pool"),
        node("Flatten", "p", "f", name="flat"),
        node("MatMul", "f F", "y", name="product"),
    ]
    shapes = {"x": ["batch", 3, 12, 12]}, {"y": ["batch", 16]}
    # `a` is read by two operators that stay in float32
    wide = [
        node("MatMul", "x M", "a", name="product"),
        node("TopK", "a k", "top indices", name="top"),
        node("CumSum", "a axis", "s", name="sum"),
        node("Add", "s top", "y", name="add"),
    ]
    return {
        "encoder": zoo.write("encoder", folder / "encoder.onnx", **ENCODER),
        "convolution": save(folder / "convolution.onnx", convolution, *shapes, held),
        "wide": save(
            folder / "wide.onnx", wide, {"x": [2, 8]}, {"y": [2, 8]},
            {"M": normal(8, 8), "k": np.array([8]), "axis": np.array(1)},
        ),
        "integers": save(
            folder / "integers.onnx", [node("Cast", "x", "i", to=TensorProto.INT32), node("Cast", "i", "y", to=1)],
            {"x": [4]}, {"y": [4]}, {},
        ),
    }  # fmt: skip


def request_for(model: Path, conversion: str, folder: Path, samples=3, **options) -> tuple[Request, dict]:
    """What the child process is asked, and the run's feeds."""
    folder.mkdir(exist_ok=True)
    config = RunConfig(model=str(model), dims=DIMS.get(model.stem, {}), **options)
    written = []
    for seed in range(samples):
        feeds = make_feeds(read_model(model), config.changed(seed=seed))[0]
        written.append(folder / f"sample_{seed}.npz")
        save_feeds(written[-1], feeds)
    feeds = load_feeds(written[0])
    shapes = {name: list(array.shape) for name, array in feeds.items()}
    request = Request(
        conversion=conversion, source=model, folder=folder, config=config, device="cpu", shapes=shapes, samples=written
    )
    return request, feeds
