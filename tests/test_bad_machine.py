"""What a machine can refuse, through the real command line: disk, memory, driver, time, and a worker that dies.

Each failure ends with its exit status and one sentence on standard error, and leaves no part of a run behind.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from workbench import zoo

pytestmark = pytest.mark.slow  # each test starts the command line in a process of its own

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
ON_CPU = ("--provider", "cpu", "--budget", "0.2", "--out", "run")
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
A_GPU = "from workbench.capture import resolve\nresolve.gpu_present = lambda: True"
needs_proc = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the worker through /proc")


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int):
    """A disk of `size_bytes` at `folder`, or else the Python code that limits the size of each file to as much."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield "" if mounted else f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size_bytes},) * 2)"
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full_before_anything_runs(command):
    command.save("m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [("x", F32, [2**20])])
    with small_disk(command.folder / "disk", 2**20) as before:
        command("profile", "m.onnx", *ON_CPU[:-1], "disk/run", before=before).failed(1, "full", "--out")
        assert list((command.folder / "disk").iterdir()) == []


@pytest.mark.parametrize(
    ("size_bytes", "most_calls"),
    [
        (24 << 10, 20_000),  # the table of calls does not fit
        (96 << 10, 300),  # the profile of ONNX Runtime does not fit, which it does not say
        (400 << 10, 300),  # the weights of its optimised graph do not fit
    ],
)
def test_a_disk_that_fills_up_while_a_pass_writes(command, size_bytes, most_calls):
    weight = numpy_helper.from_array(np.random.default_rng(0).random((128, 1024), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    if size_bytes == 400 << 10:
        command.save("m.onnx", [node], [("x", F32, [1, 128])], [weight])
    else:
        zoo.write("launch", command.folder / "m.onnx", nodes=100, width=4)
    budget = {"seconds": 0.3, "max_calls": most_calls, "relative_ci": 1e-9, "nodes_calls": 100}
    (command.folder / "budget.json").write_text(json.dumps({"budget": budget}))
    with small_disk(command.folder / "disk", size_bytes) as before:
        words = ("--provider", "cpu", "--config", "budget.json", "--out", "disk/run")
        command("profile", "m.onnx", *words, before=before).failed(1, "full", "--out")
        assert list((command.folder / "disk").iterdir()) == []


def test_no_driver(command, small_model):
    ended = command("profile", small_model, "--provider", "cuda", "--out", "run", environment=NO_GPU)
    ended.failed(1, "no NVIDIA driver answers", "--allow-cpu")
    assert command.left() == []


@pytest.mark.parametrize(
    ("activity", "before", "environment", "said"),
    [
        ("cupti", "import sys\nsys.modules['cupti'] = None", {}, "cupti-python does not load"),
        ("nsys", "", {"PATH": "/nowhere"}, "nsys is not on PATH"),
    ],
)
def test_a_source_of_device_work_that_is_not_there(command, small_model, activity, before, environment, said):
    ended = command(
        "profile", small_model, "--activity", activity, "--out", "run",
        before=f"{before}\n{A_GPU}", environment=environment,
    )  # fmt: skip
    ended.failed(1, said, "--activity auto")
    assert command.left() == []


def test_memory_that_runs_out_in_the_worker(command):
    command.save("m.onnx", [helper.make_node("ConstantOfShape", ["s"], ["y"])], [("s", I64, [1])])
    np.savez(command.folder / "f.npz", s=np.array([2**43]))
    command("profile", "m.onnx", "--feeds", "f.npz", *ON_CPU).failed(1, "Out of memory", str(2**45), "smaller batch")
    assert command.left() == ["f.npz", "m.onnx"]


@pytest.fixture
def endless(command) -> Path:
    """A model whose call never returns: a loop of 2⁶² turns."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go"]), helper.make_node("Tanh", ["v_in"], ["v"])],
        "body",
        [
            helper.make_tensor_value_info("turn", I64, []),
            helper.make_tensor_value_info("go_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", F32, [1]),
        ],
        [helper.make_tensor_value_info("go", TensorProto.BOOL, []), helper.make_tensor_value_info("v", F32, [1])],
    )
    turns = numpy_helper.from_array(np.array(2**62), "turns")
    loop = helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)
    command.save("../endless.onnx", [loop], [("x", F32, [1])], [turns])
    return command.folder.parent / "endless.onnx"


def test_a_time_limit(command, endless):
    command("profile", endless, "--timeout", "2", *ON_CPU).failed(1, "latency pass", "limit of 2 s", "--timeout")
    assert command.left() == []


def worker_of(process, pass_name):
    """The process id of the worker that runs `pass_name`, once it is there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                words = (entry / "cmdline").read_text()
                if parent == process.pid and "capture.worker" in words and f"passes/{pass_name}/" in words:
                    return int(entry.name)
        time.sleep(0.005)
    raise AssertionError(f"the {pass_name} worker never started: {process.communicate()}")


def is_gone(pid):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.01)
    return False


@needs_proc
def test_a_worker_that_is_killed_in_the_latency_pass(command, endless):
    process = command.start("profile", endless, *ON_CPU)
    os.kill(worker_of(process, "latency"), signal.SIGKILL)
    command.end(process).failed(1, "latency pass", "SIGKILL", "memory")
    assert command.left() == []


@needs_proc
def test_a_worker_that_is_killed_in_a_later_pass(command, small_model):
    process = command.start("profile", small_model, *ON_CPU, "--json")
    os.kill(worker_of(process, "nodes"), signal.SIGKILL)
    ended = command.end(process).failed(1, "incomplete", "nodes pass", "SIGKILL")
    assert ended.json["complete"] is False
    assert ended.json["latency_ns"] > 0
    assert command.left() == ["run"]
    again = command("diagnose", "run", "--json")
    assert again.status == 0
    assert any("nodes" in said for said in again.json["missing"])


@needs_proc
@pytest.mark.parametrize(
    ("number", "pass_name"), [(signal.SIGINT, "latency"), (signal.SIGTERM, "latency"), (signal.SIGINT, "nodes")]
)
def test_an_interrupt_ends_the_worker_and_keeps_nothing(command, endless, small_model, number, pass_name):
    model = endless if pass_name == "latency" else small_model
    process = command.start("profile", model, *ON_CPU, "--json")
    worker = worker_of(process, pass_name)
    os.kill(process.pid, number)
    ended = command.end(process).failed(130, "Interrupted")
    assert ended.json["error"] == "Interrupted"
    assert is_gone(worker)
    assert command.left() == []



@needs_proc
@pytest.mark.parametrize("mode", [("--lever", "threads-1"), ("--sweep", "--batches", "1", "--callers", "1")])
@pytest.mark.parametrize("presses", [1, 2])
def test_an_interrupted_tuning_ends_its_worker_and_keeps_nothing(command, endless, mode, presses):
    process = command.start("tune", endless, *mode, *ON_CPU)
    worker = worker_of(process, "latency")
    for _ in range(presses):
        os.kill(process.pid, signal.SIGINT)
    command.end(process).failed(130, "Interrupted", "nothing was kept")
    assert is_gone(worker)
    assert command.left() == []


def test_an_interrupted_search_says_that_its_trials_are_kept_and_goes_on(command, small_model):
    words = ("tune", small_model, "--search", "--lever", "threads-1", "--rounds", "1", *ON_CPU)
    process = command.start(*words)
    first = command.folder / "run" / "trial_0" / "trial.json"
    deadline = time.monotonic() + 60
    while not (first.is_file() and json.loads(first.read_text())["state"] == "complete"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    command.end(process).failed(130, "Interrupted", "finished trials are kept", "--out run")
    assert not [path for path in command.folder.rglob("*") if path.suffix == ".partial" or path.name == "blocks"]
    kept = first.read_text()
    again = command(*words, "--json")
    assert again.status == 0, again
    assert {each["state"] for each in again.json["trials"]} <= {"complete", "lost"}
    assert first.read_text() == kept
