"""The whole chain after capture, recomputed on runs recorded on a real H200."""

import json
import shutil

import numpy as np
import pytest

from workbench.analysis.device_work import call_times
from workbench.analysis.tables import measured_calls, rows_of
from workbench.api import load, samples
from workbench.errors import RunFolderError

RUNS = """
    compute_device compute_numpy memory_device memory_numpy pcie_device pcie_numpy launch_device launch_numpy
    resnet50_b1_numpy resnet50_b1_device resnet50_b64_device encoder_device decoder_device launch_device_nsys
    resnet50_b1_device_nsys launch_device_graph resnet50_b1_graph pcie_pinned
""".split()


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("compute_device", "compute"),
        ("memory_device", "memory"),
        ("launch_device", "launch"),
        ("pcie_device", "memory"),  # without copies a sum of 64 Mi floats is bound by memory
        ("compute_numpy", "pcie"),
        ("memory_numpy", "pcie"),
        ("pcie_numpy", "pcie"),
        ("pcie_pinned", "pcie"),
        ("launch_numpy", "launch"),
    ],
)
def test_families_get_the_class_they_are_made_for(recorded, name, verdict):
    assert recorded(name).diagnosis.verdict.name == verdict


@pytest.mark.parametrize("name", RUNS)
def test_shares_sum_to_one_and_everything_is_attributed(recorded, name):
    run = recorded(name)
    found = run.diagnosis
    assert run.manifest.complete
    assert abs(sum(found.shares.values()) - 1) < 1e-9
    assert found.attributed >= 0.99
    assert found.work_coverage >= 0.99
    assert 0 < found.confidence < 1
    assert found.missing == []


@pytest.mark.parametrize("name", RUNS)
def test_the_pieces_of_every_traced_call_sum_to_its_wall_time(recorded, name):
    calls = call_times(recorded(name), "activity")
    parts = calls[["work_ns", "exposed_copy_ns", "host_ns", "launch_latency_ns", "sync_ns"]].sum(axis=1)
    assert (parts == calls["wall_ns"]).all()


@pytest.mark.parametrize("model", ["launch_device", "resnet50_b1_device"])
def test_cupti_and_nsight_systems_agree(recorded, model):
    counts, times = [], []
    for name in (model, f"{model}_nsys"):
        run = recorded(name)
        calls = measured_calls(run, "activity")["call"]
        kernels = rows_of(run, "kernels", "activity")
        counts.append(set(kernels[kernels["call"].isin(calls)].groupby("call").size()))
        times.append(call_times(run, "activity")["work_ns"].median())
    assert counts[0] == counts[1]
    assert len(counts[0]) == 1  # the same number in every call
    assert times[0] == pytest.approx(times[1], rel=0.05)


def test_a_numpy_call_copies_its_inputs_and_outputs_from_pageable_memory(recorded):
    run = recorded("compute_numpy")
    copies = run.diagnosis.nodes.device
    copies = copies[copies["host_copy"]]
    assert set(copies["carries"]) == {"input x", "output y"}
    assert set(copies["bytes"]) == {4096 * 4096 * 2}
    assert set(run.copies.loc[copies["row"], "source"]) == {"pageable", "device"}


def test_pinned_buffers_copy_faster_than_pageable_ones(recorded):
    rates = {}
    for name in ("pcie_numpy", "pcie_pinned"):
        run = recorded(name)
        copies = rows_of(run, "copies", "activity")
        big = copies[(copies["kind"] == "h2d") & (copies["bytes"] == 1 << 28) & (copies["call"] > 0)]
        rates[name] = (big["bytes"] / (big["end_ns"] - big["start_ns"])).median()
    assert rates["pcie_pinned"] > 3 * rates["pcie_numpy"]


def test_a_cuda_graph_removes_the_hosts_share_and_keeps_the_kernels(recorded):
    eager, replayed = (recorded(name).diagnosis for name in ("launch_device", "launch_device_graph"))
    assert replayed.latency.median_ns < 0.5 * eager.latency.median_ns
    assert eager.sub_cause == "host"
    assert replayed.sub_cause == "under-filled"
    assert replayed.traced["replay_ns"] == pytest.approx(eager.traced["work_ns"], rel=0.1)


def test_counters_agree_with_the_arithmetic_where_they_are_large(recorded):
    for name, counter in (("compute_device", "tensor cores active"), ("memory_device", "DRAM bandwidth")):
        rows = {row.counter: row for row in recorded(name).diagnosis.corroboration}
        assert rows[counter].agrees is True
        assert rows[counter].measured > 0.5


def test_float32_work_without_tf32_predicts_idle_tensor_cores(h200, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(h200 / "resnet50_b64_device", folder)

    def predicted():
        return next(c.predicted for c in load(folder).diagnosis.corroboration if c.counter == "tensor cores active")

    assert predicted() > 0.1
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["provider_options"]["CUDAExecutionProvider"]["use_tf32"] = "0"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert predicted() == 0.0


def test_missing_sources_lower_the_confidence_and_are_named(h200, recorded, tmp_path):
    whole = recorded("compute_device").diagnosis
    folder = tmp_path / "run"
    shutil.copytree(h200 / "compute_device", folder)
    (folder / "nodes.parquet").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["passes"]["nodes"] = {"name": "nodes", "state": "failed", "reason": "the worker died"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    without_nodes = load(folder).diagnosis
    assert without_nodes.confidence < whole.confidence
    assert without_nodes.shares["other"] > 0.9
    assert any("nodes pass" in said for said in without_nodes.missing)
    for table in ("kernels", "copies", "memsets", "graphs", "launches"):
        (folder / f"{table}.parquet").unlink(missing_ok=True)
    estimated = load(folder).diagnosis
    assert 0 < estimated.confidence < whole.confidence
    assert "Only latency" in estimated.verdict.reason
    (folder / "samples.parquet").unlink()
    only_latency = load(folder).diagnosis
    assert only_latency.verdict.name == "inconclusive"
    assert only_latency.confidence == 0.0
    assert only_latency.shares["other"] == 1.0


def test_a_run_without_a_bare_latency_is_refused(h200, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(h200 / "pcie_device", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "latency": None}))
    with pytest.raises(RunFolderError, match="no latency"):
        _ = load(folder).diagnosis


def test_samples_are_the_recorded_runs(h200):
    sources = {
        "resnet50": "resnet50_b1_numpy",
        "compute": "compute_device",
        "memory": "memory_device",
        "pcie": "pcie_numpy",
    }
    assert set(samples()) == set(sources)
    for name, source in sources.items():
        ours, theirs = samples()[name].folder, h200 / source
        assert {f.name: f.read_bytes() for f in ours.iterdir() if f.is_file()} == {
            f.name: f.read_bytes() for f in theirs.iterdir() if f.is_file()
        }


def test_timestamps_are_epoch_nanoseconds_and_launches_come_before_their_kernels(recorded):
    run = recorded("resnet50_b1_device_nsys")
    for name in ("activity", "nodes"):
        launches = rows_of(run, "launches", name).drop_duplicates("correlation").set_index("correlation")["start_ns"]
        kernels = rows_of(run, "kernels", name)
        paired = launches.reindex(kernels["correlation"])
        assert paired.notna().all()
        assert (kernels["start_ns"].to_numpy() > paired.to_numpy()).all()
    created = run.manifest.created_ns
    assert np.abs(run.kernels["start_ns"] - created).max() < 600e9
