"""How often the comparison calls a difference that is not there, misses one that is, and how well it covers the truth.

Simulated blocks: log-normal process effects, drift, a random walk, and now and then a block that took far longer. The
rounds are ordered and repeated as an experiment does it. Prints the table of rates, with those of the median.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from workbench.tuning.comparison import CONFIDENCE, REPEATED_SHARE, arm_order, differs, interval, outlying

ROUNDS = (4, 5, 6, 8, 10)
SIMULATIONS, RESAMPLES = 2000, 999
EFFECT = np.log(0.95)
AT_MOST_FALSE, AT_LEAST_COVERED, AT_LEAST_FOUND = 0.05, 0.96, 0.90


class Noise(NamedTuple):
    """Standard deviation of a block's log value, drift and random walk per block, chance of a disturbed block."""

    process: float
    drift: float = 0.0
    walk: float = 0.0
    disturbed: float = 0.0


SCENARIOS = {
    "1 % per process": Noise(0.01),
    "3 % per process": Noise(0.03),
    "drift of 1 % a block": Noise(0.01, drift=0.01),
    "random walk of 1 % a block": Noise(0.01, walk=0.01),
    "5 % of blocks 20 % slower": Noise(0.01, disturbed=0.05),
    "the same over 3 %": Noise(0.03, disturbed=0.05),
}


def log_values(rng, noise, rounds):
    """float64[simulations, rounds, 2 arms], without any effect."""
    order = np.array(
        [[arm_order(["base", "variant"], at, seed).index("base") for at in range(rounds)] for seed in range(200)]
    )
    first = order[rng.integers(0, len(order), SIMULATIONS)]
    place = 2 * np.arange(rounds)[:, None] + np.stack([first, 1 - first], axis=-1)
    walk = rng.normal(0, noise.walk, (SIMULATIONS, 2 * rounds)).cumsum(axis=1)
    return fresh(rng, noise, place.shape) + noise.drift * place + walk[np.arange(SIMULATIONS)[:, None, None], place]


def fresh(rng, noise, shape):
    late = rng.random(shape) < noise.disturbed
    return rng.normal(0, noise.process, shape) + late * rng.exponential(0.2, shape)


def with_repeats(rng, noise, values):
    """Repeat the first outlying rounds, as many as are allowed, both arms of each, where drift and walk have led."""
    apart = outlying(values.swapaxes(1, 2)).any(axis=1)
    repeated = apart & (apart.cumsum(axis=1) <= int(values.shape[1] * REPEATED_SHARE))
    led_to = np.median(values, axis=(1, 2), keepdims=True)
    return np.where(repeated[..., None], led_to + fresh(rng, noise, values.shape), values)


def rates(ratios, ends, middle):
    """Shares of the simulations: called without effect, interval holds the truth, effect called in its direction."""
    low, high = ends
    found = differs(middle + EFFECT, low + EFFECT, high + EFFECT) & (middle + EFFECT < 0)
    return differs(middle, low, high).mean(), ((low <= 0) & (high >= 0)).mean(), found.mean()


def of_median(ratios, rng):
    """The alternative that was not taken: percentile bootstrap of the median, its level expanded in the same way."""
    rounds = ratios.shape[1]
    tail = stats.norm.cdf(-np.sqrt(rounds / (rounds - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, rounds - 1))
    picks = rng.integers(0, rounds, (RESAMPLES, rounds))
    parts = [
        np.quantile(np.median(part[:, picks], axis=-1), [tail, 1 - tail], axis=1) for part in np.array_split(ratios, 20)
    ]
    return np.concatenate(parts, axis=1)


@pytest.fixture(scope="module")
def table():
    """(scenario, rounds) → rates of the geometric mean and of the median."""
    rng = np.random.default_rng(0)
    found = {}
    for name, noise in SCENARIOS.items():
        for rounds in ROUNDS:
            values = with_repeats(rng, noise, log_values(rng, noise, rounds))
            ratios = values[..., 1] - values[..., 0]
            mean = rates(ratios, interval(ratios, resamples=RESAMPLES), ratios.mean(axis=1))
            median = rates(ratios, of_median(ratios, rng), np.median(ratios, axis=1))
            found[name, rounds] = mean, median
    print(f"\n{'':28}rounds   geometric mean: false, covered, 5 % found     median: false, covered, 5 % found")
    for (name, rounds), both in found.items():
        mean, median = ("".join(f"{share:10.1%}" for share in each) for each in both)
        print(f"{name:28}{rounds:6d}{mean:>40}{median:>43}")
    return {key: mean for key, (mean, _) in found.items()}


def test_equal_configurations_are_called_different_in_at_most_one_case_of_twenty(table):
    assert max(false for false, _, _ in table.values()) <= AT_MOST_FALSE


def test_intervals_hold_the_truth(table):
    assert min(covered for _, covered, _ in table.values()) >= AT_LEAST_COVERED


def test_five_percent_are_found_in_five_rounds_with_one_percent_of_noise(table):
    assert table["1 % per process", 5][2] >= AT_LEAST_FOUND
