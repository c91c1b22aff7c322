"""Levers against traffic to the device's memory: fewer bytes, or fewer trips."""

from __future__ import annotations

from typing import Final, Literal

from workbench.config import Conversion
from workbench.diagnosis.levers.conditions import (
    BFLOAT16_SINCE,
    CONVOLUTIONS,
    HALVES,
    INT8,
    PRODUCTS,
    all_of,
    capability,
    float32_model,
    float_weights,
    holds,
    no_batch_norm,
    not_converted,
    on_gpu,
)
from workbench.diagnosis.levers.entry import Lever, converting
from workbench.diagnosis.prediction.arithmetic import with_half_precision, with_smaller_weights

_SMALL: Final[tuple[Conversion, ...]] = ("int4_weights", "int8_weights")


def half_precision(dtype: Literal["float16", "bfloat16"], cost: str) -> Lever:
    """The model converted to a type of two bytes, inputs and outputs as they were."""
    return Lever(
        name=dtype,
        title=f"Convert to {dtype}, inputs and outputs stay as they are",
        treats=("memory", "compute", "capacity"),
        serves=("latency", "throughput", "memory"),
        changes=converting(dtype),
        condition="on a GPU; weights or matrix work in float32"
        + (", compute capability 8.0, no batch normalisation in the file" if dtype == "bfloat16" else ""),
        effect="memory traffic of float32 nodes halves; their matrix work runs on faster tensor cores",
        cost=f"{cost}; casts at the border and around nodes without such a kernel",
        costs=("accuracy",),
        unless=all_of(
            on_gpu,
            float32_model,
            not_converted(*HALVES, *INT8),
            *((capability(BFLOAT16_SINCE, dtype), no_batch_norm) if dtype == "bfloat16" else ()),
        ),
        formula=with_half_precision(dtype),
    )


def small_weights(bits: Literal[4, 8]) -> Lever:
    """Weights of matrix products in fewer bits; the arithmetic keeps its type."""
    conversion: Conversion = "int4_weights" if bits == 4 else "int8_weights"
    return Lever(
        name=f"int{bits}-weights",
        title=f"Weights of matrix products in {bits} bits",
        treats=("memory", "capacity"),
        serves=("latency", "memory"),
        changes=converting(conversion),
        condition="matrix products with floating-point weights",
        effect="the bytes of the weights shrink, which is most of the traffic at batch 1",
        cost="rounded weights; they are unpacked before each product, which costs time where arithmetic is the limit",
        costs=("accuracy", "latency"),
        unless=all_of(holds(PRODUCTS, "matrix product"), float_weights, not_converted(*_SMALL, *INT8)),
        formula=with_smaller_weights(bits),
    )


NHWC: Final = Lever(
    name="prefer-nhwc",
    title="Convolutions with channels last",
    treats=("memory", "compute"),
    serves=("latency", "throughput"),
    changes={"cuda": {"prefer_nhwc": True}},
    condition="a convolution in the graph, on a GPU",
    effect="conversions between layouts around convolutions go, and tensor cores read whole vectors",
    cost="operators without such a kernel get conversions of their own",
    costs=("latency",),
    unless=all_of(on_gpu, holds(CONVOLUTIONS, "convolution")),
)

LEVERS: Final = (
    half_precision("float16", "11 bits of precision and a range up to 65,504"),
    half_precision("bfloat16", "8 bits of precision"),
    small_weights(8),
    small_weights(4),
    NHWC,
)
