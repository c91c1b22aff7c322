"""A whole run on the CPU, and what happens when a GPU is there but cannot be used."""

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnxruntime import InferenceSession

from workbench.capture import passes as passes_module
from workbench.capture import process as process_module
from workbench.capture import record as module
from workbench.capture import resolve
from workbench.capture.convert import cached
from workbench.capture.feeds import load_feeds, make_feeds
from workbench.capture.libraries import missing_cuda_libraries
from workbench.capture.model import read_model
from workbench.capture.record import record
from workbench.config import RunConfig
from workbench.errors import CpuFallbackError, FeedError, SourceError, WorkerError, WorkerTimeoutError
from workbench.runs.manifest import DeviceInfo
from workbench.runs.reader import RunFolder

BUDGET = {"seconds": 0.3, "min_seconds": 0, "activity_calls": 4, "nodes_calls": 4}


def config_of(model, **options):
    return RunConfig(model=str(model), budget=BUDGET, **options)


@pytest.fixture(scope="module")
def recorded(small_model, known_ceilings, tmp_path_factory):
    """One run on the CPU, its progress, and what lay beside it at its end."""
    folder, progress = tmp_path_factory.mktemp("recorded"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(known_ceilings))
        path = record(
            config_of(small_model, provider="cpu"),
            folder / "run",
            progress=lambda name, share: progress.append((name, share)),
        )
    return RunFolder(path), progress, sorted(entry.name for entry in folder.iterdir())


def test_nothing_but_the_run_is_left(recorded):
    run, _, beside = recorded
    assert beside == ["run"]
    tables = {"latency", "steps", "ranges", "nodes", "session_events"}
    assert {entry.name for entry in run.folder.iterdir()} == {
        "manifest.json", "graph.onnx", "model.onnx", *(f"{name}.parquet" for name in tables)
    }  # fmt: skip


def test_the_manifest_says_what_was_run(recorded, small_model):
    manifest = recorded[0].manifest
    assert manifest.complete
    assert manifest.config == {"model": str(small_model), "provider": "cpu", "budget": BUDGET}
    assert manifest.model.name == "small"
    assert manifest.model.feed_shapes == {"x": [1, 8]}
    assert [(t.name, t.type, t.shape) for t in (*manifest.model.inputs, *manifest.model.outputs)] == [
        ("x", "float32", [1, 8]), ("y", "float32", [1, 8]),
    ]  # fmt: skip
    assert manifest.device.kind == "cpu"
    assert manifest.providers == ["CPUExecutionProvider"]
    assert {"python", "onnxruntime", "onnx"} <= set(manifest.software)
    assert abs(manifest.created_ns - time.time_ns()) < 3600e9


def test_every_pass_says_how_it_went(recorded):
    passes = recorded[0].manifest.passes
    assert {name: info.state for name, info in passes.items()} == {
        "latency": "complete", "counters": "skipped", "activity": "skipped", "nodes": "complete",
    }  # fmt: skip
    assert passes["counters"].reason == passes["activity"].reason == "the run is on the CPU"
    assert passes["latency"].dilation == 1.0
    assert passes["nodes"].dilation > 0
    assert passes["nodes"].measured_calls == 4


def test_every_source_says_whether_it_answered(recorded):
    sources = recorded[0].manifest.sources
    assert {name: source.state for name, source in sources.items()} == {
        "wall_clock": "present", "ort_profiler": "present", "ceilings": "present", "activity": "absent",
    }  # fmt: skip


def test_the_quoted_latency_is_that_of_the_measured_calls(recorded):
    run = recorded[0]
    calls = run.latency.query("`pass` == 'latency'")
    measured = calls[calls["phase"] == "measured"]["duration_ns"]
    said = run.manifest.latency
    assert said.median_ns == np.median(measured)
    assert said.ci_low_ns <= said.median_ns <= said.ci_high_ns
    assert said.measured_calls == len(measured)
    assert said.warmup_calls == len(calls) - len(measured)
    assert calls["phase"].iloc[0] == "cold"
    assert calls["call"].tolist() == list(range(len(calls)))


def test_passes_are_processes_of_their_own(recorded):
    processes = recorded[0].latency.groupby("pass")["process"].unique()
    assert {len(found) for found in processes} == {1}
    assert processes["latency"][0] != processes["nodes"][0] != os.getpid()


def test_the_cold_start_is_split_into_its_steps_in_order(recorded):
    steps = recorded[0].steps
    assert steps["name"].tolist() == ["import", "libraries", "session", "binding", "first call"]
    ends = (steps["start_ns"] + steps["duration_ns"]).to_numpy()
    assert (steps["start_ns"].to_numpy()[1:] >= ends[:-1]).all()
    cold = recorded[0].latency.iloc[0]
    assert steps.iloc[-1]["start_ns"] <= cold["start_ns"]
    assert ends[-1] >= cold["start_ns"] + cold["duration_ns"]


def test_every_measured_call_holds_its_nodes(recorded):
    run = recorded[0]
    calls = run.latency.query("`pass` == 'nodes'").set_index("call")
    nodes = run.nodes[run.nodes["call"] >= 0]
    assert set(nodes["call"]) == set(calls.index)
    assert set(nodes.groupby("call").size()) == {6}
    begun = calls["start_ns"].reindex(nodes["call"]).to_numpy()
    ended = begun + calls["duration_ns"].reindex(nodes["call"]).to_numpy()
    assert (nodes["start_ns"].to_numpy() >= begun - 1000).all()  # the profiler counts whole microseconds
    assert (nodes["start_ns"].to_numpy() + nodes["duration_ns"].to_numpy() <= ended + 2000).all()


def test_the_graph_is_kept_without_its_weights(recorded):
    run = recorded[0]
    assert {node.op_type for node in run.graph.graph.node} >= {"Tanh"}
    assert not [tensor for tensor in run.graph.graph.initializer if tensor.data_type == 1]
    assert {node.name for node in run.graph.graph.node} == set(run.nodes["name"])


def test_progress_rises_to_one_in_every_pass(recorded):
    progress = recorded[1]
    names = ["latency", "counters", "activity", "nodes", "ceilings"]
    assert list(dict.fromkeys(name for name, _ in progress)) == names
    assert [share for name, share in progress if name in ("counters", "activity")] == [1.0, 1.0]  # skipped on a CPU
    for wanted in ("latency", "nodes", "ceilings"):
        shares = [share for name, share in progress if name == wanted]
        assert shares == sorted(shares)
        assert (shares[0], shares[-1]) == (0.0, 1.0)


def refusal_of(kind, *arguments, **options):
    with pytest.raises(kind) as refusal:
        record(*arguments, **options)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.fixture
def unusable_gpu(monkeypatch):
    """A GPU that answers while the CUDA provider's libraries do not load."""
    if not missing_cuda_libraries():
        pytest.skip("every library of the CUDA provider loads here")
    monkeypatch.setattr(resolve, "gpu_present", lambda: True)


@pytest.mark.usefixtures("unusable_gpu")
def test_onnx_runtime_that_falls_back_to_the_cpu_names_its_missing_library(small_model, tmp_path):
    assert "did not load" in refusal_of(CpuFallbackError, config_of(small_model), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("unusable_gpu")
def test_a_fall_back_that_is_allowed_is_a_cpu_run_that_says_so(small_model, tmp_path, monkeypatch, known_ceilings):
    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    monkeypatch.setattr(resolve, "cupti_problem", lambda: "")
    run = RunFolder(record(config_of(small_model, allow_cpu=True), tmp_path / "run"))
    assert run.manifest.complete
    assert run.manifest.device.kind == "cpu"
    assert "did not load" in run.manifest.notes[0]
    assert run.manifest.sources["activity"].reason == "the run is on the CPU"
    assert "cupti" not in run.manifest.sources
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.usefixtures("unusable_gpu")
def test_a_conversion_that_cannot_use_the_gpu_falls_back_as_allowed(small_model, tmp_path, monkeypatch, known_ceilings):
    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    monkeypatch.setattr(cached, "describe_device", lambda kind, device_id: DeviceInfo(kind=kind, name="any"))
    config = config_of(small_model, conversions=["optimized"])
    assert "did not load" in refusal_of(CpuFallbackError, config, tmp_path / "run")
    run = RunFolder(record(config.changed(allow_cpu=True), tmp_path / "run", passes=()))
    assert run.manifest.device.kind == "cpu"
    assert [note.split(":")[0] for note in run.manifest.notes[:1]] == ["Measured on the CPU, as allowed"]
    assert sum("'optimized' saved the graph" in note for note in run.manifest.notes) == 1


class Broken:
    """`run_worker` that fails in one pass."""

    def __init__(self, pass_name, error):
        self.pass_name, self.error, self.real = pass_name, error, process_module.run_worker

    def __call__(self, spec, folder, **options):
        if spec.pass_name == self.pass_name:
            folder.mkdir(parents=True)
            (folder / "nodes.parquet").write_text("half a table")
            raise self.error
        return self.real(spec, folder, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "state", "complete"),
    [(WorkerError("it died."), "failed", False), (SourceError("it refused."), "skipped", True)],
)
def test_a_later_pass_that_fails_leaves_the_run_and_is_written_down(
    small_model, tmp_path, monkeypatch, known_ceilings, error, state, complete
):
    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    monkeypatch.setattr(passes_module, "run_worker", Broken("nodes", error))
    run = RunFolder(record(config_of(small_model, provider="cpu"), tmp_path / "run"))
    assert run.manifest.complete is complete
    assert run.manifest.passes["nodes"].state == state
    assert run.manifest.passes["nodes"].reason == str(error)
    assert run.manifest.sources["ort_profiler"].state == "failed"
    assert len(run.nodes) == 0
    assert len(run.latency) > 0


@pytest.mark.parametrize("error", [WorkerTimeoutError("too slow."), KeyboardInterrupt()])
def test_a_latency_pass_that_fails_leaves_nothing(small_model, tmp_path, monkeypatch, error):
    monkeypatch.setattr(passes_module, "run_worker", Broken("latency", error))
    with pytest.raises(type(error)):
        record(config_of(small_model, provider="cpu"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ceilings_that_cannot_be_measured_are_written_down(small_model, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise WorkerError("no ceilings today.")

    monkeypatch.setattr(module, "measure_in_process", fail)
    run = RunFolder(record(config_of(small_model, provider="cpu"), tmp_path / "run"))
    assert run.manifest.complete
    assert run.manifest.sources["ceilings"].reason == "no ceilings today."
    assert run.manifest.ceilings.memory_bytes_per_s is None


@pytest.mark.slow
def test_a_rebatched_copy_and_the_made_inputs_are_removed(tmp_path, monkeypatch, known_ceilings, small_model):
    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    run = RunFolder(record(config_of(small_model, provider="cpu", batch=3), tmp_path / "run"))
    assert run.manifest.model.rebatched_to == 3
    assert run.manifest.model.feed_shapes == {"x": [3, 8]}
    assert json.loads(run.nodes["output_shapes"].iloc[0]) == [{"float": [3, 8]}]
    left = {path.name for path in run.folder.iterdir()}
    assert not left & {"rebatched.onnx", "feeds.npz", "passes"}
    fed = run.model_graph.graph.input[0]
    assert [size.dim_value for size in fed.type.tensor_type.shape.dim] == [3, 8]
    assert not run.model_graph.graph.initializer
    assert Path(small_model).is_file()


@pytest.mark.slow
def test_only_the_passes_asked_for_are_made_and_outputs_are_kept(small_model, tmp_path, monkeypatch, known_ceilings):
    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    path = record(config_of(small_model, provider="cpu"), tmp_path / "run", passes=(), keep_outputs=True)
    run = RunFolder(path)
    assert run.manifest.passes["nodes"].state == "skipped"
    assert run.manifest.passes["nodes"].reason == "not asked for"
    assert len(run.nodes) == 0
    feeds = make_feeds(read_model(small_model), config_of(small_model))[0]
    expected = InferenceSession(small_model, providers=["CPUExecutionProvider"]).run(None, feeds)
    assert np.array_equal(load_feeds(path / "outputs.npz")["y"], expected[0])
    peak = run.manifest.passes["latency"].peak_host_bytes
    assert 30e6 < peak < 4e9
    assert run.manifest.passes["latency"].peak_device_bytes is None


@pytest.mark.slow
def test_callers_side_by_side_are_measured_together_and_nodes_alone(small_model, tmp_path, monkeypatch, known_ceilings):
    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    config = config_of(small_model, provider="cpu", concurrency=2, sessions=2)
    run = RunFolder(record(config, tmp_path / "run"))
    latency, bare = run.latency, run.manifest.latency
    assert bare.callers == 4
    calls = latency[(latency["pass"] == "latency") & (latency["phase"] == "measured")]
    ends = calls["start_ns"] + calls["duration_ns"]
    assert bare.measured_calls == len(calls)
    window_ns = ends.max() - calls["start_ns"].min()
    assert 0.5 < bare.median_ns * len(calls) / window_ns < 2
    assert calls["duration_ns"].sum() > 1.1 * window_ns  # more than one call is in flight
    of_nodes = latency[latency["pass"] == "nodes"]
    assert (of_nodes["start_ns"].diff().dropna() >= of_nodes["duration_ns"].iloc[:-1].to_numpy()).all()


@pytest.mark.slow
def test_later_shapes_are_steps_of_the_cold_start(tmp_path, monkeypatch, known_ceilings, command):
    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    command.save("open.onnx", [helper.make_node("Relu", ["x"], ["y"])], [("x", TensorProto.FLOAT, ["n", 4])])
    config = config_of(
        command.folder / "open.onnx", provider="cpu", shapes={"x": [2, 4]},
        later_shapes=[{"x": [3, 4]}, {"x": [5, 4]}],
    )  # fmt: skip
    run = RunFolder(record(config, tmp_path / "run", passes=()))
    names = run.steps["name"].tolist()
    assert names[-5:] == ["first call", "shape 2", "shape 2 again", "shape 3", "shape 3 again"]
    assert (run.steps["duration_ns"].to_numpy()[-5:] > 0).all()
    assert list(run.folder.glob("*.npz")) == []


@pytest.mark.parametrize("feeds", [[{"x": [3, 5]}], [{"z": [3, 4]}]])
def test_a_later_shape_that_does_not_fit_is_refused_before_anything_runs(tmp_path, command, feeds):
    command.save("open.onnx", [helper.make_node("Relu", ["x"], ["y"])], [("x", TensorProto.FLOAT, ["n", 4])])
    config = config_of(command.folder / "open.onnx", provider="cpu", shapes={"x": [2, 4]}, later_shapes=feeds)
    with pytest.raises(FeedError):
        record(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
