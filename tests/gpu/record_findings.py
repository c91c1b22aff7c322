"""Records small runs with one fault each, for tests/data/h200-findings: `python tests/gpu/record_findings.py FOLDER`.

Each is a real positive of a finding that the other recorded runs do not show. `--cpu` tries the models on the CPU.
"""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from workbench.capture.record import record
from workbench.config import RunConfig

CPU = "--cpu" in sys.argv
BUDGET = {"seconds": 2, "max_calls": 500, "activity_calls": 5, "nodes_calls": 3, "counters_seconds": 1.0}
WIDTH = 512

NEIGHBOUR = """
import numpy as np, onnxruntime as ort, sys
options = ort.SessionOptions()
session = ort.InferenceSession(sys.argv[1], options, providers=["CUDAExecutionProvider"])
feeds = {session.get_inputs()[0].name: np.ones((512, 512), np.float32)}
print("ready", flush=True)
while True:
    session.run(None, feeds)
"""


def weight(name: str = "weight") -> onnx.TensorProto:
    values = np.random.default_rng(0).standard_normal((WIDTH, WIDTH)).astype(np.float32)
    return numpy_helper.from_array(values * np.float32(WIDTH**-0.5), name)


def saved(path: Path, nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto], outputs: list[str]) -> Path:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [WIDTH, WIDTH])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(onnx.shape_inference.infer_shapes(model), path)
    return path


def node_on_the_cpu(folder: Path) -> Path:
    """Det has no CUDA kernel in ONNX Runtime, so its input crosses to the host between two matrix products."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["a"], name="before"),
        helper.make_node("Det", ["a"], ["d"], name="det"),
        helper.make_node("Mul", ["a", "d"], ["b"], name="scale"),
        helper.make_node("MatMul", ["b", "weight"], ["y"], name="after"),
    ]
    return saved(folder / "node_on_the_cpu.onnx", nodes, [weight()], ["y"])


def loop(folder: Path, trips: int = 20) -> Path:
    """A Loop whose condition is computed on the device, so that the host waits for it in every trip."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "weight"], ["product"], name="product"),
            helper.make_node("Tanh", ["product"], ["next"], name="tanh"),
            helper.make_node("ReduceMax", ["next"], ["largest"], name="largest", keepdims=0),
            helper.make_node("Less", ["largest", "bound"], ["again"], name="less"),
        ],
        "body",
        [
            helper.make_tensor_value_info("trip", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [WIDTH, WIDTH]),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [WIDTH, WIDTH]),
        ],
    )
    constants = [
        numpy_helper.from_array(np.array(trips, np.int64), "trips"),
        numpy_helper.from_array(np.array(True), "first"),
        numpy_helper.from_array(np.array(2.0, np.float32), "bound"),
    ]
    nodes = [helper.make_node("Loop", ["trips", "first", "x"], ["y"], name="loop", body=body)]
    return saved(folder / "loop.onnx", nodes, [weight(), *constants], ["y"])


def products(folder: Path, count: int = 50) -> Path:
    names = ["x", *(f"v{at}" for at in range(1, count)), "y"]
    nodes = [helper.make_node("MatMul", [names[at], "weight"], [names[at + 1]]) for at in range(count)]
    return saved(folder / "products.onnx", nodes, [weight()], ["y"])


def alone(model: Path, target: Path) -> None:
    config = RunConfig(model=model, provider="cpu" if CPU else "cuda", budget=BUDGET)
    record(config, target, activity="none" if CPU else "cupti", timeout_s=120)


def beside_a_neighbour(model: Path, target: Path) -> None:
    """While another process works on the same GPU."""
    command = [sys.executable, "-c", NEIGHBOUR, str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as neighbour:
        assert neighbour.stdout is not None
        neighbour.stdout.readline()
        try:
            alone(model, target)
        finally:
            neighbour.kill()


def main(target: str) -> int:
    root = Path(target).resolve()
    models = root / "models"
    models.mkdir(parents=True, exist_ok=True)
    runs: dict[str, tuple[Path, Callable[[Path, Path], None]]] = {
        "node_on_the_cpu": (node_on_the_cpu(models), alone),
        "loop": (loop(models), alone),
        "neighbour": (products(models), alone if CPU else beside_a_neighbour),
    }
    failures = 0
    for name, (model, make) in runs.items():
        begun = time.monotonic()
        try:
            make(model, root / name)
            print(f"{name}: {time.monotonic() - begun:.1f} s", flush=True)
        except Exception:
            failures += 1
            traceback.print_exc(limit=-4)
    return failures


if __name__ == "__main__":
    sys.exit(main(*(word for word in sys.argv[1:] if word != "--cpu")))
