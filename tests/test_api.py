"""The Python interface."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import workbench as wb
from workbench import user_cache
from workbench.api import run as api_run
from workbench.errors import ConfigError, ModelError, RunFolderError

BUDGET = {"seconds": 0.2, "min_seconds": 0, "nodes_calls": 3}
CLASSES = {"compute", "memory", "pcie", "launch", "sync", "other"}
PROMISED = {
    "verdict", "sub_cause", "runner_up", "confidence", "shares", "latency_ns", "attributed", "missing",
}  # fmt: skip


def modules_after(code):
    """Names of the top-level packages that a fresh interpreter has loaded after `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_heavy():
    heavy = {"plotly", "duckdb", "pandas", "onnxruntime", "typer", "jinja2", "onnx", "pyarrow", "pydantic", "yaml"}
    assert not modules_after("import workbench") & heavy


def test_profiling_needs_no_library_of_what_is_drawn():
    assert not modules_after("from workbench.capture.record import record") & {"plotly", "jinja2", "typer", "duckdb"}


def test_public_names_are_there_and_others_are_not():
    runs = {"Run", "RunConfig", "import_run", "load", "profile", "samples", "zoo", "__version__"}
    proof = {"Confirmation", "Validation", "confirm", "validate"}
    tuning = {"OutputCheck", "Search", "Sweep", "Tuning", "experiment", "levers", "recorded", "search", "sweep", "tune"}
    shown = {"explore", "lab", "monitor", "quiz"}
    assert set(wb.__all__) == runs | tuning | proof | shown
    assert dir(wb) == wb.__all__
    for name in wb.__all__:
        assert getattr(wb, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'profil'"):
        _ = wb.profil


@pytest.fixture(scope="module")
def run(small_model, known_ceilings, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(known_ceilings))
        config = {"provider": "cpu", "budget": BUDGET}
        return wb.profile(small_model, config, out=tmp_path_factory.mktemp("api") / "run")


def test_a_profiled_run_is_open(run):
    assert isinstance(run, wb.Run)
    assert isinstance(run.nodes, pd.DataFrame)
    assert {"name", "op_type", "start_ns", "duration_ns"} <= set(run.nodes.columns)
    assert run.manifest.complete
    assert len(run.work) == len(run.nodes)


def test_the_diagnosis_holds_what_was_promised(run):
    found = run.diagnosis.to_dict()
    assert set(found) >= PROMISED
    assert set(found["shares"]) == CLASSES
    assert found["shares"]["pcie"] is None  # not applicable on a CPU, which is not 0
    assert sum(share for share in found["shares"].values() if share is not None) == pytest.approx(1)
    assert found["latency_ns"] == run.manifest.latency.median_ns
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert run.diagnosis is run.diagnosis


def test_a_run_opens_again_with_the_same_diagnosis(run):
    again = wb.load(run.folder)
    pd.testing.assert_frame_equal(again.nodes, run.nodes)
    assert again.diagnosis.to_dict() == run.diagnosis.to_dict()
    assert again.sql("SELECT count(*) AS n FROM nodes")["n"].tolist() == [len(run.nodes)]


def test_a_configuration_may_hold_the_model(small_model, monkeypatch):
    seen = []

    def record(config, target, **options):
        seen.append((config, target, options))
        raise ModelError("seen.")

    monkeypatch.setattr(api_run, "record", record)
    for model, config in (
        (None, wb.RunConfig(model=str(small_model), seed=3)),
        (small_model, wb.RunConfig(model="other.onnx", seed=3)),
        (None, {"model": str(small_model), "seed": 3}),
    ):
        with pytest.raises(ModelError, match="seen"):
            wb.profile(model, config, out="there", timeout_s=5)
    assert {config.model for config, _, _ in seen} == {str(small_model)}
    assert {config.seed for config, _, _ in seen} == {3}
    assert {target for _, target, _ in seen} == {Path("there")}
    with pytest.raises(ConfigError, match="model"):
        wb.profile()


def test_runs_get_a_free_folder_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = api_run.free_folder("m")
    first.mkdir(parents=True)
    second = api_run.free_folder("m")
    assert first != second
    assert {first.parent, second.parent} == {Path("runs")}
    assert all(path.name.startswith("m-") for path in (first, second))


def test_a_model_is_a_path_or_a_name_of_the_zoo(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    assert api_run.resolve_model("folder/m.onnx") == Path("folder/m.onnx")
    assert api_run.resolve_model("resnet50").is_file()
    built = api_run.resolve_model("launch")
    assert built.is_relative_to(user_cache.root())
    written = built.stat().st_mtime_ns
    assert api_run.resolve_model("launch").stat().st_mtime_ns == written
    with pytest.raises(ModelError, match="resnet50, compute"):
        api_run.resolve_model("resnet")


def test_four_small_samples_ship_with_the_package():
    found = wb.samples()
    assert set(found) == {"resnet50", "compute", "memory", "pcie"}
    size = sum(file.stat().st_size for run in found.values() for file in run.folder.iterdir())
    assert size < 2e6
    for name, sample in found.items():
        assert sample.manifest.complete
        assert wb.load(name).folder == sample.folder
        assert len(sample.kernels) > 0


def test_samples_hold_no_name_of_the_machine_they_come_from():
    for sample in wb.samples().values():
        for word in ("/home/", "/root/", "/tmp/", "hostname"):
            assert word not in sample.manifest.model_dump_json(), sample


def test_what_is_no_run_is_answered_with_the_samples(tmp_path):
    with pytest.raises(RunFolderError, match="compute, memory, pcie, resnet50"):
        wb.load("resnet")
    with pytest.raises(RunFolderError, match="is not a run"):
        wb.load(tmp_path)
