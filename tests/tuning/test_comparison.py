"""Ratios, intervals, outcomes and disturbed rounds, on blocks whose numbers are known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigError
from workbench.tuning.blocks import Block
from workbench.tuning.comparison import (
    CONFIDENCE,
    NO_DIFFERENCE,
    NOT_MEASURED,
    SMALLEST_EFFECT,
    arm_order,
    compare,
    disturbed,
    interval,
    outlying,
)
from workbench.tuning.metric import cold_start, latency, memory, throughput


def blocks(arm, medians_ns, **others):
    return [
        Block(arm, at, 2 * at + (arm != "base"), durations_ns=np.full(100, median), **others)
        for at, median in enumerate(medians_ns)
    ]


STEADY = (1_000_000, 1_004_000, 997_000, 1_001_000, 999_000)


def scaled(factor):
    wobbles = (1.003, 0.998, 1.0, 1.002, 0.997)
    return [round(median * factor * wobble) for median, wobble in zip(STEADY, wobbles, strict=True)]


@pytest.mark.parametrize(("factor", "outcome"), [(0.8, "faster"), (1.25, "slower"), (1.0, NO_DIFFERENCE)])
def test_the_outcome_follows_the_ratio(factor, outcome):
    found = compare(blocks("base", STEADY), blocks("variant", scaled(factor)), latency())
    assert found.outcome == outcome
    assert found.low < factor < found.high
    assert found.ratio == pytest.approx(factor, rel=0.005)
    assert outcome in found.why


def test_a_small_effect_is_not_called_however_certain_it_is():
    found = compare(blocks("base", [1_000_000] * 8), blocks("variant", [995_000, 995_001] * 4), latency())
    assert found.high < 1
    assert found.outcome == NO_DIFFERENCE
    assert found.resolution == SMALLEST_EFFECT
    assert "not worth calling" in found.why


def test_the_resolution_is_what_would_have_been_called():
    noisy = [900_000, 1_100_000, 1_000_000, 1_050_000, 950_000, 1_020_000]
    base, variant = blocks("base", noisy), blocks("variant", noisy[::-1])
    found = compare(base, variant, latency())
    shift = (1 + found.resolution * 1.1) / found.ratio
    assert found.outcome == NO_DIFFERENCE
    assert compare(base, blocks("variant", [round(v * shift) for v in noisy[::-1]]), latency()).outcome == "slower"


def test_metrics_in_which_more_is_better_and_metrics_of_size():
    base = blocks("base", STEADY, batch=4, calls_per_s=100.0, peak_device_bytes=1 << 30)
    variant = blocks("variant", STEADY, batch=8, calls_per_s=100.0, peak_device_bytes=2 << 30)
    more = compare(base, variant, throughput())
    assert (more.outcome, more.ratio, more.base_value, more.unit) == ("faster", pytest.approx(2), 400, "items/s")
    assert compare(base, variant, memory()).outcome == "larger"
    assert compare(variant, base, memory()).outcome == "smaller"


def test_a_metric_without_spread_says_that_its_interval_has_no_width():
    found = compare(
        blocks("base", STEADY, peak_device_bytes=1000), blocks("variant", STEADY, peak_device_bytes=500), memory()
    )
    assert found.low == found.high == found.ratio == pytest.approx(0.5)
    assert "no width" in found.why
    assert compare(
        blocks("base", STEADY, peak_device_bytes=1000), blocks("variant", STEADY, peak_device_bytes=1000), memory()
    ).outcome == NO_DIFFERENCE


def test_two_rounds_show_nothing():
    found = compare(blocks("base", STEADY[:2]), blocks("variant", scaled(0.5)[:2]), latency())
    assert (found.outcome, found.low, found.high, found.resolution) == (NO_DIFFERENCE, None, None, None)
    assert found.ratio == pytest.approx(0.5, rel=0.01)
    assert "2 round(s)" in found.why


def test_failed_rounds_are_left_out_with_their_cause():
    failed = Block("variant", 5, 11, error=("OutOfMemoryError", "8 GB did not fit."))
    base = blocks("base", [*STEADY, 1_000_000])
    found = compare(base, [*blocks("variant", scaled(0.8)), failed], latency())
    assert found.outcome == "faster"
    assert sorted(found.ratios) == [0, 1, 2, 3, 4]
    assert any("Round 6" in note and "8 GB did not fit" in note for note in found.notes)
    alone = compare(base, [failed], latency())
    assert (alone.outcome, alone.ratio) == (NOT_MEASURED, None)
    assert "8 GB did not fit" in alone.why
    assert compare([], [], latency()).outcome == NOT_MEASURED


def test_without_any_round_the_end_is_the_cause_and_not_the_number_of_calls():
    found = compare([], [], latency())
    assert found.outcome == NOT_MEASURED
    assert "it ended before the first one" in found.why


def test_memory_that_nvml_did_not_give_is_not_measured():
    found = compare(blocks("base", STEADY), blocks("variant", STEADY), memory())
    assert (found.outcome, found.ratio, found.base_value) == (NOT_MEASURED, None, None)


def test_the_last_block_of_a_repeated_round_counts_whatever_it_shows():
    again = [
        Block("base", 1, 20, durations_ns=np.full(100, 1_000_000)),
        Block("variant", 1, 21, durations_ns=np.full(100, 2_000_000)),
    ]
    found = compare([*blocks("base", STEADY), again[0]], [again[1], *blocks("variant", STEADY)], latency())
    assert found.ratios[1] == pytest.approx(2)
    assert any("Round 2 was measured 2 times" in note for note in found.notes)


def test_disturbed_rounds_are_those_that_stand_apart_in_their_arm_or_say_so():
    base = blocks("base", [1_000_000, 1_010_000, 990_000, 1_500_000, 1_005_000])
    variant = blocks("variant", scaled(0.5))
    variant[0].disturbances.append("the clocks were throttled")
    found = disturbed([*base, *variant], latency())
    assert list(found) == [0, 3]
    assert "throttled" in found[0][0]
    assert "1.49 times" in found[3][0]


def test_a_large_ratio_alone_disturbs_no_round():
    base, variant = blocks("base", STEADY), blocks("variant", scaled(3))
    assert disturbed([*base, *variant], latency()) == {}


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_outliers_do_not_depend_on_the_unit_or_on_which_arm_it_is(values):
    found = outlying(np.array(values))
    assert np.array_equal(outlying(np.array(values)[::-1]), found[::-1])
    assert found.sum() <= len(values) / 2


def test_outliers_of_unknown_values():
    assert not outlying(np.full((2, 4), np.nan)).any()
    values = np.array([0.0, 0.001, np.nan, 0.5, -0.001])
    assert outlying(values).tolist() == [False, False, False, True, False]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-0.5, 0.5), min_size=3, max_size=5))
def test_the_interval_is_no_narrower_than_that_of_student_and_of_all_resamples(values):
    from scipy import stats  # slow to import

    data = np.array(values)
    low, high = interval(data, resamples=999)
    n = len(data)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * stats.sem(data)
    assert low <= data.mean() - half + 1e-12
    assert high >= data.mean() + half - 1e-12
    means = np.mean(list(itertools.product(values, repeat=n)), axis=1)
    tail = (1 - CONFIDENCE) / 2
    assert low <= np.quantile(means, tail) + 1e-12
    assert high >= np.quantile(means, 1 - tail) - 1e-12


def test_intervals_of_many_experiments_at_once_are_those_of_each():
    data = np.random.default_rng(3).normal(0, 0.02, (4, 6))
    low, high = interval(data, seed=5)
    for row, each_low, each_high in zip(data, low, high, strict=True):
        assert interval(row, seed=5) == (pytest.approx(each_low), pytest.approx(each_high))


def test_every_arm_has_the_same_mean_place_in_a_pair_of_rounds():
    arms = ["base", "a", "b", "c"]
    for seed, pair in itertools.product(range(5), range(4)):
        first, second = (arm_order(arms, 2 * pair + at, seed) for at in range(2))
        assert sorted(first) == sorted(arms)
        assert {first.index(arm) + second.index(arm) for arm in arms} == {len(arms) - 1}
    assert len({tuple(arm_order(arms, 2 * pair, 0)) for pair in range(20)}) > 5


def test_percentiles_need_calls_beyond_them():
    few, enough = (Block("base", 0, 0, durations_ns=np.arange(1, n + 1)) for n in (99, 100))
    assert np.isnan(latency(99).of(few))
    assert latency(99).of(enough) == pytest.approx(99.01)
    assert latency().of(few) == 50
    with pytest.raises(ConfigError, match="between 0 and 100"):
        latency(100)


def test_cold_start_is_the_sum_of_its_steps_or_one_of_them():
    block = Block("base", 0, 0, steps_ns={"import": 5, "session": 7})
    assert (cold_start().of(block), cold_start("session").of(block)) == (12, 7)
    assert np.isnan(cold_start("binding").of(block))
