"""How sure the verdict is: in how many of many perturbed recomputations it stays the same.

What is perturbed is what is uncertain: which calls were seen (bootstrap), the bare median (its interval), how far the
measured ceilings hold for other shapes, how sharp the rule for under-filled kernels is, and where the time that could
not be classed belongs. A missing source leaves more time unclassed or wider ceilings, so the confidence falls with it.
The widths are named in `workbench.analysis.thresholds`; the figure is not yet calibrated on labelled runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.thresholds import (
    CEILING_SIGMA,
    CEILING_SIGMA_CONTRADICTED,
    CEILING_SIGMA_CORROBORATED,
    CONFIDENCE_DRAWS,
    UNDERFILLED_SIGMA,
)
from workbench.diagnosis.counters import Corroboration
from workbench.diagnosis.shares import CLASSES, Pieces
from workbench.diagnosis.verdict import labels
from workbench.runs.manifest import LatencyInfo

MOST_SAMPLED: Final = 100
"""Calls in one draw; fewer than there are widens what is drawn, and bounds memory for captures of many calls."""

Draws = NDArray[np.float64]
Remake = Callable[[Draws, Draws, Draws, Draws], Pieces]
"""Pieces from draws of the latency (float64[draws]), of the calls (float64[draws, calls, columns]), of the ceiling
shift, and of the fraction of under-filled time that is classed by its bounds instead (float64[draws] both)."""


def ceiling_sigma(verdict: str, corroborations: list[Corroboration]) -> float:
    """Width of the ceilings' uncertainty: narrow when the verdict's counter agrees, wide when it contradicts."""
    answers = [c.agrees for c in corroborations if c.supports == verdict and c.agrees is not None]
    if not answers:
        return CEILING_SIGMA
    return CEILING_SIGMA_CORROBORATED if all(answers) else CEILING_SIGMA_CONTRADICTED


class Stretch(NamedTuple):
    """Idle time of a call that a profiler may have made: `idle_ns` is `most` times what it would be, at worst."""

    idle_ns: float
    most: float


def confidence(
    shares: dict[str, float],
    remake: Remake,
    calls: NDArray[np.float64],
    bare: LatencyInfo,
    sigma: float,
    stretch: Stretch,
) -> float:
    """Fraction of draws that give the verdict of `shares`, 0..1; deterministic (seed 0).

    calls: float64[calls, columns] of the traced pass. sigma: standard deviation of the log of the ceilings' ratio.
    stretch: the idle time of each draw is divided by a factor uniform in [1, most].
    Agreement is estimated by Laplace's rule of succession, (same + 1) / (draws + 2), so that it never reaches 0 or 1.
    """
    rng = np.random.default_rng(0)
    spread = (bare.ci_high_ns - bare.ci_low_ns) / (2 * 1.96)
    latency = bare.median_ns + spread * rng.standard_normal(CONFIDENCE_DRAWS)
    sampled = calls[rng.integers(0, len(calls), (CONFIDENCE_DRAWS, min(len(calls), MOST_SAMPLED)))]
    shift = sigma * rng.standard_normal(CONFIDENCE_DRAWS)
    moved = np.minimum(UNDERFILLED_SIGMA * np.abs(rng.standard_normal(CONFIDENCE_DRAWS)), 1.0)
    owner = rng.integers(0, len(CLASSES), CONFIDENCE_DRAWS)  # unclassed time may belong to any class
    latency = latency - stretch.idle_ns * (1 - 1 / rng.uniform(1.0, stretch.most, CONFIDENCE_DRAWS))
    latency = np.maximum(latency, 1.0)
    drawn = remake(latency, sampled, shift, moved).shares()
    placed = {name: drawn[name] + np.where(owner == index, drawn["other"], 0.0) for index, name in enumerate(CLASSES)}
    same = int((labels(placed) == labels(shares)[0]).sum())
    return (same + 1) / (CONFIDENCE_DRAWS + 2)
