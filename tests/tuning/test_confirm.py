"""Verdicts put to the test: on what an H200 recorded, and on that with one answer altered."""

from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.tuning.fake_executor import failed
from tests.tuning.recorded_rounds import RecordedRounds, as_if_made_with
from workbench import zoo
from workbench.diagnosis.interventional import EXCLUSION, TOLERANCE, InterventionalShare
from workbench.diagnosis.shares import CLASSES
from workbench.errors import ConfigError, OutOfMemoryError, RunFolderError
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import BASE
from workbench.tuning.confirm import CONFIRMED, NOT_CONFIRMABLE, REFUTED, UNDECIDED, confirm, judge, plan_for
from workbench.tuning.confirmation import ConfirmationRecord
from workbench.tuning.experiment import NOT_IN_FORCE
from workbench.tuning.rounds import Settings
from workbench.tuning.store import load_blocks

COMPUTE, BORDER = "compute-n4096-float32", "mlp-batch-4096"
BARE = ("manifest.json", "latency.parquet")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A file to stand for the recorded models, of which only the hash is looked at here."""
    return zoo.write("launch", tmp_path_factory.mktemp("model") / "model.onnx", nodes=2, width=8)


@pytest.fixture
def recorded_run(model, tmp_path):
    """A run of the labelled set as if it had been made with `model`; `changed` is laid over its manifest."""

    def made(name, keep=None, /, **changed):
        return RunFolder(as_if_made_with(model, name, tmp_path / "run", keep, **changed))

    return made


@pytest.fixture
def confirmed(recorded_run, tmp_path):
    """Confirm a cell of the labelled set with the rounds of its group."""

    def put_to_the_test(group, arm, rounds=3, cancelled=None, progress=lambda name, share: None, **executor):
        folder = tmp_path / "out"
        folder.mkdir()
        fake = RecordedRounds(group, **executor)
        run = recorded_run(f"{group}-{arm}")
        return confirm(run, folder, fake, Settings(rounds=rounds), cancelled=cancelled, progress=progress), fake

    return put_to_the_test


def test_a_recorded_compute_verdict_is_confirmed_by_tf32_and_what_is_kept_comes_back(confirmed, tmp_path):
    said = []
    found, fake = confirmed(COMPUTE, "device", progress=lambda name, share: said.append((name, share)))
    assert (found.verdict, found.outcome, found.confirmed) == ("compute", CONFIRMED, ["compute"])
    (step,) = found.steps
    (own,), (control,) = step.must_help, step.must_not
    slower = fake.medians_ns["tf32-off"] / fake.medians_ns["device"]
    assert own.ratio[0] == pytest.approx(slower, rel=0.01)
    assert own.ratio[1] < own.ratio[0] < own.ratio[2]
    assert (own.experiment.lever, control.experiment.lever) == ("tf32-off", "cuda-graph")
    assert (own.share.share, control.share.share) == ("compute", "launch")
    assert abs(step.found.value - step.found.traced) < 0.15
    assert found.why == step.why
    assert "tf32-off gives compute" in found.why
    folder = tmp_path / "out"
    assert sorted(path.name for path in folder.iterdir()) == ["compute", "confirmation.json"]
    assert sorted(path.name for path in (folder / "compute").iterdir()) == ["blocks.parquet", "runs"]
    assert {block.arm for block in load_blocks(folder / "compute")} == {BASE, "tf32-off", "cuda-graph"}
    assert len(RunFolder(folder / "compute" / "runs" / BASE).kernels) > 0
    assert ConfirmationRecord.load(folder) == found
    assert said[0] == ("compute: record base", 0.0)
    assert [share for _, share in said] == sorted(share for _, share in said)


def test_of_a_verdict_of_two_classes_both_are_put_to_the_test(confirmed):
    found, _ = confirmed("conv-border-pcie", "pinned", altered={"tf32-off": 4.5})
    assert (found.verdict, found.outcome) == ("compute+pcie", CONFIRMED)
    assert found.confirmed == [step.share for step in found.steps] == ["compute", "pcie"]
    tried = [[each.experiment.lever for each in step.must_help + step.must_not] for step in found.steps]
    assert tried == [["tf32-off", "io-binding-device"], ["io-binding-device", "tf32-off"]]


def test_of_a_verdict_of_two_classes_one_that_is_refuted_refutes_it(confirmed):
    found, _ = confirmed("conv-border-pcie", "pinned", altered={"tf32-off": 1.5})
    assert (found.outcome, found.confirmed) == (REFUTED, ["pcie"])
    assert found.why == found.steps[0].why


def test_a_larger_batch_is_judged_by_the_item(confirmed):
    found, _ = confirmed("encoder-batch-8", "device", altered={"batch-x4": 2.2, "tf32-off": 1.5})
    (step,) = found.steps
    (larger,) = step.must_help
    assert (step.share, larger.experiment.lever, larger.items) == ("launch", "batch-x4", 4)
    assert larger.experiment.comparison.ratio == pytest.approx(2.2, rel=0.01)
    assert larger.ratio[0] == pytest.approx(2.2 / 4, rel=0.01)
    assert larger.share.value == pytest.approx(4 / 3 * (1 - 2.2 / 4), rel=0.02)


def test_what_is_left_that_holds_more_than_its_class_confirms_nothing(confirmed):
    found, _ = confirmed("squeezenet-batch-16", "device", altered={"float16": 0.9})
    (step,) = found.steps  # a third of T is under-filled, which neither the graph nor TF32 takes away
    (helper,) = step.must_help
    assert (helper.experiment.lever, helper.share, step.found.lever) == ("float16", None, EXCLUSION)
    assert step.found.low > step.found.traced + TOLERANCE["memory"]
    assert (found.outcome, found.confirmed) == (UNDECIDED, [])


def test_a_class_whose_lever_gives_nothing_is_refuted_and_the_next_one_is_tried(confirmed):
    found, _ = confirmed(BORDER, "numpy", altered={"io-binding-device": 1.0})
    assert found.outcome == REFUTED
    by_class = {step.share: step for step in found.steps}
    assert by_class["pcie"].outcome == REFUTED
    assert by_class["pcie"].found.value == pytest.approx(0, abs=0.02)
    assert by_class["compute"].outcome == CONFIRMED
    assert found.confirmed == ["compute"]
    assert found.why == by_class["pcie"].why


def test_a_control_that_changes_t_where_it_must_not_leaves_the_verdict_undecided(confirmed):
    found, _ = confirmed(COMPUTE, "device", altered={"cuda-graph": 0.5})
    assert (found.outcome, found.confirmed) == (UNDECIDED, [])
    assert "cuda-graph, which must not help" in found.why
    assert len(found.steps) == 1


def test_a_lever_that_is_not_in_force_refutes_nothing(confirmed):
    found, _ = confirmed(COMPUTE, "device", altered={"tf32-off": 1.0}, in_force=False)
    (own,) = found.steps[0].must_help
    assert own.experiment.outcome == NOT_IN_FORCE
    assert (found.outcome, own.share, found.steps[0].found) == (UNDECIDED, None, None)
    assert "cuda.use_tf32: asked 0, read back 1" in found.why


def test_a_lever_whose_outputs_are_others_tells_nothing(confirmed):
    def outputs_of(job):
        return {"y": np.full((1, 8), 2.0 if job.arm == "tf32-off" else 1.0, np.float32)}

    found, _ = confirmed(COMPUTE, "device", outputs_of=outputs_of)
    assert (found.outcome, found.steps[0].found) == (UNDECIDED, None)
    assert "Beyond the tolerance" in found.why


def test_two_rounds_give_no_interval_and_so_no_outcome(confirmed):
    found, _ = confirmed(COMPUTE, "device", rounds=2)
    assert found.outcome == UNDECIDED
    assert "an interval takes 3" in found.why


def test_cancelling_keeps_what_was_measured(confirmed):
    stop = Event()
    found, _ = confirmed(
        BORDER, "numpy", cancelled=stop, progress=lambda name, share: stop.set() if "round" in name else None
    )
    assert found.cancelled
    assert len(found.steps) == 1
    assert found.outcome == UNDECIDED


def test_a_first_base_that_cannot_run_raises_its_own_error(confirmed):
    with pytest.raises(OutOfMemoryError, match="8 GB did not fit"):
        confirmed(COMPUTE, "device", fails={BASE: failed})


def test_a_later_base_that_cannot_run_costs_its_own_step_alone(recorded_run, tmp_path):
    class FailsLater(RecordedRounds):
        def _record(self, job, target, **how):
            return failed(job) if job.arm == BASE and self.recorded else super()._record(job, target, **how)

    fake = FailsLater(BORDER, altered={"io-binding-device": 1.0})
    found = confirm(recorded_run(f"{BORDER}-numpy"), tmp_path, fake, Settings(rounds=3))
    assert [step.outcome for step in found.steps] == [REFUTED, UNDECIDED]
    assert found.steps[1].why == "8 GB did not fit."
    assert (found.outcome, found.confirmed) == (REFUTED, [])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"device": {"kind": "cpu", "name": "a CPU"}}, "on a CPU"),
        ({"imported": {"files": []}}, "An imported capture"),
        ({"config": {"model": "gone.onnx"}}, "is not there"),
        ({"model": {"name": "launch", "sha256": "0" * 64}}, "is another one than the run was made with"),
    ],
)
def test_a_run_that_cannot_be_repeated_is_one_sentence(recorded_run, tmp_path, changed, said):
    run = recorded_run("launch-100-device", BARE, **changed)
    with pytest.raises(ConfigError, match=said):
        confirm(run, tmp_path, RecordedRounds("launch-100"), Settings(rounds=3))


def test_a_run_without_traced_shares_has_nothing_to_confirm(recorded_run, tmp_path):
    run = recorded_run("launch-100-device", BARE)
    with pytest.raises(ConfigError, match="no traced shares"):
        confirm(run, tmp_path, RecordedRounds("launch-100"), Settings(rounds=3))


def test_a_folder_without_a_confirmation_is_said(tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no readable confirmation\.json"):
        ConfirmationRecord.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "share", "test", "base"),
    [
        ("launch_device", "launch", "cuda-graph", {"binding": "device"}),
        ("launch_numpy", "launch", "cuda-graph", {"binding": "device"}),
        ("pcie_numpy", "pcie", "io-binding-device", {}),
        ("memory_device", "memory", None, {"binding": "device"}),
    ],
)
def test_what_puts_a_class_to_the_test(situation, name, share, test, base):
    plan = plan_for(share, situation(name))
    assert (plan.base, plan.test.lever if plan.test else None) == (base, test)
    assert share not in [each.share for each in plan.must_not]


def test_a_class_that_no_lever_can_reach_says_why_of_each(situation):
    found = replace(situation("launch_device"), cpu_nodes=("loop",))
    feeds = replace(found, config=found.config.changed(feeds="x.npz"))
    said = plan_for("launch", feeds)
    assert "cuda-graph: " in said
    assert "batch-x4: " in said


fractions = st.floats(-1, 2, allow_nan=False)


@st.composite
def shares(draw):
    low, value, high = sorted(draw(st.tuples(fractions, fractions, fractions)))
    return InterventionalShare(
        draw(st.sampled_from(CLASSES)),
        draw(st.sampled_from(["lever", EXCLUSION])),
        draw(st.floats(0, 1)),
        value,
        low,
        high,
        "",
    )


@given(shares(), st.lists(shares(), max_size=3))
def test_each_outcome_means_what_it_says(found, controls):
    outcome, why = judge(found, controls)
    least = found.traced - TOLERANCE[found.share]
    helped = [each for each in controls if each.low > each.traced + TOLERANCE[each.share]]
    assert (outcome == REFUTED) == (found.high < least)
    mixed = found.lever == EXCLUSION and found.low > found.traced + TOLERANCE[found.share]
    may_be = found.low > 0 and found.value >= least and not helped and not mixed
    assert (outcome == CONFIRMED) == (may_be and outcome != REFUTED)
    assert outcome != NOT_CONFIRMABLE
    assert f"{found.value:z.2f} of T" in why


@given(shares(), st.floats(0.01, 1))
def test_a_share_that_is_as_traced_is_confirmed_and_one_that_is_gone_refuted(found, traced):
    width = min(traced / 2, 0.01)
    exact = replace(found, traced=traced, value=traced, low=traced - width, high=traced + width)
    assert judge(exact, [])[0] == CONFIRMED
    assume(traced > TOLERANCE[found.share] + width)
    assert judge(replace(exact, value=0, low=-width, high=width), [])[0] == REFUTED


@given(shares(), st.lists(shares(), max_size=3))
def test_controls_only_ever_take_a_confirmation_away(found, controls):
    alone, held = judge(found, [])[0], judge(found, controls)[0]
    assert held == alone or (alone, held) == (CONFIRMED, UNDECIDED)
