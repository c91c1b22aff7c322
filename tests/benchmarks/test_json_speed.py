"""Streaming an ONNX Runtime profile into tables against `json.loads` of the whole file, and what memory each needs.

Each measurement is a process of its own, because the peak of resident memory never falls. Prints ratios and peaks.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

NODES = 60
SMALL, LARGE = 300, 3_000  # calls: 9 and 95 MB
RATIO = 1.0
GROWTH_BYTES_PER_EVENT = 160
"""28 in the arrays and 4 for its call, as much again while an array moves, and the part of the table in the making."""

PLAIN = "json.loads(path.read_text())"
OURS = "[len(part) for part in OrtProfile(path).batches('nodes')]"
MEASURE = """
import json, resource, sys, time
from pathlib import Path
from workbench.runs.ort_profile import OrtProfile
path = Path(sys.argv[1])
begun = time.process_time()
{work}
print(time.process_time() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write_profile(path, calls):
    """A profile as ONNX Runtime 1.31 writes it: one event a line, the keys of `args` in no order."""
    sizes = dict.fromkeys(("mem_arena_held", "mem_in_use_peak", "mem_in_use_delta", "mem_bytes_in_use"), "1234567")
    with path.open("w", encoding="utf-8") as file:
        file.write("[\n")
        for call in range(calls):
            for node in range(NODES):
                args = {
                    **sizes,
                    "op_name": "MatMul",
                    "input_type_shape": [{"float": [1, 64]}, {"float": [64, 64]}],
                    "provider": "CUDAExecutionProvider",
                    "output_size": "256",
                    "node_index": str(node),
                    "thread_scheduling_stats": "",
                    "activation_size": "256",
                    "parameter_size": "16384",
                    "output_type_shape": [{"float": [1, 64]}],
                }
                event = {"cat": "Node", "pid": 1, "tid": 1, "dur": 9, "ts": call * 1000 + node * 10, "ph": "X"}
                file.write(json.dumps({**event, "name": f"node_{node}_kernel_time", "args": args}) + ",\n")
            event = {"cat": "Session", "pid": 1, "tid": 1, "dur": 900, "ts": call * 1000, "ph": "X"}
            file.write(
                json.dumps({**event, "name": "model_run", "args": {}}) + (",\n" if call < calls - 1 else "\n]\n")
            )


def measured(work, path):
    """Processor seconds, and peak memory in bytes."""
    command = [sys.executable, "-c", MEASURE.format(work=work), str(path)]
    seconds, peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), int(peak)


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    paths = {calls: folder / f"{calls}.json" for calls in (SMALL, LARGE)}
    for calls, path in paths.items():
        write_profile(path, calls)
    return paths


def test_tables_are_made_sooner_than_the_whole_file_is_decoded(profiles):
    path = profiles[LARGE]
    rounds = [(measured(OURS, path), measured(PLAIN, path)) for _ in range(2)]
    (ours, peak), (plain, plain_peak) = (min(each) for each in zip(*rounds, strict=True))
    print(
        f"\n{path.stat().st_size / 1e6:.0f} MB, {LARGE * NODES:,} nodes: {ours:.2f} s of processor time and "
        f"{peak / 1e6:.0f} MB; json.loads alone: {plain:.2f} s and {plain_peak / 1e6:.0f} MB; ratio {ours / plain:.2f}"
    )
    assert ours / plain < RATIO


def test_memory_grows_by_the_arrays_alone(profiles):
    peaks = {calls: measured(OURS, path)[1] for calls, path in profiles.items()}
    grown = (peaks[LARGE] - peaks[SMALL]) / ((LARGE - SMALL) * (NODES + 1))
    print(f"\npeak {peaks[SMALL] / 1e6:.0f} MB and {peaks[LARGE] / 1e6:.0f} MB: {grown:.0f} bytes an event")
    assert grown < GROWTH_BYTES_PER_EVENT
