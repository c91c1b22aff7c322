"""What only a real GPU can show. Run on a GPU host before a release: `pytest -m gpu`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import workbench as wb
from workbench import zoo
from workbench.capture.doctor import examine
from workbench.capture.nsys import nsys_problem
from workbench.errors import OutOfMemoryError

pytestmark = pytest.mark.gpu
BUDGET = {"seconds": 2, "activity_calls": 5, "nodes_calls": 3}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "launch": zoo.write("launch", folder / "launch.onnx", nodes=100),
        "memory": zoo.write("memory", folder / "memory.onnx", elements=1 << 25),
    }


def profiled(models, name, folder, activity="cupti", **options):
    return wb.profile(models[name], {"budget": BUDGET, **options}, out=folder / "run", activity=activity)


@pytest.mark.parametrize("name", ["launch", "memory"])
def test_a_family_gets_its_class_with_everything_attributed(models, name, tmp_path):
    run = profiled(models, name, tmp_path, binding="device")
    assert run.manifest.providers[0] == "CUDAExecutionProvider"
    assert run.diagnosis.verdict.name == name
    assert run.diagnosis.attributed >= 0.99
    assert run.diagnosis.missing == []


@pytest.mark.parametrize("activity", ["cupti", "nsys"])
def test_a_cuda_graph_is_replayed_and_its_kernels_lead_back_to_their_nodes(models, tmp_path, activity):
    if activity == "nsys" and nsys_problem():
        pytest.skip(nsys_problem())
    run = profiled(models, "launch", tmp_path, binding="device", cuda_graph=True, activity=activity)
    assert len(run.graphs) > 0
    assert run.manifest.provider_options["CUDAExecutionProvider"]["enable_cuda_graph"] == "1"
    device = run.diagnosis.nodes.device
    kernels = device[device["table"] == "kernels"]
    assert len(kernels) == 100 * run.diagnosis.nodes.calls
    assert kernels["cause"].isna().mean() >= 0.99
    owner = run.diagnosis.nodes.executions.loc[kernels["node"], "op_type"].astype(str).to_numpy()
    assert (owner[kernels["name"].astype(str).str.contains("gemv").to_numpy()] == "MatMul").all()


def test_a_report_of_nsys_is_imported(tmp_path):
    if nsys_problem():
        pytest.skip(nsys_problem())
    model, workload = tmp_path / "launch.onnx", Path(__file__).with_name("capture_workload.py")
    zoo.write("launch", model, nodes=100)
    watched = [sys.executable, str(workload), str(model), "--profile", str(tmp_path / "p")]
    report = tmp_path / "report.nsys-rep"
    command = ["nsys", "profile", "--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none", f"--output={report}"]
    said = subprocess.run([*command, *watched], check=True, capture_output=True, text=True).stdout
    told = json.loads(next(line for line in said.splitlines() if line.startswith("{")))
    run = wb.import_run([report, *told["profiles"]], out=tmp_path / "run", range="measure")
    (clock,) = run.manifest.imported.clocks
    assert clock.joined, clock.reason
    assert abs(clock.offset_ns - told["starts_ns"][0]) <= clock.residual_ns + 2_000
    assert run.diagnosis.verdict.name == "launch"
    assert run.diagnosis.attributed > 0.99


def test_pinned_binding_copies_in_every_call(models, tmp_path):
    run = profiled(models, "memory", tmp_path, binding="pinned")
    copies = run.copies[(run.copies["pass"] == "activity") & (run.copies["call"] > 0)]
    big = copies[copies["bytes"] == 1 << 27]
    assert set(big["kind"]) == {"h2d", "d2h"}
    assert "pageable" not in {*big["source"], *big["target"]}
    assert run.diagnosis.verdict.name == "pcie"


def test_too_little_memory_is_one_sentence_and_leaves_nothing(models, tmp_path):
    with pytest.raises(OutOfMemoryError, match="smaller batch"):
        profiled(models, "memory", tmp_path, cuda={"gpu_mem_limit": 1 << 20})
    assert list(tmp_path.iterdir()) == []


def test_options_are_in_force(models, tmp_path):
    run = profiled(models, "launch", tmp_path, cuda={"use_tf32": False, "arena_extend_strategy": "kSameAsRequested"})
    options = run.manifest.provider_options["CUDAExecutionProvider"]
    assert options["use_tf32"] == "0"
    assert options["arena_extend_strategy"] == "kSameAsRequested"


def test_the_doctor_finds_every_source():
    states = {check.name: check.state for check in examine()}
    for name in ("NVIDIA driver", "CUDA versions", "CUDA provider", "cuDNN", "NVML", "GPM", "CUPTI"):
        assert states[name] == "ok", name


def test_a_cuda_graph_helps_a_launch_bound_run_about_as_predicted(models, tmp_path):
    config = {"model": str(models["launch"]), "binding": "device", "budget": BUDGET}
    found = wb.experiment(config, ["cuda-graph", "tf32-off"], rounds=5, out=tmp_path / "tried")
    graph, precision = found.experiments
    assert graph.outcome == "faster"
    assert graph.improvement
    assert [change.state for change in graph.readback.changes if change.option == "cuda_graph"] == ["in force"]
    assert graph.readback.observed.replays
    assert graph.prediction.gain == pytest.approx(1 - graph.comparison.ratio, rel=0.15)
    assert precision.outcome != "faster"


def test_callers_side_by_side_serve_more(models, tmp_path):
    config = {"model": str(models["launch"]), "binding": "device", "budget": BUDGET}
    found = wb.experiment(config, "concurrency-4", metric="throughput", rounds=4, out=tmp_path / "tried")
    assert found.experiments[0].comparison.ratio > 1
    run = found.run("concurrency-4")
    assert run.manifest.latency.callers == 4
    assert abs(sum(run.diagnosis.shares.values()) - 1) < 1e-9


@pytest.mark.parametrize("conversion", ["float16", "bfloat16", "int8_weights", "int4_weights", "optimized"])
def test_a_converted_encoder_runs_on_the_gpu(tmp_path, conversion):
    model = zoo.write("encoder", tmp_path / "encoder.onnx", layers=1, hidden=64, heads=4, feed_forward=128)
    options = {"provider": "cuda", "dims": {"sequence": 16}, "conversions": [conversion], "budget": BUDGET}
    run = wb.profile(model, options, out=tmp_path / "run")
    assert run.manifest.complete
    assert run.manifest.model.conversions == [conversion]
    assert (run.nodes["provider"] == "CUDAExecutionProvider").mean() > 0.5


def test_code_that_cuda_loads_is_seen(models, tmp_path):
    loads = profiled(models, "launch", tmp_path, binding="device").loads
    assert set(loads["kind"]) <= {"module", "function", "compiled"}
    assert len(loads) > 0


def test_a_launch_verdict_is_confirmed_by_the_graph_that_takes_the_launches_away(models, tmp_path):
    run = profiled(models, "launch", tmp_path, binding="device")
    found = run.confirm(rounds=3, out=tmp_path / "confirmed")
    assert (found.outcome, found.confirmed) == ("confirmed", ["launch"]), found.summary()
    (graph,) = found.steps[0].must_help
    assert graph.experiment.lever == "cuda-graph"
    assert graph.ratio[2] < 1
    assert abs(graph.share.value - graph.share.traced) <= 0.1
    assert found.run("launch", "cuda-graph").manifest.config["cuda_graph"] is True
    assert str(wb.Confirmation(found.folder)) == str(found)
