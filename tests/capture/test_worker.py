"""A worker inside this process: what its calls are made with, and a disk that fills up."""

import errno

import numpy as np
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from workbench.capture import binding, worker
from workbench.capture.feeds import save_feeds
from workbench.capture.protocol import WorkerSpec
from workbench.config import RunConfig
from workbench.errors import DiskFullError
from workbench.runs.ort_profile import OrtProfile

BUDGET = {"seconds": 0.05, "min_seconds": 0}


@pytest.fixture
def spec_of(command, tmp_path):
    command.save("open.onnx", [helper.make_node("Relu", ["x"], ["y"])], [("x", TensorProto.FLOAT, ["n"])])

    def made(**options):
        for name, size in (("feeds", 2), ("later", 3)):
            save_feeds(tmp_path / f"{name}.npz", {"x": np.ones(size, np.float32)})
        config = RunConfig(model="open.onnx", budget=BUDGET, run={"only_execute_path_to_fetches": True})
        return WorkerSpec(
            config=config, model=command.folder / "open.onnx", feeds=tmp_path / "feeds.npz", device="cpu",
            **{"pass_name": "latency", **options},
        )  # fmt: skip

    return made


def test_later_shapes_are_called_with_the_same_run_options(spec_of, tmp_path, monkeypatch):
    given, real = [], binding.bind

    def noting(session, feeds, config, device, options):
        given.append((len(feeds["x"]), options.only_execute_path_to_fetches))
        return real(session, feeds, config, device, options)

    monkeypatch.setattr(binding, "bind", noting)
    worker.Worker(spec_of(later_feeds=[tmp_path / "later.npz"]), tmp_path).run()
    assert given == [(2, True), (3, True)]


def test_a_disk_that_is_full_when_the_outputs_are_kept_is_said(spec_of, tmp_path, monkeypatch):
    def full(path, feeds):
        raise OSError(errno.ENOSPC, "No space left on device")

    spec = spec_of(keep_outputs=True)
    monkeypatch.setattr(worker, "save_feeds", full)
    with pytest.raises(DiskFullError):
        worker.Worker(spec, tmp_path).run()


@pytest.mark.parametrize("loss", [None, "ort.json: the profiler dropped 7 events at its limit."])
def test_events_that_the_profiler_dropped_are_written_down(spec_of, tmp_path, monkeypatch, loss):
    monkeypatch.setattr(OrtProfile, "loss", loss)
    worker.Worker(spec_of(pass_name="nodes", calls=3), tmp_path).run()
    file = tmp_path / "diagnostics.parquet"
    assert file.is_file() == (loss is not None)
    if loss is not None:
        (row,) = pq.read_table(file).to_pylist()
        assert (row["pass"], row["severity"], row["source"], row["text"]) == ("nodes", "warning", "ort_profiler", loss)
