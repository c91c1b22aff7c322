"""What the bare latency pass costs: its own loop against a plain loop over `session.run`, alternately in one process.

Run as a script (`python tests/benchmarks/latency_overhead.py [--provider cuda]`) or by `make bench`. Prints the ratio
of the medians, its spread over the rounds, and the conditions.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime as ort

from workbench.capture.latency import timed_calls
from workbench.capture.machine import preload_cuda_libraries

MODELS = {"launch": {"nodes": 100}, "compute": {"n": 256, "depth": 2, "dtype": "float32"}}


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


def compare(session, feeds, *, rounds=20, calls=50):
    """Ratio package / plain of the median latency in each round: float64[rounds]. The order alternates."""
    names = [output.name for output in session.get_outputs()]

    def call():
        return session.run(names, feeds)

    plain_loop(call, calls)
    ratios = []
    for index in range(rounds):
        loops = [plain_loop, package_loop]
        medians = {loop: np.median(loop(call, calls)) for loop in (loops if index % 2 else reversed(loops))}
        ratios.append(medians[package_loop] / medians[plain_loop])
    return np.array(ratios)


def main():
    from workbench import zoo

    arguments = argparse.ArgumentParser()
    arguments.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    provider = arguments.parse_args().provider
    if provider == "cuda":
        preload_cuda_libraries()
    for name, parameters in MODELS.items():
        model = zoo.build(name, **parameters)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"] if provider == "cpu" else ["CUDAExecutionProvider"]
        session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
        rng = np.random.default_rng(0)
        feeds = {i.name: rng.standard_normal(i.shape, np.float32) for i in session.get_inputs()}
        ratios = compare(session, feeds)
        low, high = np.quantile(ratios, [0.05, 0.95])
        print(
            f"{name} on {session.get_providers()[0]}: package loop / plain loop = {np.median(ratios):.4f} "
            f"(5 % to 95 % of {len(ratios)} rounds of 50 calls: {low:.4f} to {high:.4f})"
        )


if __name__ == "__main__":
    main()
