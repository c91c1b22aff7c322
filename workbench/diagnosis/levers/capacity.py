"""Levers against memory: how the arena grows, how far, and when it gives back."""

from __future__ import annotations

from typing import Final

from workbench.diagnosis.levers.batches import HALF_BATCH
from workbench.diagnosis.levers.conditions import all_of, on_gpu
from workbench.diagnosis.levers.entry import Lever
from workbench.diagnosis.situation import Situation

_NOT_IN_T: Final = "It changes how memory is held, which is no piece of T: measure it."
_GIB: Final = 1 << 30


def arena_strategy(strategy: str) -> Lever:
    """By how much the arena grows when it is full."""
    exact = strategy == "kSameAsRequested"
    return Lever(
        name="arena-as-requested" if exact else "arena-power-of-two",
        title="The arena grows by what is asked for" if exact else "The arena grows by powers of two",
        treats=("capacity",),
        serves=("memory",) if exact else ("latency",),
        changes={"cuda": {"arena_extend_strategy": strategy}},
        condition="on a GPU",
        effect="less memory is held than used" if exact else "fewer allocations while it grows",
        cost="more allocations while it grows" if exact else "up to twice the memory",
        costs=("cold start",) if exact else ("memory",),
        unless=on_gpu,
        unknown_because=_NOT_IN_T,
    )


SHRINKAGE: Final = Lever(
    name="arena-shrinkage",
    title="The arena gives free memory back after every call",
    treats=("capacity",),
    serves=("memory",),
    changes=lambda situation: {
        "run": {"entries": {"memory.enable_memory_arena_shrinkage": f"gpu:{situation.config.cuda.device_id}"}}
    },
    condition="on a GPU, no CUDA graph",
    effect="memory of a large call does not stay for small ones",
    cost="what is given back is allocated again in the next call",
    costs=("latency",),
    unless=all_of(on_gpu, lambda situation: "A CUDA graph needs its memory." if situation.config.cuda_graph else None),
    unknown_because="How long allocations take that every call makes anew is not recorded.",
)


def memory_limit(gib: int) -> Lever:
    """The most that the arena may take."""
    return Lever(
        name=f"gpu-mem-limit-{gib}gib",
        title=f"At most {gib} GiB for the arena",
        treats=("capacity",),
        serves=("memory",),
        changes={"cuda": {"gpu_mem_limit": gib * _GIB}},
        condition="on a GPU that has more",
        effect="others on the GPU keep their memory",
        cost="a call that needs more fails",
        costs=("memory",),
        unless=lambda situation: on_gpu(situation) or _no_room(situation, gib * _GIB),
        unknown_because=_NOT_IN_T,
    )


NO_PATTERN: Final = Lever(
    name="no-memory-pattern",
    title="No memory planned ahead for the shapes of a call",
    treats=("capacity", "cold start"),
    serves=("memory",),
    changes={"session": {"enable_mem_pattern": False}},
    condition="always",
    effect="less memory is held where shapes vary from call to call",
    cost="every activation is allocated by itself",
    costs=("latency",),
    unknown_because=_NOT_IN_T,
)


LEVERS: Final = (
    arena_strategy("kSameAsRequested"),
    arena_strategy("kNextPowerOfTwo"),
    SHRINKAGE,
    *(memory_limit(gib) for gib in (2, 4, 8, 16)),
    NO_PATTERN,
    HALF_BATCH,
)


def _no_room(situation: Situation, limit_bytes: int) -> str | None:
    whole, used = situation.device.memory_bytes, situation.peak_device_bytes
    if whole is not None and limit_bytes >= whole:
        return f"The GPU has {whole / _GIB:.0f} GiB only."
    if used is not None and limit_bytes < used:
        return f"The run took {used / _GIB:.1f} GiB at its peak."
    return None
