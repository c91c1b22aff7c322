"""A block: one fresh process that measured one configuration, the unit in which configurations are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BASE: Final = "base"
"""The arm that every variant is compared with."""


@dataclass(frozen=True)
class Block:
    """What one process measured. Blocks of one `round` ran one after the other and are compared with each other.

    arm: the name of the configuration. position: place in time among all blocks, from 0.
    starts_ns, durations_ns: int64[calls], measured calls alone (Unix epoch; warm-up left out); empty when it failed.
    calls_per_s: completed calls over the measured window, all callers together. batch: items in one call.
    steps_ns: cold start in order: import, libraries, session, binding, first call, and the first call of later shapes
    (`shape 2`, …). again_ns: the second call of each later shape.
    peak_device_bytes: above what was in use before the process began; None where NVML did not answer.
    peak_host_bytes: resident memory. outputs: `.npz` with the outputs of one call, by name.
    options: the provider options in force, as read back. disturbances: throttling, moving clocks, other processes.
    error: (class of `workbench.errors`, message) when the configuration could not be measured.
    """

    arm: str
    round: int
    position: int
    starts_ns: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    durations_ns: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    calls_per_s: float = float("nan")
    batch: int = 1
    warmup_calls: int = 0
    steps_ns: dict[str, int] = field(default_factory=dict)
    again_ns: dict[str, int] = field(default_factory=dict)
    peak_device_bytes: int | None = None
    peak_host_bytes: int | None = None
    outputs: Path | None = None
    providers: list[str] = field(default_factory=list)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    disturbances: list[str] = field(default_factory=list)
    error: tuple[str, str] | None = None
