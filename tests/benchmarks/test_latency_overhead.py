"""What the bare latency pass costs: its own loop against a plain loop over `session.run`, alternately in one process.

Prints the ratio of the medians, its spread over the rounds, and the conditions.
"""

from __future__ import annotations

import time

import numpy as np
import onnxruntime as ort
import pytest

from workbench import zoo
from workbench.capture.latency import timed_calls
from workbench.capture.libraries import preload_cuda_libraries

MODELS = {"launch": {"nodes": 100}, "compute": {"n": 256, "depth": 2, "dtype": "float32"}}
WITHIN = 0.02
ROUNDS, CALLS = 40, 50


def plain_loop(call, count):
    durations = []
    for _ in range(count):
        start = time.perf_counter_ns()
        call()
        durations.append(time.perf_counter_ns() - start)
    return durations


def package_loop(call, count):
    starts, durations = [], []
    timed_calls(call, count, starts, durations, 0, 2**63)
    return durations


def compare(session, feeds):
    """Ratio package / plain of the median latency in each round: float64[rounds]. The order alternates."""
    names = [output.name for output in session.get_outputs()]

    def call():
        return session.run(names, feeds)

    plain_loop(call, CALLS)
    ratios = []
    for index in range(ROUNDS):
        loops = [plain_loop, package_loop]
        medians = {loop: np.median(loop(call, CALLS)) for loop in (loops if index % 2 else reversed(loops))}
        ratios.append(medians[package_loop] / medians[plain_loop])
    return np.array(ratios)


def session_of(name, provider):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(zoo.build(name, **MODELS[name]).SerializeToString(), options, providers=[provider])


def measure(name, provider):
    session = session_of(name, provider)
    assert session.get_providers()[0] == provider  # ONNX Runtime falls back to the CPU in silence
    rng = np.random.default_rng(0)
    ratios = compare(session, {i.name: rng.standard_normal(i.shape, np.float32) for i in session.get_inputs()})
    low, high = np.quantile(ratios, [0.05, 0.95])
    print(
        f"\n{name} on {session.get_providers()[0]}: package loop / plain loop = {np.median(ratios):.4f} "
        f"(5 % to 95 % of {len(ratios)} rounds of {CALLS} calls each: {low:.4f} to {high:.4f})"
    )
    return float(np.median(ratios))


@pytest.mark.parametrize("name", MODELS)
def test_the_bare_loop_costs_nothing_on_the_cpu(name):
    assert abs(measure(name, "CPUExecutionProvider") - 1) <= WITHIN


@pytest.mark.gpu
@pytest.mark.parametrize("name", MODELS)
def test_the_bare_loop_costs_nothing_on_the_gpu(name):
    preload_cuda_libraries()
    assert abs(measure(name, "CUDAExecutionProvider") - 1) <= WITHIN
