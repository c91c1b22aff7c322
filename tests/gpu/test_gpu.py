"""What only a real GPU can show. Run on a GPU host before a release: `pytest -m gpu`."""

import pytest

import workbench as wb
from workbench import zoo
from workbench.capture.doctor import examine
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


def profiled(models, name, folder, **options):
    return wb.profile(models[name], {"budget": BUDGET, **options}, out=folder / "run", activity="cupti")


@pytest.mark.parametrize("name", ["launch", "memory"])
def test_a_family_gets_its_class_with_everything_attributed(models, name, tmp_path):
    run = profiled(models, name, tmp_path, binding="device")
    assert run.manifest.providers[0] == "CUDAExecutionProvider"
    assert run.diagnosis.verdict.name == name
    assert run.diagnosis.attributed >= 0.99
    assert run.diagnosis.missing == []


def test_a_cuda_graph_is_replayed(models, tmp_path):
    run = profiled(models, "launch", tmp_path, binding="device", cuda_graph=True)
    assert len(run.graphs) > 0
    assert run.manifest.provider_options["CUDAExecutionProvider"]["enable_cuda_graph"] == "1"


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
