"""The worker's process group ends at its time limit, whoever of it is left."""

import time

import pytest

from workbench.capture.process import run_worker
from workbench.capture.protocol import WorkerSpec
from workbench.config import RunConfig
from workbench.errors import WorkerError, WorkerTimeoutError


def ended(wrapper, folder, timeout_s):
    spec = WorkerSpec(config=RunConfig(model="m"), pass_name="latency", model="m.onnx", feeds="feeds.npz", device="cpu")
    return run_worker(spec, folder, timeout_s=timeout_s, on_event=lambda event: None, wrapper=wrapper)


def test_a_wrapper_that_dies_and_leaves_the_worker_does_not_outlast_the_limit(tmp_path):
    """The worker still holds the standard output that the parent reads, as below an `nsys` that was killed."""
    begun = time.monotonic()
    with pytest.raises(WorkerTimeoutError, match=r"limit of 0\.3 s"):
        ended(["sh", "-c", "sleep 30 & exit 1"], tmp_path, 0.3)
    assert time.monotonic() - begun < 15


def test_a_worker_that_ends_without_a_word_is_an_error_with_its_last_words(tmp_path):
    with pytest.raises(WorkerError, match=r"ended with status 7 and no result\. Its last words: no such thing"):
        ended(["sh", "-c", "echo no such thing; exit 7"], tmp_path, 3e9)  # above what a timer can wait
