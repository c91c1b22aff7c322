"""The scores against their definitions, written out over sets and one cell at a time."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.diagnosis.levers import ranked
from workbench.diagnosis.levers.catalogue import lever
from workbench.validation.ratios import FEWEST_FREEDOM, Timed, pooled_spread
from workbench.validation.score import calibration_error, confusion, is_inconclusive, is_right, judged, macro_f1, regret

CLASSES = ("compute", "memory", "pcie", "launch")
VERDICTS = (*CLASSES, "compute+memory", "inconclusive")
judgements = st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(VERDICTS)), min_size=1, max_size=30)
times_ns = st.floats(1e3, 1e9)
medians = st.lists(
    st.dictionaries(st.sampled_from("abcd"), st.dictionaries(st.integers(0, 4), times_ns, max_size=5), max_size=4),
    max_size=4,
)


@given(judgements)
def test_macro_f1_is_the_mean_harmonic_mean_of_precision_and_recall(pairs):
    found = []
    for name in {label for label, _ in pairs}:
        labelled = {at for at, (label, _) in enumerate(pairs) if label == name}
        named = {at for at, (_, verdict) in enumerate(pairs) if verdict == name}
        hits = labelled & named
        precision = Fraction(len(hits), len(named)) if named else Fraction(0)
        recall = Fraction(len(hits), len(labelled))
        found.append(2 * precision * recall / (precision + recall) if hits else Fraction(0))
    expected = float(sum(found) / len(found))
    assert macro_f1([label for label, _ in pairs], [verdict for _, verdict in pairs]) == pytest.approx(expected)


def test_macro_f1_of_nothing_is_unknown():
    assert math.isnan(macro_f1([], []))


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans()), min_size=1, max_size=40))
def test_calibration_error_is_the_mean_gap_of_ten_bins(given_):
    total = Fraction(0)
    for number in range(10):
        mine = [
            (Fraction(thousandths, 1000), right)
            for thousandths, right in given_
            if thousandths // 100 == number or (number == 9 and thousandths == 1000)
        ]
        if mine:
            accuracy = Fraction(sum(right for _, right in mine), len(mine))
            sure = sum(confidence for confidence, _ in mine) / len(mine)
            total += Fraction(len(mine), len(given_)) * abs(accuracy - sure)
    # Halves of the last digit decide the bin: thousandths are chosen so that their floats fall where they belong
    confidence = np.array([np.nextafter(thousandths / 1000, 2) for thousandths, _ in given_]).clip(max=1.0)
    right = np.array([float(right) for _, right in given_])
    assert calibration_error(confidence, right) == pytest.approx(float(total), abs=1e-9)


def test_a_class_is_right_alone_and_a_border_by_either_or_both():
    assert is_right("memory", ("memory",))
    assert not is_right("memory+pcie", ("memory",))
    assert not is_right("inconclusive", ("memory",))
    for verdict in ("memory", "pcie", "memory+pcie"):
        assert is_right(verdict, ("pcie", "memory"))
        assert not is_inconclusive(verdict, ("pcie", "memory"))
    assert not is_right("compute+memory", ("memory", "pcie"))
    assert is_inconclusive("compute+memory", ("memory", "pcie"))
    assert is_inconclusive("memory+pcie", ("memory",))
    assert is_inconclusive("inconclusive", ("memory", "pcie"))
    assert not is_inconclusive("compute", ("memory",))


@given(medians)
def test_the_pooled_spread_is_that_of_all_ratios_about_their_means(groups):
    squares, freedom = 0.0, 0
    for arms in groups:
        names = list(arms)
        for arm in names[1:]:
            rounds = set(arms[arm]) & set(arms[names[0]])
            logs = [math.log(arms[arm][number]) - math.log(arms[names[0]][number]) for number in rounds]
            if len(logs) > 1:
                mean = math.fsum(logs) / len(logs)
                squares += math.fsum((each - mean) ** 2 for each in logs)
                freedom += len(logs) - 1
    found = pooled_spread(groups)
    if freedom < FEWEST_FREEDOM:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(math.sqrt(squares / freedom), abs=1e-9)


@given(
    ours=st.dictionaries(st.integers(0, 4), times_ns),
    theirs=st.dictionaries(st.integers(0, 4), times_ns),
    spread=st.floats(0, 0.5),
)
def test_a_ratio_is_the_geometric_mean_of_the_rounds_that_both_have(ours, theirs, spread):
    found = Timed({"arm": ours, "base": theirs}, spread).ratio("arm", "base")
    rounds = sorted(ours.keys() & theirs.keys())
    if not rounds:
        assert found is None
        return
    expected = math.prod((ours[number] / theirs[number]) ** (1 / len(rounds)) for number in rounds)
    assert found.value == pytest.approx(expected)
    assert found.high / found.value == pytest.approx(math.exp(1.959964 * spread / math.sqrt(len(rounds))), rel=1e-6)
    assert found.value / found.low == pytest.approx(found.high / found.value)
    assert found.rounds == len(rounds)
    assert Timed({"arm": ours}, spread).ratio("arm", "base") is None


def timed_as(cell, **medians_ns):
    return replace(cell, timed=Timed({arm: {0: float(value)} for arm, value in medians_ns.items()}, 0.1))


def test_regret_is_what_the_best_measured_lever_gives_beyond_the_one_recommended_first(cells_of):
    cell = cells_of("squeezenet-batch-16")["numpy"]
    offered = [lever("io-binding-device"), lever("cuda-graph")]
    first = ranked(cell.situation, "latency", offered)[0].lever.name
    gains = {"io-binding-device": 0.2, "cuda-graph": 0.5}
    found = timed_as(cell, numpy=100, device=80, graph=50)
    assert regret(found) == ("cuda-graph", first, pytest.approx(0.5 - gains[first]))
    other = timed_as(cell, numpy=100, device=40, graph=90)
    assert regret(other) == (
        "io-binding-device",
        first,
        pytest.approx(0.6 - {"io-binding-device": 0.6}.get(first, 0.1)),
    )


def test_regret_leaves_out_arms_that_differ_from_the_cell_by_more_than_a_lever(cells_of):
    numpy = cells_of("squeezenet-batch-16")["numpy"]
    # the arms without TF32 and in float16 are on the device, too: their gain is not that of the lever alone
    assert regret(timed_as(numpy, **{"numpy": 100, "tf32-off": 10, "float16": 10})) is None
    device = cells_of("squeezenet-batch-16")["device"]
    assert regret(timed_as(device, **{"device": 100, "tf32-off": 10}))[0] == "tf32-off"


def test_no_gain_at_all_makes_doing_nothing_the_best(cells_of):
    device = cells_of("squeezenet-batch-16")["device"]
    best, first, lost = regret(timed_as(device, device=100, graph=130))
    assert (best, first) == ("none", "cuda-graph")
    assert lost == pytest.approx(0.3)


def test_judged_leaves_out_what_has_no_accepted_label_and_confusion_counts_the_rest(cells_of):
    cells = [
        cell
        for name in ("squeezenet-batch-16", "compute-n2048", "conv-border-pcie")
        for cell in cells_of(name).values()
    ]
    rows = judged(cells)
    assert set(rows["cell"]) == {"compute-n2048-device", "conv-border-pcie-pinned"}
    assert (rows.groupby("cell").size() == 6).all()
    table = confusion(rows[rows["sources"] == "everything"])
    assert table.loc["compute", "compute"] == 1
    assert table.loc["compute+pcie"].sum() == 1
    assert table.to_numpy().sum() == 2
