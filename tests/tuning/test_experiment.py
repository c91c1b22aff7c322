"""What is said of a lever, on blocks, outputs and read-backs that are known; one recorded run stands for every arm."""

import json
import shutil
from threading import Event

import numpy as np
import pytest

from tests.tuning.fake_executor import FakeExecutor, failed, timed
from workbench.config import RunConfig
from workbench.diagnosis.levers import custom, lever
from workbench.errors import ConfigError, OutOfMemoryError, RunFolderError
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import BASE
from workbench.tuning.comparison import NO_DIFFERENCE, NOT_MEASURED
from workbench.tuning.experiment import (
    DOES_NOT_APPLY,
    FAILED,
    NOT_IN_FORCE,
    OUTPUTS_CHANGED,
    OutputCheck,
    output_parity,
    try_levers,
)
from workbench.tuning.metric import latency, throughput
from workbench.tuning.rounds import Settings, block_for

THREADS = custom("threads", {"intra_op_threads": 1})
NO_TF32 = custom("no-tf32", {"cuda": {"use_tf32": False}})
P50 = latency()
CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def base_run(h200_experiments, tmp_path_factory):
    """A run recorded on an H200 without its traced passes, which take time to read."""
    folder = tmp_path_factory.mktemp("template") / "run"
    shutil.copytree(
        h200_experiments / "launch" / "runs" / BASE, folder,
        ignore=lambda _, names: set(names) - {"manifest.json", "latency.parquet"},
    )  # fmt: skip
    return folder


@pytest.fixture
def attempt(base_run, tmp_path_factory):
    """Try levers on the recorded base; `speeds` are medians in µs by arm, 1000 where not given."""

    def tried(
        levers, speeds=(), block_of=None, metrics=(P50,), rounds=5, check=None, cancelled=None, template=base_run,
        settings=None, **executor,
    ):  # fmt: skip
        speeds = dict(speeds)
        wobble = np.random.default_rng(0).normal(0, 0.002, 1000)

        def of(job):
            return timed(job, 1e3 * speeds.get(job.arm, 1000) * np.exp(wobble[job.position]))

        fake = FakeExecutor(block_of or of, template, **executor)
        base = RunConfig(**RunFolder(base_run).manifest.config)
        return try_levers(
            base, levers, list(metrics), tmp_path_factory.mktemp("tuning"), fake, settings or Settings(rounds=rounds),
            check=check, cancelled=cancelled,
        ), fake  # fmt: skip

    return tried


def outputs(**by_arm):
    """Outputs of each arm, ones where none are given."""
    return lambda job: {"y": by_arm.get(job.arm.replace("-", "_"), np.ones((1, 8), np.float32))}


def test_a_faster_lever_is_an_improvement_and_a_slower_one_is_none(attempt):
    other = custom("other", {"intra_op_threads": 2})
    found, executor = attempt([THREADS, other], {"threads": 500, "other": 2000}, metrics=(latency(), throughput()))
    faster, slower = found.experiments
    assert executor.recorded == [BASE, "threads", "other"]
    assert (faster.outcome, faster.improvement, slower.outcome, slower.improvement) == ("faster", True, "slower", False)
    assert faster.comparison.ratio == pytest.approx(0.5, rel=0.01)
    assert faster.config["intra_op_threads"] == 1
    assert faster.parity.within
    assert [(each.metric, each.outcome) for each in faster.others] == [("throughput", "faster")]
    assert len(found.rounds.blocks) == 15


def test_a_lever_that_changes_nothing_is_no_improvement(attempt):
    found = attempt([THREADS])[0].experiments[0]
    assert (found.outcome, found.improvement) == (NO_DIFFERENCE, False)


def test_the_prediction_is_that_of_the_recorded_base(attempt, h200_experiments):
    whole = h200_experiments / "launch" / "runs" / BASE
    found = attempt([lever("cuda-graph")], {"cuda-graph": 300}, template=whole, rounds=1)[0].experiments[0]
    assert found.prediction.low < 0.3 < found.prediction.high
    assert found.config["cuda_graph"] is True


def test_levers_may_be_chosen_once_the_base_is_diagnosed(attempt):
    found, _ = attempt(lambda situation: [custom("seen", {"seed": situation.batch + 41})])
    assert found.experiments[0].config["seed"] == 42


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        (lever("io-binding-device"), "It is already so."),
        (custom("clash", {"cuda_graph": True, "concurrency": 2}), "cannot go with 'concurrency'"),
        (custom("misspelt", {"bindign": "device"}), "did you mean 'binding'"),
    ],
)
def test_a_lever_that_does_not_apply_says_why_and_is_not_measured(attempt, chosen, why):
    found, executor = attempt([chosen, THREADS])
    refused, other = found.experiments
    assert refused.outcome == DOES_NOT_APPLY
    assert why in refused.why
    assert (refused.improvement, refused.config, refused.comparison) == (False, None, None)
    assert executor.recorded == [BASE, "threads"]
    assert other.comparison is not None


def test_a_lever_whose_configuration_cannot_run_is_failed_and_the_others_go_on(attempt):
    found, executor = attempt([NO_TF32, THREADS], {"threads": 500}, fails={"no-tf32": failed})
    broken, fine = found.experiments
    assert (broken.outcome, broken.why, broken.improvement) == (FAILED, "8 GB did not fit.", False)
    assert fine.improvement
    assert {job.arm for jobs in executor.rounds for job in jobs} == {BASE, "threads"}


@pytest.mark.parametrize("first", [0, 1])
def test_a_lever_that_fails_twice_while_it_is_measured_is_failed_however_fast_it_was_before(attempt, first):
    def block_of(job):
        return failed(job) if job.arm == "threads" and job.round >= first else timed(job, 1000 + job.position)

    found, executor = attempt([THREADS], block_of=block_of)
    assert sum(job.arm == "threads" for jobs in executor.rounds for job in jobs) == first + 2
    assert (found.experiments[0].outcome, found.experiments[0].why) == (FAILED, "8 GB did not fit.")
    assert not found.experiments[0].improvement


def test_a_base_that_cannot_run_raises_its_own_error(attempt):
    with pytest.raises(OutOfMemoryError, match=r"8 GB did not fit\."):
        attempt([THREADS], fails={BASE: failed})


@pytest.mark.parametrize(
    "changed",
    [
        np.full((1, 8), 1.5, np.float32),
        np.full((1, 8), np.nan, np.float32),
        np.ones((1, 9), np.float32),
        np.ones((2, 8), np.float32),  # with the same batch, so that it is no further item
    ],
)
def test_a_lever_that_changes_the_outputs_is_no_improvement_however_fast(attempt, changed):
    found = attempt([THREADS], {"threads": 100}, outputs_of=outputs(threads=changed))[0].experiments[0]
    assert (found.outcome, found.improvement, found.parity.within) == (OUTPUTS_CHANGED, False, False)
    assert found.comparison.outcome == "faster"
    assert found.parity.why in found.why
    assert found.comparison.why in found.why


def test_the_metric_of_the_user_decides_beside_the_tolerance(attempt):
    check = OutputCheck(metric=lambda ours, theirs: float(np.abs(ours["y"] - theirs["y"]).max()), at_most=1e-6)
    near = np.full((1, 8), 1 + 1e-4, np.float32)
    found = attempt([THREADS], {"threads": 100}, outputs_of=outputs(threads=near), check=check)[0].experiments[0]
    assert (found.outcome, found.improvement) == (OUTPUTS_CHANGED, False)
    assert found.parity.metric == pytest.approx(1e-4, rel=0.01)


def test_a_limit_without_a_metric_is_refused_before_anything_runs():
    with pytest.raises(ConfigError, match="needs the metric"):
        OutputCheck(at_least=0.9)


def test_calls_too_slow_for_the_metric_are_said_before_any_lever_is_tried(attempt, base_run, tmp_path):
    slow = shutil.copytree(base_run, tmp_path / "slow")
    manifest = json.loads((slow / "manifest.json").read_text())
    manifest["latency"]["median_ns"] = 1e9
    (slow / "manifest.json").write_text(json.dumps(manifest))
    settings = Settings(block=block_for([latency(99)]))
    with pytest.raises(ConfigError, match="do not fit into the 10 s of a block"):
        attempt([THREADS], metrics=(latency(99),), template=slow, settings=settings)


def test_an_option_that_is_not_in_force_is_no_improvement(attempt):
    found = attempt([NO_TF32], {"no-tf32": 500})[0].experiments[0]  # the recorded run reads back what the base had
    assert (found.outcome, found.improvement) == (NOT_IN_FORCE, False)
    assert "cuda.use_tf32: asked 0, read back 1: not in force" in found.why
    assert found.comparison.outcome == "faster"


def test_an_option_in_force_is_one(attempt, base_run):
    read_back = RunFolder(base_run).manifest.provider_options

    def manifest_of(job):
        options = {**read_back[CUDA], "use_tf32": "0" if job.arm == "no-tf32" else "1"}
        return {"provider_options": {**read_back, CUDA: options}}

    found = attempt([NO_TF32], {"no-tf32": 500}, manifest_of=manifest_of)[0].experiments[0]
    assert (found.outcome, found.improvement) == ("faster", True)


@pytest.mark.parametrize(("ours", "theirs"), [(2, 4), (4, 2)])
def test_a_batch_is_compared_on_the_items_that_both_saw(attempt, base_run, ours, theirs):
    rows = np.arange(32, dtype=np.float32).reshape(4, 8)
    model = RunFolder(base_run).manifest.model.model_dump(mode="json")
    model["inputs"][0]["shape"] = ["batch", 8]

    def items(job):
        return ours if job.arm == BASE else theirs

    def parity_of(shift):
        found, _ = attempt(
            [custom(f"batch{shift}", {"batch": theirs})],
            manifest_of=lambda job: {"model": {**model, "feed_shapes": {"x": [items(job), 8]}}},
            outputs_of=lambda job: {"y": rows[: items(job)] + (shift if job.arm != BASE else 0)},
            rounds=1,
        )
        return found.experiments[0].parity

    same = parity_of(0)
    assert (same.within, same.outputs[0].shape) == (True, (2, 8))
    assert not parity_of(1).within


def test_a_run_that_kept_no_outputs_cannot_be_compared(base_run):
    run = RunFolder(base_run)
    with pytest.raises(RunFolderError, match="kept no outputs"):
        output_parity(run, run, OutputCheck())


def test_cancelling_keeps_what_was_measured_and_says_what_was_not(attempt):
    stop = Event()

    def block_of(job):
        if job.round == 3:
            stop.set()
        return timed(job, (500 if job.arm == "threads" else 1000) + job.position)

    found, _ = attempt([THREADS], block_of=block_of, rounds=6, cancelled=stop)
    assert found.rounds.cancelled
    assert len(found.experiments[0].comparison.ratios) == 4
    assert found.experiments[0].improvement


def test_a_lever_after_the_cancellation_is_not_measured(attempt):
    stop = Event()
    stop.set()
    found, executor = attempt([THREADS, lever("io-binding-device")], cancelled=stop)
    assert executor.recorded == [BASE]
    assert executor.rounds == []
    assert [each.outcome for each in found.experiments] == [NOT_MEASURED, DOES_NOT_APPLY]
    assert "cancelled" in found.experiments[0].why
