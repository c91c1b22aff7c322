"""Experiments through the Python interface: recorded on an H200, and real ones on the CPU."""

import os
import signal
import subprocess
import sys
import time
from threading import Event

import pytest

import workbench as wb
from workbench.api.run import free_folder
from workbench.api.searching import search
from workbench.api.sweeping import sweep
from workbench.api.tuning import BEST_FILE, Tuning, experiment, tune
from workbench.config import RunConfig
from workbench.diagnosis.levers import custom
from workbench.errors import ConfigError, ModelError, RunFolderError
from workbench.runs.writer import new_run_folder
from workbench.tuning.blocks import BASE
from workbench.tuning.experiment import DOES_NOT_APPLY

BUDGET = {"seconds": 0.2, "min_seconds": 0, "nodes_calls": 3}


@pytest.fixture
def recorded(h200_experiments):
    return Tuning(h200_experiments / "launch")


@pytest.fixture
def base(small_model, known_ceilings, monkeypatch):
    """The options of a base on the CPU."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    return {"model": str(small_model), "provider": "cpu", "budget": BUDGET}


def test_the_runs_of_a_recorded_tuning_are_open_and_diagnosed(recorded):
    before, after = recorded.run(), recorded.run("cuda-graph")
    assert isinstance(before, wb.Run)
    assert before.diagnosis.verdict.name == "launch"
    assert after.manifest.config["cuda_graph"] is True
    with pytest.raises(RunFolderError, match="no run of 'graph': there are base, cuda-graph"):
        recorded.run("graph")


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_the_best_configuration_is_saved_and_comes_back_equal(recorded, tmp_path, suffix):
    best = recorded.config()
    best.save(tmp_path / f"best.{suffix}")
    assert RunConfig.load(tmp_path / f"best.{suffix}") == best == recorded.config("cuda-graph")
    assert (best.cuda_graph, recorded.config(BASE).cuda_graph) == (True, False)


def test_table_figure_and_summary_of_a_recorded_tuning(recorded):
    assert recorded.to_frame()["name"].tolist() == ["cuda-graph"]
    shown = [value for trace in recorded.figure().data for value in (trace.x if trace.x is not None else ())]
    assert any(value == pytest.approx(recorded.experiments[0].comparison.ratio) for value in shown)
    assert recorded.summary().startswith("launch on NVIDIA H200")
    assert repr(recorded) == f"<Tuning of launch on NVIDIA H200: {recorded.folder}>"


def test_a_folder_that_holds_no_tuning(tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no readable tuning\.json"):
        Tuning(tmp_path)


@pytest.mark.parametrize(
    ("lever", "options", "error", "said"),
    [
        ("cuda-grahp", {}, ConfigError, "did you mean 'cuda-graph'"),
        (["cuda-graph", "cuda-graph"], {}, ConfigError, "cuda-graph stands twice"),
        (custom(BASE, {"seed": 1}), {}, ConfigError, "base stands twice"),
        ({"bindign": "device"}, {}, ConfigError, "did you mean 'binding'"),
        ({"seed": 1}, {"metric": "latencyy"}, ConfigError, "did you mean 'latency'"),
        ({"seed": 1}, {"rounds": 0}, ConfigError, "'rounds' cannot be 0"),
        ({"seed": 1}, {"seed": -1}, ConfigError, "cannot be -1"),
        ({"seed": 1}, {"metric": "memory"}, ConfigError, "take 'host-memory'"),
        (custom("../up", {"seed": 1}), {}, ConfigError, "'../up' cannot name a folder"),
        (custom("long" * 50, {"seed": 1}), {}, ConfigError, "cannot name a folder"),
    ],
)
def test_what_cannot_be_tried_is_said_before_anything_runs(base, tmp_path, lever, options, error, said):
    with pytest.raises(error, match=said):
        experiment(base, lever, out=tmp_path / "tuning", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_cannot_run_raises_and_leaves_nothing(base, tmp_path):
    (tmp_path / "none.onnx").write_text("no model")
    with pytest.raises(ModelError):
        experiment({**base, "model": str(tmp_path / "none.onnx")}, {"seed": 1}, out=tmp_path / "tuning")
    assert [path.name for path in tmp_path.iterdir()] == ["none.onnx"]


def test_constraints_are_read_before_anything_runs(base, tmp_path):
    with pytest.raises(ConfigError, match="is no constraint"):
        tune(base, constraints=["p99 10ms"], out=tmp_path / "tuning")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("limit", "said"), [("memory<1GB", "take 'host-memory'"), ("quick", "is no constraint")])
def test_a_search_and_a_sweep_read_their_constraints_before_anything_runs(base, tmp_path, limit, said):
    with pytest.raises(ConfigError, match=said):
        search(base, constraints=[limit], out=tmp_path / "search")
    with pytest.raises(ConfigError, match=said):
        sweep(base, [1], [1], constraints=[limit], out=tmp_path / "sweep")
    assert list(tmp_path.iterdir()) == []


def test_a_search_whose_base_cannot_run_leaves_nothing(base, tmp_path):
    (tmp_path / "none.onnx").write_text("no model")
    with pytest.raises(ModelError):
        search({**base, "model": str(tmp_path / "none.onnx")}, out=tmp_path / "search")
    assert [path.name for path in tmp_path.iterdir()] == ["none.onnx"]


@pytest.mark.parametrize("name", ["m" * 400, "モデル" * 80, "plain"])
def test_a_folder_for_a_model_of_any_name_can_be_made(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with new_run_folder(free_folder(name)) as folder:
        (folder / "made").touch()
    (made,) = (tmp_path / "runs").iterdir()
    assert made.name.startswith(name[:20])


def test_a_folder_that_is_there_already_is_refused_and_left_alone(base, tmp_path):
    (tmp_path / "kept").touch()
    with pytest.raises(RunFolderError, match="exists already"):
        experiment(base, {"seed": 1}, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


LEVERS = [{"intra_op_threads": 1}, "cuda-graph", {"session": {"graph_optimization_level": "disable"}}]


@pytest.fixture(scope="module")
def live(small_model, known_ceilings, tmp_path_factory):
    """A real tuning on the CPU, its progress, and what then lay beside it."""
    folder, progress = tmp_path_factory.mktemp("live"), []
    base = {"model": str(small_model), "provider": "cpu", "budget": BUDGET}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(known_ceilings))
        found = experiment(
            base, LEVERS, rounds=3, out=folder / "tuning", progress=lambda name, share: progress.append((name, share))
        )
    return found, progress, sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_a_real_tuning_leaves_one_folder_with_everything(live):
    found, _, beside = live
    assert beside == ["tuning"]
    assert {path.name for path in found.folder.iterdir()} == {"tuning.json", "blocks.parquet", BEST_FILE, "runs"}
    assert {path.name for path in (found.folder / "runs").iterdir()} == {BASE, "change-1", "change-3"}
    for arm in (BASE, "change-1", "change-3"):
        assert found.run(arm).diagnosis.latency.median_ns > 0


@pytest.mark.slow
def test_a_real_tuning_measures_every_arm_in_every_round(live):
    found = live[0]
    planned = {(arm, number) for arm in (BASE, "change-1", "change-3") for number in range(3)}
    assert {(block.arm, block.round) for block in found.blocks} == planned
    assert all(block.error is None and len(block.durations_ns) >= 30 for block in found.blocks)
    ends = [block.starts_ns[-1] + block.durations_ns[-1] for block in found.blocks]
    assert all(block.starts_ns[0] > end for end, block in zip(ends, found.blocks[1:], strict=False))


@pytest.mark.slow
def test_a_real_tuning_says_of_every_lever_what_came_of_it(live):
    threads, graph, plain = live[0].experiments
    assert graph.outcome == DOES_NOT_APPLY
    assert graph.why
    for each in (threads, plain):
        assert each.parity.within
        assert each.comparison.low <= each.comparison.ratio <= each.comparison.high
        assert {other.metric for other in each.others} == {"latency:p99", "throughput", "host-memory", "cold-start"}
    assert live[0].record.best in (BASE, "change-1", "change-3")


@pytest.mark.slow
def test_progress_goes_from_nothing_to_all(live):
    shares = [share for _, share in live[1]]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)


@pytest.mark.slow
def test_the_best_configuration_is_profiled(live, tmp_path, base):
    config = RunConfig.load(live[0].folder / BEST_FILE)
    assert config == live[0].config()
    run = wb.profile(config=config, out=tmp_path / "run")
    assert RunConfig(**run.manifest.config) == config


@pytest.mark.slow
def test_a_real_tuning_is_cancelled_from_another_thread_and_opened_under_a_name_that_was_used_before(base, tmp_path):
    stop = Event()

    def cancel_in_second_round(name, share):
        if name == "round 2":
            stop.set()

    for _ in range(2):  # in one process, whose prepared files of the first are gone in the second
        stop.clear()
        found = experiment(
            base, {"intra_op_threads": 1}, out=tmp_path / "tuning", cancelled=stop, progress=cancel_in_second_round
        )
        assert found.record.cancelled
        assert {(block.round, block.error) for block in found.blocks} == {(0, None), (1, None)}
        found.folder.rename(tmp_path / f"kept-{time.monotonic_ns()}")


@pytest.mark.slow
def test_a_killed_tuning_leaves_nothing_under_its_name(base, tmp_path):
    code = f"from workbench.api.tuning import experiment\nexperiment({base!r}, {{'seed': 1}}, out='tuning')"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".tuning.*.partial/runs/base")) and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "tuning").exists()
    assert [path.name.endswith(".partial") for path in tmp_path.iterdir()] == [True]


def test_a_gpu_that_cannot_be_used_is_left_where_the_cpu_is_allowed(small_model, monkeypatch):
    from workbench.api import base

    monkeypatch.setattr(base, "resolve_device", lambda config: "cuda")
    monkeypatch.setattr(base, "missing_cuda_libraries", lambda: ["libcudnn.so.9"])
    config = {"model": str(small_model), "allow_cpu": True}
    assert base.ready(config).provider == "cpu"
    assert base.ready({**config, "provider": "tensorrt"}).provider == "cpu"
    assert base.ready({**config, "allow_cpu": False}).provider == "cuda"
