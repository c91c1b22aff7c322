"""Experiments recorded on an H200, worked out again from what they kept: predictions from the run of the base, and
comparisons from the blocks."""

import functools
import json

import pytest

from workbench.api.tuning import Tuning
from workbench.diagnosis.levers import lever, situation_of
from workbench.diagnosis.prediction import predict
from workbench.tuning.blocks import BASE
from workbench.tuning.comparison import compare
from workbench.tuning.metric import latency

# families made for one lever
MADE_FOR = [
    ("launch", "cuda-graph"),
    ("compute", "io-binding-device"),
    ("compute", "io-binding-pinned"),
    ("memory", "io-binding-device"),
    ("memory", "io-binding-pinned"),
    ("pcie", "io-binding-device"),
    ("pcie", "io-binding-pinned"),
]
ALL = ("launch", "decoder", "compute", "memory", "pcie", "resnet50-b1")


@pytest.fixture(scope="module")
def tuning(h200_experiments):
    return functools.cache(lambda name: Tuning(h200_experiments / name))


@pytest.fixture(scope="module")
def predicted(tuning):
    situation = functools.cache(lambda name: situation_of(tuning(name).run()))
    return lambda name, variant: predict(lever(variant), situation(name))


@pytest.fixture(scope="module")
def compared(tuning):
    def again(name, variant):
        arms = ([block for block in tuning(name).blocks if block.arm == arm] for arm in (BASE, variant))
        return compare(*arms, latency(), seed=tuning(name).record.seed)

    return again


@pytest.mark.parametrize(("name", "variant"), MADE_FOR)
def test_the_predicted_gain_is_within_15_percent_of_the_measured_one(predicted, compared, name, variant):
    measured = compared(name, variant)
    assert measured.outcome == "faster"
    assert predicted(name, variant).gain == pytest.approx(1 - measured.ratio, rel=0.15)


@pytest.mark.parametrize("name", ALL)
def test_what_was_written_down_comes_out_again(tuning, predicted, compared, name):
    for each in tuning(name).experiments:
        assert compared(name, each.lever) == each.comparison
        assert predicted(name, each.lever) == each.prediction


@pytest.mark.parametrize("name", ALL)
def test_every_round_measured_every_arm_in_a_process_of_its_own(tuning, name):
    found = tuning(name)
    arms = {BASE, *(each.lever for each in found.experiments)}
    assert {(block.arm, block.round) for block in found.blocks} == {
        (arm, number) for arm in arms for number in range(found.record.rounds)
    }
    assert len(found.blocks) == len(arms) * (found.record.rounds + len(found.record.repeated))
    assert [block.position for block in found.blocks] == list(range(len(found.blocks)))
    ends = [block.starts_ns[-1] + block.durations_ns[-1] for block in found.blocks]
    assert all(block.starts_ns[0] > end for end, block in zip(ends, found.blocks[1:], strict=False))


@pytest.mark.parametrize("name", ALL)
def test_the_best_is_the_fastest_improvement(tuning, name):
    record = tuning(name).record
    improved = {each.lever: each.comparison.variant_value for each in record.experiments if each.improvement}
    assert record.best == min(improved, key=improved.get)


def test_wrong_outputs_are_found_on_the_gpu(tuning):
    fused = next(each for each in tuning("resnet50-b1").experiments if each.lever == "fuse-conv-bias")
    assert (fused.outcome, fused.improvement) == ("outputs changed", False)
    assert "NaN" in fused.parity.why


@pytest.mark.parametrize("name", ALL)
def test_what_is_kept_is_strict_json(tuning, name):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    json.loads((tuning(name).folder / "tuning.json").read_text(), parse_constant=refuse)
