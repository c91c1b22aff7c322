"""What ONNX Runtime itself reaches: chains of one operator, with every buffer bound on the device.

A chain repeats its operator inside one graph, so that the call and the synchronisation at its end
weigh little; graph optimisations are off, so that every node of the chain runs as it was written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper

from workbench.capture.ceilings.timing import durations_ns

Kind = Literal["cuda", "cpu"]

OPSET: Final = 17  # the oldest one in which all operators used here take every dtype used here
IR_VERSION: Final = 8
ONNX_TYPES: Final = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}
NO_OPTIONS: Final[Mapping[str, str]] = MappingProxyType({})
STREAMED_BYTES: Final = 256 << 20  # several times the last-level cache of large CPUs
RESIDENT_ELEMENTS_PER_THREAD: Final = 32 << 10  # 128 KiB in and 128 KiB out: stays in a private L2 cache
RESIDENT_NODES: Final = 64
SHORT_CHAIN_NODES: Final = 100
LONG_CHAIN_NODES: Final = 200


@dataclass(frozen=True)
class Backend:
    """Where ONNX Runtime executes: CUDA device `device_id`, or the CPU with `threads` intra-op threads.

    `threads` None leaves their number to ONNX Runtime.
    """

    kind: Kind
    device_id: int = 0
    threads: int | None = None

    def session(self, model: bytes, cuda_options: Mapping[str, str]) -> ort.InferenceSession:
        """Open a session that runs on this backend alone; a node that it lacks raises ONNX Runtime's own error."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if self.kind == "cpu":
            options.intra_op_num_threads = self.threads or 0
            return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        # the default strategy rounds the arena up to powers of two, which doubles the memory of large chains
        provider = {"device_id": str(self.device_id), "arena_extend_strategy": "kSameAsRequested", **cuda_options}
        return ort.InferenceSession(model, options, providers=[("CUDAExecutionProvider", provider)])

    def bind(
        self,
        nodes: Sequence[NodeProto],
        dtype: str,
        shape: Sequence[int],
        *,
        feed: npt.NDArray[np.float32] | None = None,
        weight: TensorProto | None = None,
        cuda_options: Mapping[str, str] = NO_OPTIONS,
    ) -> Callable[[], None]:
        """A call that runs `nodes` once and returns when the device has finished.

        The graph's output `y` has `dtype` and `shape`; `feed` becomes its float32 input `x`, `weight`
        an initializer. All of them lie on the backend's device.
        """
        inputs = [] if feed is None else [helper.make_tensor_value_info("x", TensorProto.FLOAT, feed.shape)]
        output = helper.make_tensor_value_info("y", ONNX_TYPES[dtype], shape)
        graph = helper.make_graph(list(nodes), "ceiling", inputs, [output], [] if weight is None else [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        session = self.session(model.SerializeToString(), cuda_options)

        binding = session.io_binding()
        where: dict[str, Any] = {"device_type": self.kind, "device_id": self.device_id if self.kind == "cuda" else 0}
        if feed is not None:
            binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(feed, **where))
        target = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), ONNX_TYPES[dtype], **where)
        binding.bind_ortvalue_output("y", target)
        return lambda: session.run_with_iobinding(binding)


def chain(operators: Sequence[str], nodes: int, *, first: str = "x", second: str | None = None) -> list[NodeProto]:
    """`nodes` nodes in a row from tensor `first` to tensor `y`, taking the operators in turn.

    Each node reads the one before it and, where `second` is given, that tensor as well.
    """
    names = [first, *(f"t{index}" for index in range(1, nodes)), "y"]
    extra = [] if second is None else [second]
    return [
        helper.make_node(operators[index % len(operators)], [names[index], *extra], [names[index + 1]])
        for index in range(nodes)
    ]


def _square_weight(side: int, dtype: str) -> TensorProto:
    """Initializer `w`, `side` × `side`, normal with variance 1 / side: its powers then keep that variance.

    Random, because a matrix of zeros or ones switches fewer transistors and runs at higher clocks.
    """
    values = np.random.default_rng(0).standard_normal((side, side), np.float32)
    values *= np.float32(side**-0.5)
    raw: npt.NDArray[Any] = values
    if dtype == "float16":
        raw = values.astype(np.float16)
    elif dtype == "bfloat16":  # NumPy lacks it: the upper half of a float32, truncated
        raw = (values.view(np.uint32) >> 16).astype(np.uint16)
    return helper.make_tensor("w", ONNX_TYPES[dtype], values.shape, raw.tobytes(), raw=True)


def matmul_flops_per_s(
    backend: Backend, dtype: str, side: int, *, nodes: int = 8, cuda_options: Mapping[str, str] = NO_OPTIONS
) -> float:
    """Rate of `side` × `side` matrix products in flops per second: 2 · side³ flops a product, best call.

    `dtype` is `float32`, `float16` or `bfloat16`; `cuda_options` go to the CUDA provider (`use_tf32`).
    Raises ONNX Runtime's own error where the backend lacks MatMul in that dtype or memory runs out.
    """
    run = backend.bind(
        chain(["MatMul"], nodes, first="w", second="w"),
        dtype,
        (side, side),
        weight=_square_weight(side, dtype),
        cuda_options=cuda_options,
    )
    return nodes * 2.0 * side**3 * 1e9 / float(durations_ns(run).min())


def node_overhead_ns(backend: Backend) -> float:
    """What one more node costs, in nanoseconds: slope of the median call between 100 and 200 tiny nodes.

    Tanh and Neg alternate on 16 floats: no node has work worth speaking of, and what a call costs
    whatever its graph cancels out.
    """
    feed = np.random.default_rng(0).standard_normal(16, np.float32)
    short, long = (
        backend.bind(chain(["Tanh", "Neg"], nodes), "float32", feed.shape, feed=feed)
        for nodes in (SHORT_CHAIN_NODES, LONG_CHAIN_NODES)
    )
    short_ns, long_ns = np.median(durations_ns(short, long), axis=0)
    return float(long_ns - short_ns) / (LONG_CHAIN_NODES - SHORT_CHAIN_NODES)


def neg_bytes_per_s(backend: Backend) -> float:
    """Memory bandwidth in bytes per second, read plus written, of one Neg over 256 MiB; best call."""
    feed = np.ones(STREAMED_BYTES // 4, np.float32)  # ones, since pages of zeros that nobody wrote share one page
    run = backend.bind(chain(["Neg"], 1), "float32", feed.shape, feed=feed)
    return 2 * feed.nbytes * 1e9 / float(durations_ns(run, warm_up_ns=0).min())


def exp_per_s(backend: Backend) -> float:
    """Exponentials per second of Exp over float32 that stay in cache; best call.

    All nodes read the same input, since a chain of exponentials would leave the range of float32.
    """
    elements = RESIDENT_ELEMENTS_PER_THREAD * (backend.threads or os.cpu_count() or 1)
    feed = np.random.default_rng(0).standard_normal(elements, np.float32)
    outputs = [*(f"t{index}" for index in range(1, RESIDENT_NODES)), "y"]
    nodes = [helper.make_node("Exp", ["x"], [output]) for output in outputs]
    run = backend.bind(nodes, "float32", feed.shape, feed=feed)
    return RESIDENT_NODES * feed.size * 1e9 / float(durations_ns(run).min())
