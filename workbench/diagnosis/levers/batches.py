"""Levers that change how many items one call takes: more of them share its costs, fewer take less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workbench.diagnosis.levers.entry import Changes, Cost, Lever, Objective, Treats
from workbench.diagnosis.prediction.crowding import batched
from workbench.diagnosis.situation import Situation

_SHARED: Final[tuple[Treats, ...]] = ("host", "launch latency", "under-filled", "framework overhead", "memory")
_CONDITION: Final = "the inputs share a first dimension that can be changed"


def larger_batch(times: int) -> Lever:
    """The batch of this run, several times as large."""
    return _larger(f"batch-x{times}", f"Batch {times} times as large", lambda batch: batch * times)


def batch_of(size: int) -> Lever:
    """A batch of a given size."""
    return _larger(f"batch-{size}", f"Batch of {size}", lambda _: size)


def _larger(name: str, title: str, size: Callable[[int], int]) -> Lever:
    effect = "host and under-filled time are shared out over more items; weights are read once for all of them"
    cost = "each call takes longer; activations take more memory"
    return _lever(name, title, size, _SHARED, ("throughput",), effect, cost, ("latency", "memory"))


def _lever(
    name: str,
    title: str,
    size: Callable[[int], int],
    treats: tuple[Treats, ...],
    serves: tuple[Objective, ...],
    effect: str,
    cost: str,
    costs: tuple[Cost, ...],
) -> Lever:
    return Lever(
        name=name,
        title=title,
        treats=treats,
        serves=serves,
        changes=lambda situation: _sized(situation, size(situation.batch or 1)),
        condition=_CONDITION,
        effect=effect,
        cost=cost,
        costs=costs,
        unless=lambda situation: _fixed(situation) or _below_one(size(situation.batch or 1)),
        formula=lambda situation, trace, facts: batched(size(situation.batch or 1) / (situation.batch or 1))(
            situation, trace, facts
        ),
    )


def _fixed(situation: Situation) -> str | None:
    if situation.config.feeds is not None:
        return "The inputs are read from a file, which has their batch: give a file with another one."
    if situation.config.part is not None and situation.batch is None:
        return "The inputs of a part need not begin with the batch: give 'batch' of the whole model."
    if situation.batch is None:
        return "The inputs share no first dimension that could be a batch."
    if situation.config.shapes:
        return "Option 'shapes' fixes the inputs: give 'batch' instead of their first dimension."
    return None


def _below_one(size: int) -> str | None:
    return None if size >= 1 else "A batch of one item cannot be smaller."


def _sized(situation: Situation, size: int) -> Changes:
    """The batch under the name that the configuration gives it: a dimension that `dims` sizes goes before `batch`."""
    firsts = {given.shape[0] for given in situation.model.inputs if given.shape}
    named = {first: size for first in firsts if isinstance(first, str) and first in situation.config.dims}
    return {"dims": named} if named else {"batch": size}


HALF_BATCH: Final = _lever(
    "batch-half",
    "Half the batch",
    lambda batch: batch // 2,
    ("capacity",),
    ("memory", "latency"),
    "activations take half the memory, and a call takes less time",
    "host and under-filled time are shared out over fewer items",
    ("latency",),
)
