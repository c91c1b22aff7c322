"""The lab without a browser: replays of recorded experiments, and its wiring over benches that answer or fail."""

import threading
import time
from dataclasses import replace
from threading import Event

import numpy as np
import pytest

pytest.importorskip("ipywidgets")

from workbench.api.run import samples
from workbench.api.tuning import Tuning, recorded
from workbench.api.widgets import lab
from workbench.config import RunConfig
from workbench.diagnosis.levers import held_back_by, levers
from workbench.diagnosis.prediction import predict
from workbench.errors import ConfigError, WorkerError
from workbench.tuning.blocks import BASE
from workbench.tuning.experiment import OUTPUTS_CHANGED
from workbench.widgets.lab import Lab
from workbench.widgets.lab_bench import Choice, Measured
from workbench.widgets.lab_history import best_so_far
from workbench.widgets.lab_job import STOPPED, Job
from workbench.widgets.lab_levers import offers, said_once
from workbench.widgets.lab_replay import ReplayBench

SHIPPED = ["cold", "launch", "pcie", "resnet50-b32", "streams"]
MOST_BYTES = 1_500_000


def answered(bench, levers, objective="latency", limits=(), rounds=None):
    choice = Choice(tuple(levers), objective, limits, rounds or bench.rounds).checked()
    return bench.measure(choice, lambda name, share: None, Event()).record


@pytest.fixture(scope="module")
def resnet():
    return ReplayBench(recorded()["resnet50-b32"])


def test_what_ships_is_small_and_is_what_was_recorded(h200_experiments):
    folder = next(iter(recorded().values())).folder.parent
    assert list(recorded()) == SHIPPED
    files = [file for file in folder.rglob("*") if file.is_file() and "derived" not in file.parts]  # that is a cache
    assert sum(file.stat().st_size for file in files) < MOST_BYTES
    for name, shipped in recorded().items():
        source = Tuning(h200_experiments / name)
        assert shipped.record == source.record
        assert shipped.run().kernels.equals(source.run().kernels)
        for ours, theirs in zip(shipped.blocks, source.blocks, strict=True):
            assert (ours.arm, ours.round, ours.position) == (theirs.arm, theirs.round, theirs.position)
            assert np.array_equal(ours.durations_ns, theirs.durations_ns)


def test_experiments_are_no_samples():
    assert set(samples()) == {"compute", "memory", "pcie", "resnet50"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_replay_of_all_that_was_measured_is_the_record(name):
    tuning = recorded()[name]
    record = tuning.record
    found = answered(ReplayBench(tuning), [each.lever for each in record.experiments], record.objective)
    assert found.experiments == record.experiments
    assert (found.best, found.best_because, found.repeated) == (record.best, record.best_because, record.repeated)


def test_a_replay_of_some_rounds_rests_on_the_first_of_them(resnet):
    found = answered(resnet, ["float16", "tf32-off"], rounds=3)
    assert {each.lever for each in found.experiments} == {"float16", "tf32-off"}
    assert all(set(each.comparison.ratios) == {0, 1, 2} for each in found.experiments)
    single = answered(resnet, ["float16"], rounds=1).experiments[0].comparison
    assert single.low is None
    three = next(each.comparison for each in found.experiments if each.lever == "float16")
    assert single.ratio == pytest.approx(three.ratios[0])


def test_a_replay_counts_a_round_that_was_measured_again_where_it_came():
    bench = ReplayBench(recorded()["streams"])
    assert bench.rounds == 7
    first, last = (answered(bench, ["streams-4"], "throughput", rounds=rounds) for rounds in (5, 7))
    changed = [first.experiments[0].comparison.ratios[number] != last.experiments[0].comparison.ratios[number]
               for number in range(5)]  # fmt: skip
    assert changed == [True, True, False, False, False]


def test_a_replay_in_another_metric_is_what_was_recorded_beside(resnet):
    recorded_others = next(e for e in recorded()["resnet50-b32"].record.experiments if e.lever == "float16").others
    for other in recorded_others:
        found = answered(resnet, ["float16"], other.metric).experiments[0]
        assert found.comparison == other
        assert found.outcome == other.outcome


def test_outputs_that_changed_are_no_improvement_in_any_metric(resnet):
    for metric in ("latency", "throughput", "memory"):
        found = answered(resnet, ["fuse-conv-bias", "float16"], metric)
        changed = next(each for each in found.experiments if each.lever == "fuse-conv-bias")
        assert changed.outcome == OUTPUTS_CHANGED
        assert not changed.improvement
        assert found.best in (BASE, "float16")


def test_a_limit_that_nothing_keeps_gives_the_closest(resnet):
    found = answered(resnet, ["float16", "prefer-nhwc"], limits=("p99<1ms",))
    assert found.best == "float16"
    assert "Nothing measured keeps every constraint" in found.best_because
    assert found.feasible is False
    assert best_so_far([Measured(found)]) is None


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice(()), "No lever is chosen"),
        (Choice(("float16",), "latencyy"), "did you mean 'latency'"),
        (Choice(("float16",), constraints=("quick",)), "is no constraint"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(choice, said):
    with pytest.raises(ConfigError, match=said):
        choice.checked()


def test_every_lever_is_offered_once_with_its_own_prediction_or_refusal(situation):
    here = situation("resnet50_b1_numpy")
    groups = offers(here)
    found = [offer for group in groups for offer in group.offers]
    assert sorted(offer.lever.name for offer in found) == sorted(each.name for each in levers())
    for offer in found:
        assert offer.refusal == offer.lever.why_not(here)
        if offer.refusal is None:
            assert offer.prediction == predict(offer.lever, here)
    assert groups[0].for_verdict
    held = held_back_by(here)
    assert all(held & set(offer.lever.treats) for offer in groups[0].offers)
    assert not any(held & set(offer.lever.treats) for group in groups[1:] for offer in group.offers)
    ratios = [o.prediction.ratio or 1.0 for o in groups[0].offers if o.refusal is None]
    assert ratios == sorted(ratios)


def test_what_no_lever_can_say_is_said_once(situation):
    crowded = replace(situation("launch_device"), configured=False)
    assert said_once(offers(crowded)).startswith("The options of an imported capture")
    assert said_once(offers(situation("launch_device"))) is None


@pytest.fixture
def replay():
    made = lab(recorded()["resnet50-b32"])
    yield made
    made.close()


def test_a_replay_says_where_it_was_recorded_and_offers_only_what_was_tried(replay):
    assert "Recorded on NVIDIA H200, 2026-" in replay.children[0].value
    tried = {each.lever for each in recorded()["resnet50-b32"].record.experiments if each.config is not None}
    assert set(replay.levers.boxes) == tried
    assert replay.levers.chosen == tuple(replay.levers.boxes)


def test_rounds_appear_one_by_one_and_then_it_begins_anew(replay):
    replay.levers._tick({"float16"})
    seen = []
    for _ in range(7):
        replay.step.click()
        seen.append((len(replay.history), len(replay.history[-1].record.experiments[0].comparison.ratios)))
    assert seen == [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5), (1, 1), (1, 2)]
    assert "2 of 5 rounds, as recorded" in replay.status.value
    replay.levers._tick({"prefer-nhwc"})
    replay.step.click()
    assert len(replay.history) == 2


def test_the_best_so_far_is_written_and_never_over_a_file(replay, tmp_path):
    replay.levers._tick({"prefer-nhwc"})
    replay.measure.click()
    assert "(prefer-nhwc)" in replay.best_html.value
    replay.levers._tick({"float16", "tf32-off"})
    replay.measure.click()
    assert "(float16)" in replay.best_html.value
    assert "experiment 2 of 2" in replay.best_html.value
    replay.path.value = str(tmp_path / "best.yaml")
    replay.write.click()
    assert RunConfig.load(tmp_path / "best.yaml") == recorded()["resnet50-b32"].config("float16")
    replay.write.click()
    assert "exists already" in replay.written.value
    replay.path.value = str(tmp_path / "no" / "such" / "best.yaml")
    replay.write.click()
    assert "Not written" in replay.written.value


def test_the_history_shows_intervals_outputs_and_what_was_read_back(replay):
    replay.measure.click()
    table = replay.table.value
    comparison = next(e.comparison for e in replay.history[0].record.experiments if e.lever == "float16")
    assert f"{comparison.low:.3f}× to {comparison.high:.3f}×" in table
    assert "54 nodes run on the CPU" in table
    assert "32000 NaN" in table
    assert "bfloat16" in table  # failed, with its reason
    drawn = [value for trace in replay._found.children[2].data for value in (trace.x if trace.x is not None else ())]
    assert any(value == pytest.approx(comparison.ratio) for value in drawn)


def test_a_wrong_limit_is_said_and_nothing_is_measured(replay):
    replay.judging.limits.value = "p99 10ms"
    replay.measure.click()
    assert "is no constraint" in replay.status.value
    assert replay.history == []


class FakeBench:
    """A bench whose base is recorded and whose measuring is a function."""

    tried = None
    rounds = 2

    def __init__(self, measure=None, fail=None):
        self.run, self._measure, self._fail = recorded()["launch"].run(), measure, fail

    def base(self, progress, cancelled):
        progress("latency", 0.5)
        if self._fail is not None:
            raise self._fail
        return self.run

    def measure(self, choice, progress, cancelled):
        return self._measure(choice, progress, cancelled)


@pytest.fixture
def made():
    every = []

    def make(bench):
        every.append(Lab(bench, subject="launch"))
        return every[-1]

    yield make
    for each in every:
        each.close()


def test_a_base_that_fails_leaves_a_message_and_can_be_tried_again(made):
    bench = FakeBench(fail=WorkerError("The worker of the latency pass was killed."))
    found = made(bench)
    assert found.wait(20)
    assert "was killed" in found.status.value
    assert "failed" in found.status.value
    assert (found.levers, found.cancel.disabled, found.again.layout.display) == (None, True, "")
    bench._fail = None
    found.again.click()
    assert found.wait(20)
    assert found.levers is not None
    assert found.again.layout.display == "none"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WorkerError("The worker died."), "The worker died."),
        (ValueError("odd"), "defect of the workbench: ValueError: odd"),
    ],
)
def test_measuring_that_fails_leaves_a_message_and_no_spinner(made, error, said):
    def measure(choice, progress, cancelled):
        raise error

    found = made(FakeBench(measure))
    assert found.wait(20)
    found.levers.boxes["cuda-graph"].value = True
    found.measure.click()
    assert found.wait(20)
    assert said in found.status.value
    assert (found.running, found.measure.disabled, found.cancel.disabled) == (False, False, True)
    assert (found.bar.value, found.bar.bar_style) == (0.0, "danger")


def test_cancel_asks_first_and_stops_then(made):
    begun = threading.Event()

    def measure(choice, progress, cancelled):
        progress("round 1", 0.25)
        begun.set()
        while True:
            time.sleep(0.01)

    found = made(FakeBench(measure))
    assert found.wait(20)
    found.levers.boxes["cuda-graph"].value = True
    found.measure.click()
    assert begun.wait(10)
    assert found.bar.value == 0.25
    found.measure.click()  # one at a time
    found.cancel.click()
    assert found.cancel.description == "Stop now"
    assert found.running
    found.cancel.click()
    assert found.wait(10)
    assert STOPPED.split(":")[0] in found.status.value
    assert found.history == []


def test_closing_the_lab_ends_what_is_going_on(made):
    begun, ended = threading.Event(), threading.Event()

    def measure(choice, progress, cancelled):
        begun.set()
        try:
            while True:
                time.sleep(0.01)
        finally:
            ended.set()

    found = made(FakeBench(measure))
    assert found.wait(20)
    found.levers.boxes["cuda-graph"].value = True
    found.measure.click()
    assert begun.wait(10)
    found.close()
    assert ended.wait(10)


def test_a_job_that_is_over_is_not_stopped_any_more():
    outcomes = []
    job = Job(
        lambda progress, cancelled: 7,
        on_progress=lambda name, share: None,
        on_end=lambda result, problem: (time.sleep(0.2), outcomes.append((result, problem))),
    )
    job.start()
    time.sleep(0.05)
    job.stop()
    assert job.wait(5)
    assert outcomes == [(7, "")]


@pytest.mark.slow
def test_a_real_experiment_on_the_cpu_is_measured_and_another_is_cancelled(
    small_model, known_ceilings, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    monkeypatch.chdir(tmp_path)
    budget = {"seconds": 0.2, "min_seconds": 0, "nodes_calls": 3}
    found = lab({"model": str(small_model), "provider": "cpu", "budget": budget})
    assert found.wait(60)
    assert "On a CPU the pieces do not say" in found.levers.children[1].value
    found.levers.boxes["threads-1"].value = True
    found.judging.rounds.value = 3
    found.measure.click()
    assert found.wait(120)
    record = found.history[0].record
    assert [each.lever for each in record.experiments] == ["threads-1"]
    assert record.experiments[0].comparison.low is not None
    assert found.history[0].folder.is_dir()
    found.judging.rounds.value = 50
    found.measure.click()
    deadline = time.monotonic() + 60
    while "round" not in found.status.value and time.monotonic() < deadline:
        time.sleep(0.05)
    found.cancel.click()
    assert found.wait(60)
    assert found.history[1].record.cancelled
    assert len(found.history[1].record.experiments[0].comparison.ratios) < 50
    found.close()
