"""What the command line prints for a program, and how flags and a configuration file go together."""

import json

import pytest

from workbench import zoo
from workbench.config import RunConfig

pytestmark = pytest.mark.slow  # each test starts the command line in a process of its own

ON_CPU = ("--provider", "cpu", "--budget", "0.2", "--out", "run")


def test_json_is_one_object_on_standard_output_in_success(command, small_model):
    ended = command("profile", small_model, *ON_CPU, "--json")
    assert ended.status == 0
    assert ended.said == ""
    assert {"run", "complete", "verdict", "shares", "confidence"} <= set(ended.json)
    assert ended.json["complete"] is True
    assert command.left() == ["run"]


@pytest.mark.parametrize(
    ("words", "status", "kind"),
    [
        (["profile", "none.onnx"], 1, "ModelError"),
        (["profile", "resnet50", "--batch", "0"], 2, "ConfigError"),
        (["diagnose", "none"], 1, "RunFolderError"),
        (["zoo", "resnet"], 2, "ConfigError"),
    ],
)
def test_json_is_one_object_on_standard_output_in_failure(command, words, status, kind):
    ended = command(*words, "--json").failed(status)
    assert ended.json == {"error": kind, "message": ended.said}


def test_json_of_the_other_commands(command):
    assert command("diagnose", "resnet50", "--json").json["verdict"] == "launch"
    assert command("doctor", "--json").json["checks"][0]["name"] == "Python"
    assert {model["name"] for model in command("zoo", "--json").json["models"]} == {m.name for m in zoo.models()}
    written = command("zoo", "launch", "--set", "nodes=2", "--out", "small.onnx", "--json")
    assert written.json["bytes"] == (command.folder / "small.onnx").stat().st_size


def test_flags_win_over_the_file_and_the_model_may_stand_on_the_command_line(command, small_model):
    (command.folder / "run.yaml").write_text("provider: cuda\nseed: 5\nbudget:\n  seconds: 0.2\n  nodes_calls: 3\n")
    ended = command("profile", small_model, "--config", "run.yaml", "--provider", "cpu", "--out", "run", "--json")
    assert ended.status == 0, ended
    saved = command("diagnose", "run", "--json")
    assert saved.json["latency_ns"] == ended.json["latency_ns"]
    config = RunConfig(**json.loads((command.folder / "run" / "manifest.json").read_text())["config"])
    assert (config.provider, config.seed, config.budget.nodes_calls) == ("cpu", 5, 3)


def test_a_capture_is_imported_and_exported(command, capture):
    export = capture("nsight_h200_four_classes.sqlite")
    choice = ("--range", "launch:measure", "--calls", "0..3", "--out", "run", "--report", "report.html")
    ended = command("import", export, *choice)
    assert ended.status == 0
    assert "held back by launch" in ended.stdout
    assert "Run folder: run" in ended.stdout
    assert command.left() == ["report.html", "run"]
    again = command("import", export, "--range", "pcie:measure", "--out", "other", "--json").json
    assert (again["run"], again["verdict"]) == ("other", "pcie")
    assert command("export", "run", "--json").json == {"files": [str(command.folder / "run.perfetto-trace")]}
    assert command("export", "run", "--format", "csv", "--out", "tables").status == 0
    assert "kernels.csv" in [path.name for path in (command.folder / "tables").iterdir()]
    assert command("diagnose", "run", "--json").json["verdict"] == "launch"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["import", "nothing.sqlite"], 2, "There is no file"),
        (["import", "{export}", "--range", "launch:mesure"], 2, "'launch:measure'"),
        (["import", "{export}", "--calls", "some"], 2, "such as 20..30"),
        (["import", "{export}", "--process", "1"], 2, "process 654"),
        (["export", "pcie", "--format", "xls"], 2, "perfetto, csv, parquet"),
        (["import"], 2, "files"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence_and_leaves_nothing(command, capture, words, status, said):
    export = capture("nsight_h200_four_classes.sqlite")
    ended = command(*(word.format(export=export) for word in words)).failed(status)
    assert said in ended.said
    assert [name for name in command.left() if name != "runs" or list((command.folder / "runs").iterdir())] == []
