"""Which blocks are measured, in which order, and which are measured again, with an executor that measures nothing."""

from contextlib import nullcontext
from threading import Event

import pytest

from tests.tuning.fake_executor import FakeExecutor, failed, timed
from workbench.config import Budget, RunConfig
from workbench.errors import ConfigError
from workbench.runs.reader import RunFolder
from workbench.tuning.comparison import compare
from workbench.tuning.metric import latency, throughput
from workbench.tuning.rounds import (
    BLOCK,
    Arm,
    Settings,
    block_for,
    check_calls,
    measure_interleaved,
    with_block,
)

NAMES = ("base", "graph", "float16")


def measured(executor, folder, rounds=6, names=NAMES, **more):
    arms = [Arm(name, RunConfig(model="m.onnx", batch=at + 1)) for at, name in enumerate(names)]
    settings = Settings(rounds=rounds, seed=more.pop("seed", 0), block=Budget(seconds=0.125))
    return measure_interleaved(arms, latency(), folder, executor, settings, **more)


def steady(job):
    return timed(job, 1_000_000)


def order(executor):
    return [[job.arm for job in jobs] for jobs in executor.rounds]


def test_every_round_holds_every_arm_once_in_one_submission(tmp_path):
    executor = FakeExecutor(steady)
    found = measured(executor, tmp_path)
    assert [sorted(names) for names in order(executor)] == [sorted(NAMES)] * 6
    assert [block.position for block in found.blocks] == list(range(18))
    assert [block.round for block in found.blocks] == [number for number in range(6) for _ in NAMES]
    assert [block.round for block in found.of("graph")] == list(range(6))


def test_every_arm_is_measured_in_its_own_configuration_and_folder_with_the_budget_of_a_block(tmp_path):
    executor = FakeExecutor(steady)
    measured(executor, tmp_path, rounds=1)
    jobs = {job.arm: job for job in executor.rounds[0]}
    assert {name: job.config.batch for name, job in jobs.items()} == {"base": 1, "graph": 2, "float16": 3}
    assert {job.config.budget.seconds for job in jobs.values()} == {0.125}
    assert len({job.folder for job in jobs.values()}) == 3


def test_the_order_comes_from_the_seed(tmp_path):
    runs = []
    for seed in (0, 0, 1, 2):
        executor = FakeExecutor(steady)
        measured(executor, tmp_path, seed=seed, rounds=10)
        runs.append(order(executor))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2] != runs[3]


@pytest.mark.parametrize("seed", range(5))
def test_a_steady_drift_favours_no_arm(tmp_path, seed):
    found = measured(FakeExecutor(lambda job: timed(job, 1e9 * 1.02**job.position)), tmp_path, seed=seed)
    for name in NAMES[1:]:
        assert compare(found.of("base"), found.of(name), latency()).ratio == pytest.approx(1, abs=1e-6)


def test_a_disturbed_round_is_measured_again_once_with_all_its_arms(tmp_path):
    def throttled(job):
        noted = ["The clocks were held down."] if (job.arm, job.round) == ("graph", 2) else []
        return timed(job, 1_000_000, disturbances=noted)

    found = measured(FakeExecutor(throttled), tmp_path)
    assert found.repeated == {2: ["'graph': The clocks were held down."]}
    assert [block.round for block in found.blocks[18:]] == [2, 2, 2]
    assert {block.arm for block in found.blocks[18:]} == set(NAMES)


@pytest.mark.parametrize(("rounds", "again"), [(1, []), (2, [0]), (5, [0, 1]), (6, [0, 1, 2])])
def test_at_most_half_of_the_rounds_are_measured_again(tmp_path, rounds, again):
    executor = FakeExecutor(lambda job: timed(job, 1_000_000, disturbances=["Throttled."]))
    found = measured(executor, tmp_path, rounds=rounds)
    assert [jobs[0].round for jobs in executor.rounds] == [*range(rounds), *again]
    assert list(found.repeated) == again


def test_an_arm_that_failed_twice_is_left_out_of_later_rounds(tmp_path):
    executor = FakeExecutor(lambda job: failed(job) if job.arm == "graph" else steady(job))
    found = measured(executor, tmp_path)
    assert [sorted(names) for names in order(executor)] == [sorted(NAMES)] * 2 + [["base", "float16"]] * 4
    assert found.failures("graph") == ["8 GB did not fit."] * 2
    assert found.failures("base") == []


def test_without_its_base_nothing_is_measured_on(tmp_path):
    executor = FakeExecutor(lambda job: failed(job) if job.arm == "base" else steady(job))
    found = measured(executor, tmp_path)
    assert len(executor.rounds) == 2
    assert not found.cancelled


def test_one_failure_leaves_no_arm_out(tmp_path):
    executor = FakeExecutor(lambda job: failed(job) if (job.arm, job.round) == ("graph", 0) else steady(job))
    assert len(measured(executor, tmp_path).of("graph")) == 6


def test_cancelling_keeps_the_rounds_that_were_measured(tmp_path):
    stop = Event()

    def cancel_in_third_round(job):
        if job.round == 2:
            stop.set()
        return timed(job, 1_000_000, disturbances=["Throttled."])

    found = measured(FakeExecutor(cancel_in_third_round), tmp_path, cancelled=stop)
    assert found.cancelled
    assert [block.round for block in found.blocks] == [0] * 3 + [1] * 3 + [2] * 3
    assert found.repeated == {}


def test_a_round_that_was_cancelled_before_its_repeat_is_not_said_to_be_repeated(tmp_path):
    stop = Event()
    executor = FakeExecutor(lambda job: timed(job, 1_000_000, disturbances=["Throttled."]))

    def cancel_in_first_repeat(name, share):
        if len(executor.rounds) == 6:
            stop.set()

    found = measured(executor, tmp_path, cancelled=stop, progress=cancel_in_first_repeat)
    assert list(found.repeated) == [0]
    assert len(executor.rounds) == 7


def test_what_is_no_error_of_the_user_passes_through(tmp_path):
    def broken(job):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measured(FakeExecutor(broken), tmp_path)


def test_progress_never_goes_back(tmp_path):
    shares = []
    executor = FakeExecutor(lambda job: timed(job, 1_000_000, disturbances=["Throttled."]))
    measured(executor, tmp_path, progress=lambda name, share: shares.append(share))
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


def test_no_rounds_are_refused():
    with pytest.raises(ConfigError, match="'rounds' cannot be 0"):
        Settings(rounds=0)


def test_a_seed_that_seeds_nothing_is_refused():
    with pytest.raises(ConfigError, match="cannot be -1"):
        Settings(seed=-1)


def test_a_block_may_make_more_calls_than_the_profile_of_its_configuration():
    few = RunConfig(model="m.onnx", budget={"min_calls": 3, "max_calls": 10, "nodes_calls": 2})
    budget = with_block(few, block_for([latency(99)])).budget
    assert (budget.min_calls, budget.max_calls, budget.nodes_calls) == (100, 100, 2)


@pytest.mark.parametrize(("call_ns", "percentile", "fits"), [(99e6, 99, True), (101e6, 99, False), (5e9, 50, True)])
def test_a_percentile_that_slow_calls_cannot_give_is_said_beforehand(h200, call_ns, percentile, fits):
    manifest = RunFolder(h200 / "launch_device").manifest
    manifest.latency.median_ns = call_ns
    metrics = [latency(percentile)]
    with nullcontext() if fits else pytest.raises(ConfigError, match=r"takes 100 calls, and at 0\.101 s each"):
        check_calls(metrics, block_for(metrics), manifest)


def test_a_percentile_beyond_all_calls_is_refused():
    with pytest.raises(ConfigError, match="100,000 calls is too far out"):
        block_for([latency(99.999)])


def test_a_block_makes_the_calls_that_its_metrics_need():
    assert block_for([latency(50), throughput()]) == BLOCK
    tail = block_for([throughput(), latency(99.9)])
    assert tail.min_calls == 1000
    assert tail.seconds > BLOCK.seconds
