"""What treats each class, as text. Nothing here was tried on the run."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from workbench.diagnosis.diagnosis import Diagnosis


class Lever(NamedTuple):
    """One change; left out where `option` of the configuration has `value` already, or on another `device`."""

    text: str
    device: Literal["cuda", "cpu", "any"] = "cuda"
    option: str | None = None
    value: Any = None


_GRAPH: Final = Lever("Replay a CUDA graph: one launch for all kernels.", option="cuda_graph", value=True)
_DEVICE: Final = Lever("Bind inputs and outputs on the device.", option="binding", value="device")
_FEWER_NODES: Final = Lever("Fewer, larger nodes: a higher graph optimisation level, fused operators.", device="any")
_BATCH: Final = Lever("A larger batch, where the latency budget allows it.", device="any")

LEVERS: Final[dict[str, tuple[Lever, ...]]] = {
    "host": (
        _GRAPH,
        _FEWER_NODES,
        _DEVICE,
        Lever("No fall-back to the CPU, no Memcpy nodes and no control flow in the graph."),
        _BATCH,
    ),
    "launch latency": (_GRAPH, _FEWER_NODES, Lever("Spinning and thread settings of the host.")),
    "under-filled": (
        _BATCH,
        Lever("Fused operators: fewer kernels that each do more."),
        Lever("Several sessions or streams side by side, for throughput."),
    ),
    "framework overhead": (_FEWER_NODES, _BATCH, Lever("Thread and spinning settings.", device="any")),
    "pcie": (
        _DEVICE,
        Lever("Pinned host buffers.", option="binding", value="pinned"),
        Lever("Copies on a second stream, overlapped with the kernels."),
        Lever("Smaller data types at the border of the graph; no outputs that nobody reads."),
    ),
    "memory": (
        Lever("FP16 or BF16 where it still computes in float32: half the bytes."),
        Lever("Weight-only INT8 or INT4 quantisation, where weights are most of the traffic.", device="any"),
        Lever("Fused elementwise chains.", device="any"),
        Lever("NHWC layout (provider option prefer_nhwc), where layouts are changed back and forth."),
        _BATCH,
    ),
    "compute": (
        Lever("FP16 or BF16 where it still computes in float32; TF32 at the least."),
        Lever("INT8 quantisation, or FP8 on a GPU that has it."),
        Lever("INT8 quantisation.", device="cpu"),
        Lever("More intra-op threads, up to the physical cores.", device="cpu"),
        Lever("Convolution algorithm search and workspace; fused attention kernels."),
        Lever("The TensorRT provider."),
    ),
}


def levers(diagnosis: Diagnosis, config: dict[str, Any], device_kind: str) -> list[str]:
    """The levers of the verdict's class, or of both classes of a pair; empty when no class is named."""
    verdict = diagnosis.verdict
    named = verdict.pair or (verdict.name,)
    keys = [diagnosis.sub_cause if name == "launch" else name for name in named]
    chosen = [
        lever.text
        for key in keys
        for lever in LEVERS.get(key or "", ())
        if lever.device in ("any", device_kind)
        and (lever.option is None or config.get(lever.option) != lever.value)
        and not (lever.option == "binding" and config.get("binding") == "device")
    ]
    return list(dict.fromkeys(chosen))
