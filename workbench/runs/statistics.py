"""The median of a series of times, how well it is known, and where its warm-up ends."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

SPIKE_QUANTILE: Final = 0.95  # a lone slow call says nothing about warm-up: values above are clipped to this quantile

class Interval(NamedTuple):
    """A median and its 95 % confidence interval, in nanoseconds."""

    median: float
    low: float
    high: float

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width as a fraction of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else math.inf


def median_interval(durations_ns: NDArray[Any]) -> Interval:
    """Median with the distribution-free 95 % interval from binomial order statistics, normal approximation.

    Source: W. J. Conover, Practical Nonparametric Statistics, confidence interval for a quantile (p = 1/2). With
    fewer than 6 values no interval reaches 95 %, so the whole range is given.
    """
    ordered = np.sort(durations_ns)
    n = len(ordered)
    median = float(np.median(ordered))
    if n < 6:
        return Interval(median, float(ordered[0]), float(ordered[-1]))
    half = 1.96 * math.sqrt(n) / 2
    low = max(math.floor(n / 2 - half) - 1, 0)
    high = min(math.ceil(n / 2 + half), n - 1)
    return Interval(median, float(ordered[low]), float(ordered[high]))


def warmup_length(durations_ns: NDArray[Any]) -> int:
    """How many calls at the start to leave out: the truncation that minimises the standard error of the rest.

    MSER, marginal standard error rule (K. P. White, 1997, Simulation 69(6)): argmin over d of var(x[d:]) / (n - d),
    d at most n / 2. Spikes are clipped at a quantile first, because the rule works on means.
    durations_ns: int64[n]. The first call is always left out (cold).
    """
    n = len(durations_ns)
    if n < 3:
        return min(1, n - 1) if n else 0
    values = np.minimum(durations_ns, np.quantile(durations_ns, SPIKE_QUANTILE)).astype(np.float64)
    values -= values.mean()
    counts = np.arange(n, 0, -1)
    tail_sum = np.cumsum(values[::-1])[::-1]
    tail_squares = np.cumsum((values**2)[::-1])[::-1]
    error = np.maximum(tail_squares - tail_sum**2 / counts, 0.0) / counts.astype(np.float64) ** 2
    return int(1 + np.argmin(error[1 : n // 2 + 1]))
