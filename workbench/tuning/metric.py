"""What configurations are compared in: one number per block, with its unit and its better direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.tuning.blocks import Block

_NOT_MEASURED: Final = float("nan")


@dataclass(frozen=True)
class Metric:
    """A number that a block yields, positive, NaN where the block did not measure it.

    name: as users write it (`latency:p99`). unit: SI, of the number. of: the number of one block.
    better, worse: what a variant is called whose number moved to the better or to the worse side. calls_needed: calls
    that a block has to time.
    """

    name: str
    unit: str
    of: Callable[[Block], float]
    smaller_is_better: bool
    better: str = "faster"
    worse: str = "slower"
    calls_needed: int = 1

    def values(self, blocks: Sequence[Block]) -> NDArray[np.float64]:
        """The number of each block: float64[blocks]."""
        return np.array([self.of(block) for block in blocks], np.float64)


def latency(percentile: float = 50) -> Metric:
    """Duration of a call in nanoseconds at a percentile, 0 < percentile < 100 (Hyndman and Fan 1996, definition 7).

    NaN where fewer than one call is expected beyond the percentile: P99 takes 100 calls. Raises `ConfigError`.
    """
    if not 0 < percentile < 100:
        raise ConfigError(f"A percentile of latency lies between 0 and 100, not at {percentile:g}: give 50 or 99.")
    calls_needed = math.ceil(round(100 / min(percentile, 100 - percentile), 6))

    def of(block: Block) -> float:
        if block.error or block.durations_ns.size < calls_needed:
            return _NOT_MEASURED
        return float(np.percentile(block.durations_ns, percentile))

    return Metric(f"latency:p{percentile:g}", "ns", of, smaller_is_better=True, calls_needed=calls_needed)


def throughput() -> Metric:
    """Items per second over the measured window, all callers together."""

    def of(block: Block) -> float:
        return _NOT_MEASURED if block.error else block.calls_per_s * block.batch

    return Metric("throughput", "items/s", of, smaller_is_better=False)


def memory(where: Literal["device", "host"] = "device") -> Metric:
    """Peak bytes: of the device above what was in use before the process began, or resident in the host."""

    def of(block: Block) -> float:
        peak = block.peak_device_bytes if where == "device" else block.peak_host_bytes
        return _NOT_MEASURED if block.error or peak is None else float(peak)

    name = "memory" if where == "device" else "host-memory"
    return Metric(name, "bytes", of, smaller_is_better=True, better="smaller", worse="larger")


def cold_start(step: str | None = None) -> Metric:
    """Nanoseconds of one step of the cold start, or of all that the block timed, later shapes included."""

    def of(block: Block) -> float:
        steps = block.steps_ns if step is None else {name: ns for name, ns in block.steps_ns.items() if name == step}
        return _NOT_MEASURED if block.error or not steps else float(sum(steps.values()))

    return Metric("cold-start" if step is None else f"cold-start:{step}", "ns", of, smaller_is_better=True)
