"""How often the comparison calls a difference that is not there, misses one that is, and how well it covers the truth.

Simulated blocks: log-normal process effects, drift, a random walk, and now and then a block that took far longer. The
rounds are ordered and repeated as an experiment does it. Prints the table of rates, with those of the median.

Then a base against itself for real: on this machine's CPU, as many times as `WORKBENCH_BENCH_ALARMS` says, and as it
was recorded on an H200. Prints how often a difference was called, with the interval of that rate.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats

from tests.conftest import DATA
from workbench.config import Budget, RunConfig
from workbench.tuning.blocks import BASE
from workbench.tuning.comparison import (
    CONFIDENCE,
    NO_DIFFERENCE,
    REPEATED_SHARE,
    arm_order,
    compare,
    differs,
    interval,
    outlying,
)
from workbench.tuning.executors import LocalExecutor
from workbench.tuning.metric import latency
from workbench.tuning.rounds import Arm, Settings, measure_interleaved
from workbench.tuning.store import load_blocks

ROUNDS = (4, 5, 6, 8, 10)
SIMULATIONS, RESAMPLES = 2000, 999
EFFECT = np.log(0.95)
AT_MOST_FALSE, AT_LEAST_COVERED, AT_LEAST_FOUND = 0.05, 0.96, 0.90

SAME = "same"
REGROUPED = 6  # rounds, the default of `workbench tune`
RECORDED = DATA / "h200-experiments" / "false_alarms"
EXPERIMENTS = int(os.environ.get("WORKBENCH_BENCH_ALARMS", "10"))
BLOCK = Budget(seconds=0.3, min_seconds=0.05, min_calls=20)
ENOUGH = 100  # experiments, of which the rate itself must not be above `AT_MOST_FALSE`


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


def judged(where, blocks_of_experiments):
    """Compare the two arms of each experiment, print the rate of calls, and hold it against what is allowed."""
    found = [
        compare(*([block for block in blocks if block.arm == arm] for arm in (BASE, SAME)), latency())
        for blocks in blocks_of_experiments
    ]
    assert all(each.low is not None for each in found), [each.why for each in found if each.low is None]
    calls = sum(each.outcome != NO_DIFFERENCE for each in found)
    rate = stats.binomtest(calls, len(found)).proportion_ci(0.95, method="exact")
    resolution = np.median([each.resolution for each in found])
    print(
        f"\n{where}: a difference was called in {calls} of {len(found)} experiments of a base against itself, "
        f"{calls / len(found):.1%} (Clopper-Pearson 95 %: {rate.low:.1%} to {rate.high:.1%}); "
        f"median resolution {resolution:.1%}"
    )
    for each in found:
        if each.outcome != NO_DIFFERENCE:
            print(f"  {each.why}")
    assert rate.low <= AT_MOST_FALSE
    assert len(found) < ENOUGH or calls <= AT_MOST_FALSE * len(found)


def test_a_base_against_itself_on_this_cpu(small_model, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    config = RunConfig(model=str(small_model), provider="cpu")
    experiments = []
    with LocalExecutor("cpu") as executor:
        for seed in range(EXPERIMENTS):
            settings = Settings(rounds=5, block=BLOCK, seed=seed, timeout_s=60)
            arms = [Arm(BASE, config), Arm(SAME, config)]
            experiments.append(measure_interleaved(arms, latency(), tmp_path / str(seed), executor, settings).blocks)
    judged("CPU", experiments)


@pytest.mark.skipif(not RECORDED.is_dir(), reason="no experiments of a base against itself were recorded")
def test_a_base_against_itself_as_recorded_on_an_h200():
    experiments = {folder.name: load_blocks(folder) for folder in sorted(RECORDED.iterdir())}
    judged("H200", list(experiments.values()))
    rounds = {}
    for name, blocks in experiments.items():
        for number in sorted({block.round for block in blocks}):
            last = {block.arm: block for block in blocks if block.round == number}  # in time: a repeat counts
            rounds.setdefault(name.rpartition("-")[0], []).append(last)
    judged(
        f"H200, the same rounds {REGROUPED} by {REGROUPED}",
        [
            [
                replace(block, round=at)
                for at, each in enumerate(kind[first : first + REGROUPED])
                for block in each.values()
            ]
            for kind in rounds.values()
            for first in range(0, len(kind) - REGROUPED + 1, REGROUPED)
        ],
    )
