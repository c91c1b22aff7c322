"""Blocks from real processes on the CPU, and from runs recorded on an H200."""

import shutil

import numpy as np
import pytest

from workbench import zoo
from workbench.config import Budget, RunConfig
from workbench.runs.manifest import ModelInfo, TensorInfo
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import BASE
from workbench.tuning.measure import Job, block_of_run, items_per_call, measure_block, measure_round, record_block

pytestmark = pytest.mark.slow  # real runs, each in processes of its own

BLOCK = Budget(seconds=0.1, min_seconds=0, min_calls=20)


def job(model, folder, arm=BASE, position=0, **options):
    config = RunConfig(model=str(model), provider="cpu", budget=BLOCK, **options)
    return Job(arm, config, 3, position, folder, 60)


@pytest.fixture(scope="module")
def block(small_model, tmp_path_factory):
    """One real block, and what it left in the arm's folder."""
    folder = tmp_path_factory.mktemp("arm")
    return measure_block(job(small_model, folder, position=7)), sorted(path.name for path in folder.iterdir())


def test_a_block_says_where_it_stands_and_holds_its_measured_calls(block):
    found, _ = block
    assert (found.arm, found.round, found.position, found.error) == (BASE, 3, 7, None)
    assert found.starts_ns.dtype == found.durations_ns.dtype == np.int64
    assert len(found.starts_ns) == len(found.durations_ns) >= 3  # a busy machine may end at the budget's seconds
    assert (np.diff(found.starts_ns) >= found.durations_ns[:-1]).all()  # one caller
    assert found.warmup_calls > 0
    window_ns = found.starts_ns[-1] + found.durations_ns[-1] - found.starts_ns[0]
    assert found.calls_per_s == pytest.approx(len(found.starts_ns) * 1e9 / window_ns)


def test_a_block_holds_its_cold_start_its_memory_and_what_was_read_back(block):
    found, _ = block
    assert list(found.steps_ns) == ["import", "libraries", "session", "binding", "first call"]
    assert all(ns > 0 for ns in found.steps_ns.values())
    assert (found.again_ns, found.peak_device_bytes, found.disturbances) == ({}, None, [])
    assert found.peak_host_bytes > 1 << 20
    assert found.providers == ["CPUExecutionProvider"]


def test_blocks_leave_nothing_but_what_their_arm_shares(block):
    assert block[1] == ["feeds.npz", "model.onnx"]


def test_the_first_calls_of_later_shapes_are_steps_and_their_second_calls_stand_beside_them(tmp_path):
    model = zoo.write("encoder", tmp_path / "encoder.onnx", layers=1, hidden=16, heads=2, feed_forward=16)
    first, *later = [{name: [1, length] for name in ("input_ids", "attention_mask")} for length in (4, 6, 8)]
    found = measure_block(job(model, tmp_path / "arm", shapes=first, later_shapes=later))
    assert found.error is None
    assert list(found.steps_ns)[-2:] == ["shape 2", "shape 3"]
    assert list(found.again_ns) == ["shape 2", "shape 3"]


def test_a_round_goes_on_after_a_configuration_that_cannot_be_measured(small_model, tmp_path):
    jobs = [
        job(tmp_path / "missing.onnx", tmp_path / "a", arm="missing", position=0),
        job(small_model, tmp_path / "b", arm="fine", position=1),
    ]
    missing, fine = measure_round(jobs)
    kind, sentence = missing.error
    assert (missing.arm, missing.position, kind) == ("missing", 0, "ModelError")
    assert "missing.onnx" in sentence
    assert missing.durations_ns.size == 0
    assert fine.error is None


def test_an_arm_whose_folder_was_removed_is_prepared_again(small_model, tmp_path):
    first = measure_block(job(small_model, tmp_path / "arm"))
    shutil.rmtree(tmp_path / "arm")
    again = measure_block(job(small_model, tmp_path / "arm"))
    assert (first.error, again.error) == (None, None)


def test_a_recording_that_fails_is_a_block_with_its_error_and_leaves_no_run(tmp_path):
    found = record_block(job(tmp_path / "missing.onnx", tmp_path / "arm"), tmp_path / "run", passes=())
    assert found.error[0] == "ModelError"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["launch_device", "resnet50_b64_device", "pcie_numpy"])
def test_the_block_of_a_recorded_run_is_its_latency_pass(h200, name):
    run = RunFolder(h200 / name)
    found = block_of_run(run, "this", 2, 5)
    assert (found.arm, found.round, found.position) == ("this", 2, 5)
    assert np.median(found.durations_ns) == run.manifest.latency.median_ns
    assert len(found.durations_ns) == run.manifest.latency.measured_calls
    assert found.peak_device_bytes == run.manifest.passes["latency"].peak_device_bytes
    assert found.options["CUDAExecutionProvider"] == run.manifest.provider_options["CUDAExecutionProvider"]
    assert found.batch == (64 if "b64" in name else 1)


@pytest.mark.parametrize(
    ("shape", "fed", "batch", "items"),
    [
        ([None, 8], [5, 8], None, 5),
        (["batch", 8], [5, 8], None, 5),
        (["N", 8], [5, 8], None, 5),
        (["batch_size", 8], [5, 8], 7, 7),
        ([3, 8], [3, 8], None, 1),
        ([], [], None, 1),
    ],
)
def test_items_of_a_call(shape, fed, batch, items):
    model = ModelInfo(
        name="m", sha256="0", file_bytes=1, inputs=[TensorInfo(name="x", type="float32", shape=shape)], outputs=[],
        feed_shapes={"x": fed}, feed_dtypes={"x": "float32"},
    )  # fmt: skip
    assert items_per_call(RunConfig(model="m.onnx", batch=batch), model) == items
