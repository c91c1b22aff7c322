"""How long one arm of a group takes against another, with what processes of one configuration differ by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.tuning.blocks import Block
from workbench.tuning.metric import latency

FEWEST_FREEDOM: Final = 3
"""Degrees of freedom below which a spread of one's own says less than that of all pairs."""
LEVEL: Final = 0.95


class Ratio(NamedTuple):
    """Time of an arm over that of another: geometric mean over `rounds`, with its 95 % interval."""

    value: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True)
class Timed:
    """The blocks of a group, by arm and round, as medians in nanoseconds. spread: of `pooled_spread`."""

    medians_ns: Mapping[str, Mapping[int, float]]
    spread: float

    def ratio(self, arm: str, base: str) -> Ratio | None:
        """`arm` over `base` in the rounds that have both; None where there are none.

        The interval takes the spread of all pairs of the set, so that few rounds of one pair do not decide its own.
        """
        logs = _log_ratios(self.medians_ns, arm, base)
        if not len(logs):
            return None
        middle, half = float(logs.mean()), NormalDist().inv_cdf((1 + LEVEL) / 2) * self.spread / math.sqrt(len(logs))
        return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half), len(logs))

    def median_ns(self, arm: str) -> float:
        """Median over the rounds; NaN where the arm was not measured."""
        return float(np.median(list(self.medians_ns.get(arm, {}).values()) or [math.nan]))


def medians_ns(blocks: Iterable[Block]) -> dict[str, dict[int, float]]:
    """Arm → round → median latency, of the blocks that were measured."""
    found: dict[str, dict[int, float]] = {}
    for block in blocks:
        if block.error is None and math.isfinite(value := latency().of(block)):
            found.setdefault(block.arm, {})[block.round] = value
    return found


def pooled_spread(groups: Sequence[Mapping[str, Mapping[int, float]]]) -> float:
    """Standard deviation of the logarithm of a ratio within one round, pooled over all pairs of arms with the first.

    NaN with fewer than `FEWEST_FREEDOM` degrees of freedom.
    """
    squares, freedom = 0.0, 0
    for medians in groups:
        base, *others = medians or [""]
        for arm in others:
            logs = _log_ratios(medians, arm, base)
            if len(logs) > 1:
                squares += float(((logs - logs.mean()) ** 2).sum())
                freedom += len(logs) - 1
    return math.sqrt(squares / freedom) if freedom >= FEWEST_FREEDOM else math.nan


def _log_ratios(medians: Mapping[str, Mapping[int, float]], arm: str, base: str) -> NDArray[np.float64]:
    ours, theirs = medians.get(arm, {}), medians.get(base, {})
    return np.log([ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys())])
