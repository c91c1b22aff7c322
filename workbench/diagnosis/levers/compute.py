"""Levers against time in the arithmetic units: faster units, or better kernels."""

from __future__ import annotations

from typing import Final, Literal

from workbench.diagnosis.levers.conditions import (
    ATTENTION,
    CONVOLUTIONS,
    HALVES,
    INT8,
    PRODUCTS,
    TF32_SINCE,
    all_of,
    capability,
    conv_1d,
    float32_products,
    float32_weights,
    holds,
    not_converted,
    on_gpu,
)
from workbench.diagnosis.levers.entry import Lever, converting
from workbench.diagnosis.prediction.arithmetic import with_tf32

# Bits of the CUDA provider's option sdpa_kernel: ONNX Runtime's enumeration AttentionBackend (attention_common.h).
# The unfused kernel is added wherever a kernel may decline a shape.
_UNFUSED: Final = 16
ATTENTION_KERNELS: Final = {
    "flash": 1 | _UNFUSED,
    "efficient": 2 | _UNFUSED,
    "cudnn": 8 | _UNFUSED,
    "unfused": _UNFUSED,
    "lean": 256 | _UNFUSED,
}

TF32_ON: Final = Lever(
    name="tf32-on",
    title="float32 matrix work on TF32 tensor cores",
    treats=("compute",),
    serves=("latency", "throughput"),
    changes={"cuda": {"use_tf32": True}},
    condition="compute capability 8.0, matrix work in float32",
    effect="the ceiling of float32 matrix work rises to that of TF32",
    cost="11 bits of precision in products, of 24",
    costs=("accuracy",),
    unless=all_of(on_gpu, capability(TF32_SINCE, "TF32"), float32_products),
    formula=with_tf32(True),
)

TF32_OFF: Final = Lever(
    name="tf32-off",
    title="float32 matrix work in full precision",
    treats=("compute",),
    serves=(),
    changes={"cuda": {"use_tf32": False}},
    condition="compute capability 8.0, matrix work in float32",
    effect="full precision; compute grows by the ratio of the two peaks, which also measures its share",
    cost="slower matrix work",
    costs=("latency",),
    unless=all_of(on_gpu, capability(TF32_SINCE, "TF32"), float32_products),
    formula=with_tf32(False),
)


def convolution_search(how: str) -> Lever:
    """How cuDNN's convolution algorithms are chosen."""
    return Lever(
        name=f"conv-search-{how.lower()}",
        title=f"Convolution algorithms by {how}",
        treats=("compute", "cold start"),
        serves=("latency", "cold start"),
        changes={"cuda": {"cudnn_conv_algo_search": how}},
        condition="a convolution in the graph, on a GPU",
        effect="other convolution kernels: with cuDNN 9 EXHAUSTIVE and HEURISTIC ask two of its heuristics, DEFAULT "
        "its fallback; none times candidates on the device",
        cost="DEFAULT: far slower convolutions; all: other rounding",
        costs=("accuracy", "cold start", "latency"),
        unless=all_of(on_gpu, holds(CONVOLUTIONS, "convolution")),
    )


def workspace(most: bool) -> Lever:
    """How much memory a convolution may take to be fast."""
    return Lever(
        name=f"conv-workspace-{'max' if most else 'small'}",
        title="All the workspace a convolution wants" if most else "At most 32 MB of workspace for a convolution",
        treats=("compute",) if most else ("capacity", "cold start"),
        serves=("latency",) if most else ("memory", "cold start"),
        changes={"cuda": {"cudnn_conv_use_max_workspace": most}},
        condition="a convolution in the graph, on a GPU",
        effect="more algorithms are open to the search" if most else "the arena grows less",
        cost="memory" if most else "slower convolutions",
        costs=("memory", "cold start") if most else ("latency",),
        unless=all_of(on_gpu, holds(CONVOLUTIONS, "convolution")),
    )


PAD_1D: Final = Lever(
    name="conv-1d-padding",
    title="One-dimensional convolutions as [N, C, 1, D]",
    treats=("compute",),
    serves=("latency", "throughput"),
    changes={"cuda": {"cudnn_conv1d_pad_to_nc1d": True}},
    condition="a convolution over one dimension, on a GPU",
    effect="cuDNN has faster kernels for this layout in some cases",
    cost="slower ones in others",
    costs=("latency",),
    unless=all_of(on_gpu, holds(CONVOLUTIONS, "convolution"), conv_1d),
)

FUSE_CONV_BIAS: Final = Lever(
    name="fuse-conv-bias",
    title="Convolution, bias and activation in one cuDNN kernel",
    treats=("compute", "memory", "under-filled"),
    serves=("latency", "throughput"),
    changes={"cuda": {"fuse_conv_bias": True}},
    condition="a convolution in the graph, on a GPU",
    effect="the separate kernels for bias and activation go, with their traffic",
    cost="kernels are built for every new shape",
    costs=("cold start", "accuracy"),
    unless=all_of(on_gpu, holds(CONVOLUTIONS, "convolution")),
)


def attention_kernel(name: str, bits: int) -> Lever:
    """Which kernel computes attention."""
    return Lever(
        name=f"attention-{name}",
        title=f"Attention by the {name} kernel",
        treats=("compute", "memory"),
        serves=("latency", "throughput"),
        changes={"cuda": {"sdpa_kernel": bits}},
        condition="an attention operator in the graph, on a GPU",
        effect="another kernel for the same attention; shapes and types that it declines fall back to the unfused one",
        cost="other rounding; the unfused kernel stores the whole score matrix",
        costs=("accuracy", "memory"),
        unless=all_of(on_gpu, holds(ATTENTION, "attention operator")),
    )


def int8(conversion: Literal["int8_dynamic", "int8_static"], title: str) -> Lever:
    """Weights and activations in 8 bits."""
    return Lever(
        name=conversion.replace("_", "-"),
        title=title,
        treats=("compute", "memory"),
        serves=("latency", "throughput", "memory"),
        changes=converting(conversion),
        condition="matrix products or convolutions with float32 weights",
        effect="products of integers where the provider has such kernels",
        cost="rounded weights and activations; nodes without an integer kernel fall to the CPU or are cast back",
        costs=("accuracy", "latency"),
        unless=all_of(
            holds(PRODUCTS | CONVOLUTIONS, "matrix product or convolution"),
            float32_weights,
            not_converted(*INT8, *HALVES),
        ),
        unknown_because="Which of the quantised nodes the provider can run is not known before the session is made.",
    )


TENSORRT: Final = Lever(
    name="tensorrt",
    title="The TensorRT provider",
    treats=("compute", "memory", "under-filled", "host", "launch latency"),
    serves=("latency", "throughput"),
    changes={"provider": "tensorrt"},
    condition="on a GPU, with TensorRT installed",
    effect="subgraphs become engines of fused and timed kernels",
    cost="engines are built when the session is made, which takes minutes; other rounding; memory for the engines",
    costs=("cold start", "accuracy", "memory"),
    unless=on_gpu,
)

LEVERS: Final = (
    TF32_ON,
    TF32_OFF,
    *(convolution_search(how) for how in ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")),
    workspace(True),
    workspace(False),
    PAD_1D,
    FUSE_CONV_BIAS,
    *(attention_kernel(name, bits) for name, bits in ATTENTION_KERNELS.items()),
    int8("int8_dynamic", "Weights in 8 bits, activations quantised as they come"),
    int8("int8_static", "Weights and activations in 8 bits, calibrated on the run's own inputs"),
    TENSORRT,
)
