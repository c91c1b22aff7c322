"""What a user can get wrong, through the real command line.

Each failure ends with its exit status and one sentence on standard error, and leaves no part of a run behind.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.slow  # each test starts the command line in a process of its own

F32 = TensorProto.FLOAT
ON_CPU = ("--provider", "cpu", "--budget", "0.2", "--out", "run")


# The model file


@pytest.mark.parametrize(
    ("damage", "said"),
    [(lambda data: b"Not a model at all.\n" * 50, "is not an ONNX file"), (lambda data: data[:-200], "is cut off")],
)
def test_a_file_that_is_no_whole_model(command, small_model, damage, said):
    (command.folder / "m.onnx").write_bytes(damage(small_model.read_bytes()))
    command("profile", "m.onnx", *ON_CPU).failed(1, "m.onnx", said)
    assert command.left() == ["m.onnx"]


def test_missing_weights(command):
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    command.save("m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], [("x", F32, [1, 64])], [weight])
    model = onnx.load_model(command.folder / "m.onnx")
    onnx.save_model(model, command.folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (command.folder / "w.bin").unlink()
    command("profile", "m.onnx", *ON_CPU).failed(1, "w.bin", "missing")
    assert command.left() == ["m.onnx"]


def test_an_operator_that_onnx_runtime_lacks(command):
    node = helper.make_node("Frobnicate", ["x"], ["y"], domain="com.acme")
    command.save("m.onnx", [node], [("x", F32, [1])], domains=["com.acme"])
    command("profile", "m.onnx", *ON_CPU).failed(1, "com.acme:Frobnicate")
    assert command.left() == ["m.onnx"]


def test_a_model_that_is_nowhere(command):
    command("profile", "resnet", *ON_CPU).failed(1, "'resnet'", "resnet50")
    assert command.left() == []


# The options


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--shape", "x:1,9"], 1, "takes shape [1, 8], not [1, 9]"),
        (["--shape", "x:1,nine"], 2, "input:1,3,224,224"),
        (["--cuda", "use_tf33=0"], 2, "did you mean 'use_tf32'"),
        (["--session", "session.disable_prepaking=1"], 2, "did you mean 'session.disable_prepacking'"),
        (["--cuda-graph"], 2, "binding 'device'"),
        (["--timeout", "0"], 2, "above 0"),
        (["--activity", "perf"], 2, "cupti, none, nsys"),
    ],
)
def test_an_option_that_cannot_be(command, small_model, words, status, said):
    command("profile", small_model, "--out", "run", *words).failed(status, said)
    assert command.left() == []


def test_an_unknown_key_of_a_configuration_file(command):
    (command.folder / "run.yaml").write_text("model: resnet50\nbugdet:\n  seconds: 1\n")
    command("profile", "--config", "run.yaml", "--out", "run").failed(2, "did you mean 'budget'")
    assert command.left() == ["run.yaml"]


@pytest.mark.parametrize("words", [["--no-such-flag"], ["--batch", "many"], []])
def test_words_that_the_command_line_does_not_take(command, words):
    ended = command("profile", *words, "--json")
    assert ended.status == 2
    assert ended.json == {"error": "UsageError", "message": ended.said}
    assert "\n" not in ended.said


def test_inputs_beyond_memory(command):
    command.save("m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [("x", F32, ["n"])])
    command("profile", "m.onnx", "--dim", f"n={2**50}", *ON_CPU).failed(1, "does not fit the host's memory")
    assert command.left() == ["m.onnx"]


# The folder


def test_a_folder_that_exists_already(command, small_model):
    (command.folder / "run").mkdir()
    (command.folder / "run" / "mine").write_text("1")
    command("profile", small_model, *ON_CPU).failed(1, "run exists already")
    assert command.left() == ["run"]
    assert (command.folder / "run" / "mine").read_text() == "1"


def test_a_folder_that_cannot_be_made(command, small_model):
    (command.folder / "file").write_text("1")
    command("profile", small_model, "--provider", "cpu", "--out", "file/run").failed(1, "another place")
    assert command.left() == ["file"]


@pytest.mark.parametrize("name", ["diagnose", "report"])
def test_what_is_no_run(command, name):
    (command.folder / "folder").mkdir()
    command(name, "folder").failed(1, "folder is not a run")
    command(name, "nowhere").failed(1, "nowhere", "resnet50")
    assert command.left() == ["folder"]
