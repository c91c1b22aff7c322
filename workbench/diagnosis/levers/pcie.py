"""Levers against copies between host and device."""

from __future__ import annotations

from typing import Final

from workbench.diagnosis.levers.conditions import HALVES, INT8, all_of, float32_model, not_converted, on_gpu
from workbench.diagnosis.levers.entry import Lever, converting
from workbench.diagnosis.prediction.arithmetic import with_half_precision
from workbench.diagnosis.prediction.binding import bound_on_device, pinned
from workbench.diagnosis.prediction.crowding import in_flight

DEVICE: Final = Lever(
    name="io-binding-device",
    title="Bind inputs and outputs on the device",
    treats=("pcie", "host"),
    serves=("latency", "throughput"),
    changes={"binding": "device"},
    condition="what makes the inputs and uses the outputs can do so on the device",
    effect="copies of inputs and outputs go, with the host's time around them",
    cost="where data has to cross after all, the caller copies it",
    unless=on_gpu,
    formula=bound_on_device,
)

PINNED: Final = Lever(
    name="io-binding-pinned",
    title="Hold inputs and outputs in page-locked host memory",
    treats=("pcie",),
    serves=("latency", "throughput"),
    changes={"binding": "pinned"},
    condition="no CUDA graph",
    effect="copies run at the full speed of the bus, and asynchronously",
    cost="page-locked memory is taken from the host for good",
    costs=("memory",),
    unless=on_gpu,
    formula=pinned,
)

NUMPY: Final = Lever(
    name="io-binding-numpy",
    title="NumPy arrays in and out",
    treats=("pcie",),
    serves=("memory",),
    changes={"binding": "numpy"},
    condition="no CUDA graph",
    effect="inputs and outputs are copied in every call; no buffer is held between calls",
    cost="pageable copies in every call",
    costs=("latency",),
    unless=on_gpu,
    unknown_because="What pageable copies take depends on their size and on pages that are not there yet.",
)

FLOAT16_IO: Final = Lever(
    name="float16-io",
    title="Convert to float16, inputs and outputs too",
    treats=("pcie", "memory", "compute"),
    serves=("latency", "throughput", "memory"),
    changes=converting("float16_io"),
    condition="weights or matrix work in float32",
    effect="copies and memory traffic halve; matrix work runs on float16 tensor cores",
    cost="11 bits of precision and a range up to 65,504",
    costs=("accuracy",),
    unless=all_of(on_gpu, float32_model, not_converted(*HALVES, *INT8)),
    formula=with_half_precision("float16", at_border=True),
)


def streams(count: int) -> Lever:
    """Calls in flight on streams of their own, whose copies overlap the others' kernels."""
    return Lever(
        name=f"streams-{count}",
        title=f"{count} calls in flight, each on a stream of its own, copies on streams beside them",
        treats=("pcie", "under-filled", "launch latency"),
        serves=("throughput",),
        changes={
            "concurrency": count,
            "cuda": {"do_copy_in_default_stream": False, "use_ep_level_unified_stream": False},
        },
        condition="on a GPU, no CUDA graph; copies overlap only from page-locked memory",
        effect="copies of one call run beside kernels of another",
        cost="each call takes longer; ONNX Runtime warns of races between copies and kernels, so outputs are compared",
        costs=("latency", "memory", "accuracy"),
        unless=on_gpu,
        formula=in_flight(count),
    )


LEVERS: Final = (DEVICE, PINNED, NUMPY, FLOAT16_IO, *(streams(count) for count in (2, 3, 4)))
