"""The search: what it measures and gives up, how it ends and goes on, and what a kill loses."""

import json
import multiprocessing
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import optuna
import pytest

from workbench.config import RunConfig
from workbench.errors import ConfigError, DiskFullError, NoDriverError, OutOfMemoryError, RunFolderError
from workbench.tuning.blocks import Block
from workbench.tuning.objective import Constraint, Objective
from workbench.tuning.search import search
from workbench.tuning.space import Choice, Space
from workbench.tuning.trials import LOCK, SHARED, alone_in, read_trials

BASE = RunConfig(model="served", batch=1)
THROUGHPUT, LATENCY = Objective.parse("throughput"), Objective.parse("latency")
TWO = Space(
    BASE,
    {
        "batch": [Choice(str(n), {"batch": n}) for n in (1, 2, 4, 8)],
        "graph": [Choice("off", {}), Choice("on", {"cuda_graph": True})],  # impossible while the binding is numpy
        "binding": [Choice("numpy", {}), Choice("device", {"binding": "device"})],
    },
)  # 16 cells, 4 of them impossible


def block(per_call_ns: float, batch: int = 1, **more) -> Block:
    calls_ns = np.full(200, per_call_ns, np.int64)
    return Block("", 0, 0, durations_ns=calls_ns, calls_per_s=1e9 / per_call_ns, batch=batch, **more)


class Device:
    """Measures by a formula and notes every block: 100 µs a call, 10 µs an item, less on the device and in a graph."""

    def __init__(self, per_round=lambda index: 1.0, **more) -> None:
        self.seen: list[tuple[RunConfig, int]] = []
        self.per_round, self.more = per_round, more

    def __call__(self, config: RunConfig, folder: Path, index: int) -> Block:
        assert json.loads((folder / "trial.json").read_text())["state"] == "running"
        self.seen.append((config, index))
        fixed_ns = 100_000 / ((config.binding == "device") + (3 * config.cuda_graph) + 1)
        return block((fixed_ns + 10_000 * config.batch) * self.per_round(index), config.batch, **self.more)


def test_it_ends_when_every_possible_configuration_was_measured_once(tmp_path: Path):
    device = Device()
    found = search(TWO, device, THROUGHPUT, folder=tmp_path, rounds=1)
    assert found.stopped == "no configuration left to measure"
    assert len(device.seen) == len({config.model_dump_json() for config, _ in device.seen}) == 12
    assert found.best.assignment == {"batch": "8", "graph": "on", "binding": "device"}
    assert found.best.config.cuda_graph
    assert device.seen[0][0] == BASE


def test_suggestions_come_after_the_base_and_impossible_ones_say_why(tmp_path: Path):
    first = [{"graph": "on"}, {"batch": "4", "binding": "device"}, {"batch": "1"}]
    found = search(TWO, Device(), LATENCY, folder=tmp_path, rounds=1, max_trials=2, first=first)
    assert [trial.state for trial in found.trials] == ["complete", "impossible", "complete"]
    assert "cuda_graph" in found.trials[1].reason
    assert found.trials[2].assignment == {"batch": "4", "graph": "off", "binding": "device"}
    assert found.stopped == "2 trials measured"
    with pytest.raises(ConfigError, match="no choice 'onn'"):
        search(TWO, Device(), LATENCY, folder=tmp_path, rounds=1, first=[{"graph": "onn"}])


def test_two_assignments_of_one_configuration_are_measured_once(tmp_path: Path):
    twice = Space(BASE, {"a": [Choice("base", {}), Choice("eight", {"batch": 8})], "b": [Choice("8", {"batch": 8})]})
    device = Device()
    found = search(twice, device, THROUGHPUT, folder=tmp_path, rounds=2)
    assert twice.size() == 4
    assert [config.batch for config, _ in device.seen] == [1, 1, 8, 8]
    assert len(found.trials) == 2


def test_metrics_are_medians_and_hopeless_trials_end_early(tmp_path: Path):
    drift = (1.0, 1.04, 1.3)
    device = Device(per_round=lambda index: drift[index])
    first = [{"batch": "8", "binding": "device"}]
    found = search(TWO, device, LATENCY, folder=tmp_path, rounds=3, max_trials=2, first=first)
    base, worse = found.trials
    assert base.metrics["latency:p50"] == pytest.approx(110_000 * 1.04)
    assert worse.state == "pruned"
    assert "trial 0" in worse.reason
    assert len(worse.rounds) == 1
    assert found.best == base


def test_a_disturbed_round_gives_nothing_up(tmp_path: Path):
    device = Device(disturbances=["throttled"])
    first = [{"batch": "8", "binding": "device"}]
    found = search(TWO, device, LATENCY, folder=tmp_path, rounds=2, max_trials=2, first=first)
    assert [trial.state for trial in found.trials] == ["complete", "complete"]


def test_a_limit_clearly_missed_ends_a_trial(tmp_path: Path):
    limits = [Constraint.parse("latency<120us")]
    found = search(TWO, Device(), THROUGHPUT, limits, folder=tmp_path, rounds=3, max_trials=2, first=[{"batch": "8"}])
    assert found.trials[1].state == "pruned"
    assert "latency<120us" in found.trials[1].reason
    assert found.trials[1].feasible is False
    assert found.best.number == 0


def test_when_nothing_keeps_the_limit_the_closest_is_told(tmp_path: Path):
    limits = [Constraint.parse("latency<20us")]
    found = search(TWO, Device(), THROUGHPUT, limits, folder=tmp_path, rounds=1)
    assert found.best.assignment == {"batch": "1", "graph": "on", "binding": "device"}
    assert found.best.feasible is False
    assert "latency<20us by 50 %" in found.sentence


def test_a_configuration_that_fails_is_a_result(tmp_path: Path):
    def evaluate(config: RunConfig, folder: Path, index: int) -> Block:
        if config.batch == 4:
            raise OutOfMemoryError("The device is full.")
        if config.batch == 8:
            return Block("", 0, 0, error=("OutOfMemoryError", "The device is full."))
        return block(1000, config.batch)

    found = search(TWO, evaluate, THROUGHPUT, folder=tmp_path, rounds=2)
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert {trial.assignment["batch"] for trial in failed} == {"4", "8"}
    assert {trial.error for trial in failed} == {("OutOfMemoryError", "The device is full.")}
    assert found.best.assignment["batch"] == "2"
    frame = found.to_frame().set_index("number")
    assert frame.loc[failed[0].number, "error"] == "OutOfMemoryError: The device is full."
    assert np.isnan(frame.loc[failed[0].number, "items_per_s"])
    assert frame.loc[found.best.number, "items_per_s"] == 2e6


def test_an_objective_that_no_round_measures_is_said(tmp_path: Path):
    found = search(TWO, Device(), Objective.parse("memory"), folder=tmp_path, rounds=1, max_trials=1)
    assert found.trials[0].state == "failed"
    assert found.trials[0].reason == "No round measured memory."
    assert found.best is None


@pytest.mark.parametrize("kind", [DiskFullError, NoDriverError])
def test_what_no_configuration_would_change_ends_the_search(tmp_path: Path, kind):
    def evaluate(config: RunConfig, folder: Path, index: int) -> Block:
        return Block("", 0, 0, error=(kind.__name__, "Nothing works."))

    with pytest.raises(kind, match=r"Nothing works\."):
        search(TWO, evaluate, THROUGHPUT, folder=tmp_path)


def test_a_second_call_goes_on_and_measures_nothing_again(tmp_path: Path):
    whole = search(TWO, Device(), THROUGHPUT, folder=tmp_path / "whole", rounds=1, max_trials=7, seed=3)
    search(TWO, Device(), THROUGHPUT, folder=tmp_path / "parts", rounds=1, max_trials=4, seed=3)
    device = Device()
    found = search(TWO, device, THROUGHPUT, folder=tmp_path / "parts", rounds=1, max_trials=7, seed=3)
    assert len(device.seen) == 3
    assert [trial.assignment for trial in found.trials] == [trial.assignment for trial in whole.trials]


def test_the_budget_counts_what_was_spent_before(tmp_path: Path):
    def slow(config: RunConfig, folder: Path, index: int) -> Block:
        time.sleep(0.02)
        return block(1000)

    found = search(TWO, slow, THROUGHPUT, folder=tmp_path, rounds=1, budget_s=0.05)
    assert "budget" in found.stopped
    assert 1 <= len(found.trials) <= 3
    assert search(TWO, slow, THROUGHPUT, folder=tmp_path, rounds=1, budget_s=0.05).trials == found.trials


def test_cancelling_ends_after_the_round_and_the_trial_is_repeated(tmp_path: Path):
    cancelled, device = threading.Event(), Device()

    def evaluate(config: RunConfig, folder: Path, index: int) -> Block:
        if len(device.seen) == 3:
            cancelled.set()
        return device(config, folder, index)

    found = search(TWO, evaluate, THROUGHPUT, folder=tmp_path, rounds=3, cancelled=cancelled)
    assert found.stopped == "cancelled"
    assert [trial.state for trial in found.trials] == ["complete", "lost"]
    again = search(TWO, Device(), THROUGHPUT, folder=tmp_path, rounds=3, max_trials=2)
    assert again.trials[2].assignment == found.trials[1].assignment


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"objective": LATENCY}, "objective"),
        ({"constraints": [Constraint.parse("p99<1ms")]}, "constraints"),
        ({"rounds": 2}, "rounds"),
        ({"space": Space(BASE, {"batch": [Choice("2", {"batch": 2})]})}, "dimensions"),
        ({"space": Space(BASE.changed(seed=1), TWO.dimensions)}, "base"),
    ],
)
def test_the_folder_of_another_search_is_refused(tmp_path: Path, other, word):
    asked = {"space": TWO, "evaluate": Device(), "objective": THROUGHPUT, "folder": tmp_path, "rounds": 1}
    search(**asked, max_trials=1)
    with pytest.raises(ConfigError, match=f"another {word}"):
        search(**asked | other)


def test_another_model_under_the_same_name_is_refused(tmp_path: Path, small_model: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(small_model.read_bytes())
    space = Space(RunConfig(model=str(model)), {"batch": [Choice("2", {"batch": 2})]})

    def evaluate(config: RunConfig, folder: Path, index: int) -> Block:
        return block(1000)

    search(space, evaluate, LATENCY, folder=tmp_path / "search", rounds=1)
    model.write_bytes(b"another")
    with pytest.raises(ConfigError, match="another model"):
        search(space, evaluate, LATENCY, folder=tmp_path / "search", rounds=1)


def test_a_damaged_trial_and_a_search_in_progress_are_said(tmp_path: Path):
    def evaluate(config: RunConfig, folder: Path, index: int) -> Block:
        with pytest.raises(ConfigError, match="Another search is running"):
            search(TWO, Device(), LATENCY, folder=tmp_path, rounds=1)
        return block(1000)

    search(TWO, evaluate, LATENCY, folder=tmp_path, rounds=1, max_trials=1)
    (tmp_path / "trial_0" / "trial.json").write_text('{"number": 0, "assignment": 7}')
    with pytest.raises(RunFolderError, match="damaged"):
        search(TWO, Device(), LATENCY, folder=tmp_path, rounds=1)


def test_what_the_rounds_of_a_trial_share_goes_with_it_however_it_ends(tmp_path: Path):
    def interrupted(config: RunConfig, folder: Path, index: int) -> Block:
        (folder / SHARED).mkdir(exist_ok=True)
        (folder / SHARED / "model.onnx").touch()
        if folder.name == "trial_1":
            raise KeyboardInterrupt
        return block(1000)

    with pytest.raises(KeyboardInterrupt):
        search(TWO, interrupted, LATENCY, folder=tmp_path, rounds=2)
    assert not list(tmp_path.rglob("model.onnx"))
    partial = tmp_path / "trial_1" / ".run.123.partial"  # as a process that was killed leaves it
    partial.mkdir()
    found = search(TWO, Device(), LATENCY, folder=tmp_path, rounds=2, max_trials=2)
    assert [trial.state for trial in found.trials[:2]] == ["complete", "lost"]
    assert not partial.exists()


def test_a_caller_may_hold_the_folder_already(tmp_path: Path):
    with alone_in(tmp_path):
        assert search(TWO, Device(), LATENCY, folder=tmp_path, rounds=1, max_trials=1, held=True).trials
        with pytest.raises(ConfigError, match="Another search is running"):
            search(TWO, Device(), LATENCY, folder=tmp_path, rounds=1, max_trials=1)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path):
    (tmp_path / LOCK).mkdir()
    with pytest.raises(ConfigError, match="cannot be written"):
        search(TWO, Device(), LATENCY, folder=tmp_path, rounds=1)


def test_optuna_is_quiet_and_keeps_the_users_setting(tmp_path: Path, capfd):
    before = optuna.logging.get_verbosity()
    search(TWO, Device(), LATENCY, folder=tmp_path, rounds=1, max_trials=3)
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr().err == ""


def test_importing_the_search_imports_no_optuna():
    code = "import sys, workbench.tuning.search; sys.exit('optuna' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _search_slowly(folder: Path, log: Path, ready) -> None:
    def evaluate(config: RunConfig, where: Path, index: int) -> Block:
        with log.open("a") as file:
            file.write(f"{where.name}\n")
        time.sleep(0.003)
        return block(1000)

    ready.set()
    search(TWO, evaluate, THROUGHPUT, folder=folder, rounds=2)


def _lines(log: Path) -> int:
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.slow
def test_kills_lose_the_running_trial_alone(tmp_path: Path):
    """SIGKILL before, between and within rounds, again and again, then left alone until the whole space is measured."""
    folder, log, rng = tmp_path / "search", tmp_path / "log", random.Random(5)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["optuna", "pandas", "pytest", "scipy.optimize", "workbench.tuning.sampler"])
    kills, finished = 8, set()
    for attempt in range(kills + 1):
        ready = processes.Event()
        process = processes.Process(target=_search_slowly, args=(folder, log, ready))
        process.start()
        assert ready.wait(60)
        if attempt < kills:
            lines, wanted = _lines(log), rng.randrange(4)
            while process.is_alive() and _lines(log) < lines + wanted:
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.01))
            process.kill()
        process.join(60)
        trials = read_trials(folder)
        assert finished <= {trial.number for trial in trials if trial.state == "complete"}
        finished = {trial.number for trial in trials if trial.state == "complete"}
        assert sum(trial.state == "running" for trial in trials) <= 1
    assert process.exitcode == 0
    states = Counter(trial.state for trial in trials)
    assert states["complete"] == 12  # every possible configuration
    assert 0 < states["lost"] <= kills
    assert states.keys() <= {"complete", "lost"}
    rounds = Counter(log.read_text().split())
    assert all(rounds[f"trial_{number}"] == 2 for number in finished)
