"""Shares from outside: made by the definition of each class, and got back from what its lever would measure."""

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.diagnosis.interventional import (
    EXCLUSION,
    INTERVENTIONS,
    MORE_ITEMS,
    MOST_OVER_FLOOR,
    TOLERANCE,
    InterventionalShare,
    by_exclusion,
    interventions,
    removable_launch,
    share_of,
    tf32_ratio,
)
from workbench.diagnosis.prediction.formula import Unpredictable
from workbench.diagnosis.shares import CLASSES

BY_LEVER = {each.lever: each for each in INTERVENTIONS}
fractions = st.floats(0, 1)


def with_peaks(situation, times):
    peaks = {"tensor:tf32": times * 5e13, "fp:float32": 5e13}
    return replace(situation, ceilings=situation.ceilings.model_copy(update={"flops_per_s": peaks}))


def calls(lever, share, peak_ratio):
    """(T, T') of a call of 1 s whose class holds `share`, by what the lever does to a call."""
    if lever == "tf32-off":
        return 1.0, (1 - share) + share * peak_ratio
    if lever == f"batch-x{MORE_ITEMS}":
        return 1.0, share + (1 - share) * MORE_ITEMS
    return 1.0, 1 - share


@given(share=fractions, peak_ratio=st.floats(1.5, 20), spread=st.floats(0, 0.2))
@pytest.mark.parametrize("lever", list(BY_LEVER))
def test_the_share_that_a_call_was_made_of_comes_back(situation, lever, share, peak_ratio, spread):
    intervention, given_ = BY_LEVER[lever], with_peaks(situation("compute_device"), peak_ratio)
    before, after = calls(lever, share, peak_ratio)
    ratio = after / before / intervention.items
    found = share_of(intervention, given_, ratio, ratio * (1 - spread), ratio * (1 + spread))
    assert found.value == pytest.approx(share, abs=1e-9)
    assert found.low <= found.value <= found.high
    assert found.high - found.low == pytest.approx(abs(intervention.factor(given_)) * 2 * spread * ratio, abs=1e-9)
    assert (found.share, found.lever) == (intervention.share, lever)


def test_every_class_but_memory_has_an_intervention_of_its_own():
    assert {each.share for each in INTERVENTIONS} == set(CLASSES) - {"memory"}
    assert {each.made().name for each in INTERVENTIONS} == set(BY_LEVER)


def test_for_launch_the_cause_that_the_trace_blames_decides_the_lever(situation):
    host = situation("launch_device")
    pieces = host.diagnosis.pieces
    under_filled = replace(pieces, host=0.0, launch_latency=0.0, under_filled=pieces.latency_ns)
    filled = replace(host, diagnosis=replace(host.diagnosis, pieces=under_filled))
    assert [each.lever for each in interventions("launch", host)] == ["cuda-graph", "batch-x4"]
    assert [each.lever for each in interventions("launch", filled)] == ["batch-x4", "cuda-graph"]


@given(gap_ns=st.floats(0, 5_000), kernels=st.integers(1, 500))
def test_a_replayed_graph_keeps_a_gap_between_each_two_kernels(situation, gap_ns, kernels):
    given_ = situation("launch_device")
    given_ = replace(
        given_,
        ceilings=given_.ceilings.model_copy(update={"replay_gap_ns": gap_ns}),
        trace=replace(given_.trace, pieces=float(kernels)),
    )
    pieces = given_.diagnosis.pieces
    gone_ns = max(pieces.host + pieces.launch_latency - gap_ns * (kernels - 1), 0)
    assert removable_launch(given_) == pytest.approx(gone_ns / pieces.latency_ns)


def test_what_was_not_measured_gives_no_share(situation):
    given_ = situation("launch_device")
    blind = replace(given_, ceilings=given_.ceilings.model_copy(update={"replay_gap_ns": None, "flops_per_s": {}}))
    with pytest.raises(Unpredictable, match="gap between kernels"):
        share_of(BY_LEVER["cuda-graph"], blind, 0.5, 0.4, 0.6)
    with pytest.raises(Unpredictable, match="with and without TF32"):
        tf32_ratio(blind)
    with pytest.raises(Unpredictable, match="no pieces of T"):
        share_of(BY_LEVER["io-binding-device"], replace(given_, diagnosis=None), 0.5, 0.4, 0.6)


@st.composite
def others(draw):
    """Shares of pcie, launch and compute with their half widths, at most 1 together."""
    parts = draw(st.lists(st.floats(0, 1 / 3), min_size=3, max_size=3))
    halves = draw(st.lists(st.floats(0, 0.2), min_size=3, max_size=3))
    return [
        InterventionalShare(name, "lever", 0.0, part, part - half, part + half, "")
        for name, part, half in zip(("pcie", "launch", "compute"), parts, halves, strict=True)
    ]


@given(others())
def test_what_is_left_completes_the_others_to_one_and_inherits_their_errors(situation, given_shares):
    found = by_exclusion("memory", situation("memory_device"), given_shares)
    assert found.value + sum(each.value for each in given_shares) == pytest.approx(1)
    half = sum(((each.high - each.low) / 2) ** 2 for each in given_shares) ** 0.5
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half))
    assert (found.share, found.lever) == ("memory", EXCLUSION)
    assert found.traced == pytest.approx(float(situation("memory_device").diagnosis.pieces.shares()["memory"]))


@given(others(), fractions)
def test_a_class_without_a_lever_takes_its_floor_and_may_take_a_few_times_that(situation, given_shares, floor):
    *tested, _ = given_shares
    found = situation("memory_device")
    latency_ns = found.diagnosis.latency.median_ns
    nodes = pd.DataFrame({"compute_bound_ns": [floor * latency_ns / 4] * 4})
    diagnosis = replace(found.diagnosis, nodes=replace(found.diagnosis.nodes, nodes=nodes))
    left = by_exclusion("memory", replace(found, diagnosis=diagnosis), tested)
    assert left.value == pytest.approx(1 - floor - sum(each.value for each in tested))
    half = left.high - left.value
    assert left.value - left.low == pytest.approx(half + (MOST_OVER_FLOOR - 1) * floor)


def test_copies_count_as_none_only_where_the_buffers_are_on_the_device(situation):
    launch = InterventionalShare("launch", "lever", 0.1, 0.1, 0.1, 0.1, "")
    assert by_exclusion("memory", situation("memory_device"), [launch]).value <= 0.9
    with pytest.raises(Unpredictable, match="share of pcie"):
        by_exclusion("memory", situation("memory_numpy"), [launch])
    with pytest.raises(Unpredictable, match="share of launch"):
        by_exclusion("memory", situation("memory_device"), [])


@pytest.mark.parametrize("share", CLASSES)
def test_traced_and_interventional_agree_within_the_tolerance_beyond_the_interval(share):
    reach = 0.02 + TOLERANCE[share]
    for traced, agrees in ((0.5, True), (0.5 - 0.99 * reach, True), (0.5 + 1.01 * reach, False)):
        assert InterventionalShare(share, "lever", traced, 0.5, 0.48, 0.52, "").agrees is agrees
