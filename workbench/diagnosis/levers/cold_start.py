"""Levers against the time before the first result, and before the first result of every new shape."""

from __future__ import annotations

from typing import Final, Literal

from workbench.diagnosis.levers.conditions import all_of, not_converted, on_gpu, open_dimension
from workbench.diagnosis.levers.entry import Lever, converting

_NOT_IN_T: Final = "It changes the cold start, which is no piece of T: measure the steps."

OPTIMIZED: Final = Lever(
    name="optimized-model",
    title="Load a model that was optimised and saved before",
    treats=("cold start",),
    serves=("cold start",),
    changes=converting("optimized"),
    condition="always",
    effect="session creation does not optimise the graph again",
    cost="the saved model fits this provider and version of ONNX Runtime only",
    unless=not_converted("optimized"),
    unknown_because=_NOT_IN_T,
)

FIXED_SHAPES: Final = Lever(
    name="fixed-shapes",
    title="Fix the open dimensions of the inputs",
    treats=("cold start", "host", "framework overhead"),
    serves=("cold start", "latency"),
    changes=converting("fixed_shapes"),
    condition="an input with an open dimension",
    effect="shapes are worked out once, and what computes them in the graph can be folded",
    cost="one model for every shape",
    unless=all_of(open_dimension, not_converted("fixed_shapes")),
    unknown_because="Which nodes fall away once the shapes are known is not known before the session is made.",
)


def module_loading(when: Literal["LAZY", "EAGER"]) -> Lever:
    """When CUDA loads kernels onto the device."""
    return Lever(
        name=f"module-loading-{when.lower()}",
        title="Load kernels when they are first used" if when == "LAZY" else "Load all kernels at once",
        treats=("cold start",),
        serves=("cold start", "memory") if when == "LAZY" else ("cold start",),
        changes={"cuda_module_loading": when},
        condition="on a GPU",
        effect="only what is used is loaded" if when == "LAZY" else "first calls of later shapes load nothing",
        cost="the first call of every kernel waits" if when == "LAZY" else "a longer start and more memory",
        costs=("latency",) if when == "LAZY" else ("memory", "cold start"),
        unless=on_gpu,
        unknown_because=_NOT_IN_T,
    )


LEVERS: Final = (OPTIMIZED, FIXED_SHAPES, module_loading("EAGER"), module_loading("LAZY"))
