"""What the command line prints for a program, and how flags and a configuration file go together."""

import json

import pytest
from onnx import TensorProto, helper

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


TINY = ("--budget", 0.2, "--provider", "cpu")


def test_tune_tries_levers_and_its_best_configuration_can_be_profiled(command, small_model):
    done = command(
        "tune", small_model, *TINY, "--lever", "graph-level-disable", "--lever", "cuda-graph", "--set",
        "intra_op_threads=1", "--rounds", 3, "--out", "tuned", "--report", "tuned.html", "--json",
    )  # fmt: skip
    assert done.status == 0, done
    found = {each["name"]: each for each in done.json["experiments"]}
    assert list(found) == ["graph-level-disable", "cuda-graph", "change-3"]
    assert found["cuda-graph"]["outcome"] == "does not apply"
    assert found["graph-level-disable"]["parity"] == "within"
    assert found["change-3"]["ratio"] > 0
    assert (command.folder / "tuned.html").stat().st_size < 4e6
    again = command("profile", "--config", "tuned/best.yaml", "--out", "run", "--json")
    assert again.status == 0, again
    assert again.json["complete"]
    shown = command("diagnose", "tuned/runs/graph-level-disable", "--json")
    assert set(shown.json["shares"]) >= {"compute", "memory"}


def test_a_search_goes_on_where_it_was_stopped(command, small_model):
    arguments = (
        "tune", small_model, *TINY, "--search", "--lever", "graph-level-disable", "--lever", "threads-1", "--rounds", 1,
        "--out", "found", "--json",
    )  # fmt: skip
    first = command(*arguments, "--trials", 2)
    assert first.status == 0, first
    assert [each["number"] for each in first.json["trials"]] == [0, 1]
    second = command(*arguments)
    assert second.json["trials"][:2] == first.json["trials"]
    assert len(second.json["trials"]) == 4
    confirmed, kept = second.json["confirmed"], RunConfig.load(command.folder / "found" / "best.yaml")
    base = not {"session", "intra_op_threads"} & kept.model_fields_set
    assert base == (confirmed is None or confirmed["best"] == "base")
    assert command("diagnose", "found/trial_3/run").status == 0


def test_a_sweep_measures_every_cell(command, tmp_path):
    command.save("open.onnx", [helper.make_node("Relu", ["x"], ["y"])], [("x", TensorProto.FLOAT, ["batch", 8])])
    done = command("tune", "open.onnx", *TINY, "--sweep", "--batches", "1,4", "--callers", "1,2", "--json")
    assert done.status == 0, done
    cells = {(each["batch"], each["concurrency"]): each for each in done.json["cells"]}
    assert set(cells) == {(1, 1), (1, 2), (4, 1), (4, 2)}
    assert all(each["items_per_s"] > 0 and each["klass"] for each in cells.values())
    assert cells[4, 1]["items_per_s"] > cells[1, 1]["items_per_s"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--lever", "cuda-grpah"), ("cuda-grpah", "cuda-graph")),
        (("--objective", "speed"), ("speed", "throughput")),
        (("--constraint", "p99>10ms"), ("p99<10ms",)),
        (("--constraint", "quick"), ("quick", "p99<10ms")),
        (("--set", "cuda.use_tf23=0"), ("use_tf23", "use_tf32")),
        (("--rounds", "0"), ("rounds", "six")),
        (("--sweep", "--batches", "1,many"), ("1,many", "1,2,4")),
        (("--search", "--trials", "0"), ("one trial",)),
        (("--search", "--sweep"), ("--search", "--sweep")),
        (("--trials", "3"), ("--trials", "--search")),
        (("--sweep", "--lever", "threads-1"), ("--lever", "--sweep")),
        (("--sweep", "--constraint", "quick"), ("quick", "p99<10ms")),
        (("--objective", "memory"), ("CPU", "host-memory")),
        (("--timeout", "nan"), ("timeout",)),
        (("--tolerance", "nan"), ("tolerance", "0.01")),
        (("--order-seed", "-1"), ("seed", "-1")),
        (("--most", "0"), ("most", "0")),
    ],
)
def test_a_wrong_wish_is_refused_before_anything_runs(command, small_model, arguments, words):
    command("tune", small_model, *TINY, *arguments).failed(2, *words)
    assert command.left() == []


def test_levers_of_a_run_come_with_what_they_should_give(command):
    rows = {each["name"]: each for each in command("levers", "resnet50", "--json").json["levers"]}
    assert 0.5 < rows["cuda-graph"]["ratio"] < 0.9
    assert rows["batch-x8"]["treats_verdict"]
    assert rows["prefer-nhwc"]["ratio"] is None
    assert "attention-flash" not in rows
    plain = command("levers").stdout
    assert "cuda-graph" in plain
    assert "attention-flash" in plain
