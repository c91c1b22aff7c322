"""`workbench confirm` and `wb.confirm`, with an executor that answers from the rounds recorded on an H200."""

import json
import os

import pytest

import workbench as wb
from tests.tuning.recorded_rounds import LABELLED, RecordedRounds, as_if_made_with
from workbench import zoo
from workbench.api import confirming
from workbench.cli.app import app
from workbench.errors import ConfigError, NoDriverError, RunFolderError

COMPUTE, BORDER = "compute-n4096-float32", "mlp-batch-4096"
BARE = ("manifest.json", "latency.parquet")


class Here(RecordedRounds):
    """In the place of the executor of this machine."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


@pytest.fixture
def model(tmp_path):
    return zoo.write("launch", tmp_path / "model.onnx", nodes=2, width=8)


@pytest.fixture
def lent(monkeypatch, tmp_path, model):
    """A GPU that has only the rounds of one group, and a run of that group; gives the run's folder."""

    def lend(group, arm, **how):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(confirming, "gpu_present", lambda: True)
        monkeypatch.setattr(confirming, "LocalExecutor", lambda device, device_id: Here(group, **how))
        return as_if_made_with(model, f"{group}-{arm}", tmp_path / "run")

    return lend


def ended(capsys, *words):
    """Exit status and standard output of a command."""
    status = app([*map(str, words)], standalone_mode=False)
    return status or 0, capsys.readouterr().out


def test_a_confirmed_verdict_ends_with_0_and_shows_both_kinds_of_share(lent, capsys):
    lent(COMPUTE, "device")
    status, said = ended(capsys, "confirm", "run", "--rounds", 3, "--out", "kept")
    assert status == 0
    lines = said.splitlines()
    assert lines[0].endswith("the verdict compute is confirmed, 3 rounds of fresh processes")
    rows = {line.split()[0]: line.split() for line in reversed(lines) if line.startswith("  ")}
    assert rows["tf32-off"][1] == "test"
    assert rows["cuda-graph"][1] == "control"
    again = wb.Confirmation("kept")
    own = again.steps[0].must_help[0]
    assert f"{own.ratio[0]:.2f}" in rows["tf32-off"]
    assert f"{own.share.value:.2f}" in rows["tf32-off"]
    assert f"{own.share.traced:.2f}" in rows["tf32-off"]
    assert str(again) == again.summary() == said.rpartition("\n\nFolder: ")[0]
    assert repr(again) == "<Confirmation of compute for compute-n-4096-dtype-float32, confirmed: kept>"
    assert all(len(line) <= 118 for line in lines)


def test_a_refuted_verdict_ends_with_3_and_names_the_class_that_was_confirmed_instead(lent, capsys):
    lent(BORDER, "numpy", altered={"io-binding-device": 1.0})
    status, said = ended(capsys, "confirm", "run", "--rounds", 3, "--json")
    assert status == 3
    assert said.count("\n") == 1
    found = json.loads(said)
    assert (found["verdict"], found["outcome"], found["confirmed"]) == ("pcie", "refuted", ["compute"])
    assert [(step["class"], step["outcome"]) for step in found["steps"]] == [
        ("pcie", "refuted"), ("compute", "confirmed"),
    ]  # fmt: skip
    (lever,) = found["steps"][0]["levers"]
    assert (lever["lever"], lever["role"]) == ("io-binding-device", "test")
    assert lever["predicted"] < 0.6 < lever["measured"]
    assert lever["interval"][0] <= lever["interventional"] <= lever["interval"][1] < 0.1
    text = wb.Confirmation(found["folder"]).summary()
    assert "What holds the run back, by intervention: compute." in text


def test_what_cannot_be_decided_ends_with_4(lent, capsys):
    lent(COMPUTE, "device", in_force=False)
    status, said = ended(capsys, "confirm", "run", "--rounds", 3)
    assert status == 4
    assert "read back 1: not in force" in said
    assert "–" in said


def test_the_run_confirms_itself_and_its_runs_can_be_opened(lent):
    folder = lent(COMPUTE, "device")
    seen = []
    found = wb.load(folder).confirm(rounds=3, progress=lambda name, share: seen.append(name))
    assert found.folder.parent.name == "runs"
    assert found.folder.name.startswith("compute-n-4096-dtype-float32-confirmation-")
    assert (found.outcome, found.confirmed) == ("confirmed", ["compute"])
    assert found.run("compute").diagnosis.verdict.name == "compute"
    assert found.run("compute", "tf32-off").manifest.config["cuda"]["use_tf32"] is False
    assert "compute: record tf32-off" in seen
    with pytest.raises(RunFolderError, match=r"no run of launch base: there are compute base, compute cuda-graph"):
        found.run("launch")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_what_ends_it_half_way_leaves_nothing(lent, monkeypatch, tmp_path, stop):
    def stopped(self, jobs):
        raise stop

    folder = lent(COMPUTE, "device")
    monkeypatch.setattr(Here, "_round", stopped)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(stop):
        wb.confirm(folder, out="kept", rounds=3)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"rounds": 2}, ConfigError, "'rounds' cannot be 2: an interval takes 3"),
        ({"activity": "none"}, ConfigError, "take 'activity' auto, cupti or nsys"),
        ({"seed": -1}, ConfigError, "cannot be -1"),
        ({"out": "run"}, RunFolderError, "run exists already"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_runs(lent, tmp_path, options, error, said):
    folder = lent("launch-100", "device")
    with pytest.raises(error, match=said):
        wb.confirm(folder, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "run"]


def test_without_a_gpu_it_says_so_and_makes_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr(confirming, "gpu_present", lambda: False)
    folder = as_if_made_with(model, "launch-100-device", tmp_path / "run", BARE)
    with pytest.raises(NoDriverError, match="copy the run and its model to a host that has one"):
        wb.confirm(folder, out=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"device": {"kind": "cpu", "name": "a CPU"}}, "on a CPU"),
        ({"imported": {"files": []}}, "imported capture"),
        ({"config": {"model": "gone.onnx"}}, "is not there"),
        ({"model": {"name": "launch", "sha256": "0" * 64}}, "another one"),
    ],
)
def test_a_run_that_cannot_be_repeated_is_one_sentence(command, model, changed, said):
    as_if_made_with(model, "launch-100-device", command.folder / "run", BARE, **changed)
    command("confirm", "run", "--json").failed(2, said)
    assert command.left() == ["run"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["confirm", "none"], 1, "no run folder none"),
        (["confirm", LABELLED / "runs" / "launch-100-device", "--rounds", 1], 2, "an interval takes 3"),
        (["confirm", LABELLED / "runs" / "launch-100-device", "--timeout", 0], 2, "'timeout' cannot be 0"),
        (["confirm", LABELLED / "runs" / "launch-100-device", "--activity", "cuptii"], 2, "'cupti'"),
    ],
)
def test_wrong_usage_is_one_sentence(command, words, status, said):
    command(*words).failed(status, said)
    assert command.left() == []
