"""All levers by name, and those whose name carries a number."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Final

from workbench.config.strict import nearest
from workbench.diagnosis.levers import capacity, cold_start, compute, launch, memory, pcie
from workbench.diagnosis.levers.batches import batch_of, larger_batch
from workbench.diagnosis.levers.entry import Lever
from workbench.errors import ConfigError

# Levers with a number of the user's own, beside those of the catalogue: any number up to nine digits makes sense here,
# and the configuration refuses what cannot be.
_NUMBERED: Final[dict[str, Callable[[int], Lever]]] = {
    r"batch-x(\d{1,9})": larger_batch,
    r"batch-(\d{1,9})": batch_of,
    r"concurrency-(\d{1,9})": launch.concurrency,
    r"sessions-(\d{1,9})": launch.sessions,
    r"streams-(\d{1,9})": pcie.streams,
    r"threads-(\d{1,9})": launch.threads,
    r"gpu-mem-limit-(\d{1,9})gib": capacity.memory_limit,
}


@cache
def levers() -> tuple[Lever, ...]:
    """Every lever, by the class that it treats first. Those that take a number stand with the usual ones."""
    parts = (launch, pcie, memory, compute, cold_start, capacity)
    return tuple(each for part in parts for each in part.LEVERS)


def lever(name: str) -> Lever:
    """The lever of that name; `batch-48`, `concurrency-6` and the like take any number.

    Raises `ConfigError` that names the nearest one.
    """
    known = {each.name: each for each in levers()}
    if name in known:
        return known[name]
    for pattern, made in _NUMBERED.items():
        found = re.fullmatch(pattern, name, re.ASCII)
        if found is not None and int(found[1]) > 0:
            return made(int(found[1]))
    raise ConfigError(f"Unknown lever {name!r}: {nearest(name, known)}")
