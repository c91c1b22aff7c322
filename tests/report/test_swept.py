"""What a terminal shows of a sweep: every cell, what is missing and why, the knee and the best."""

import numpy as np

from workbench.config import RunConfig
from workbench.errors import OutOfMemoryError
from workbench.report.swept import sweep_summary
from workbench.tuning.blocks import Block
from workbench.tuning.objective import Constraint
from workbench.tuning.sweep import sweep


def measure(config, batch, concurrency):
    """1 ms a call and 10 µs an item; the largest batch does not fit, and the one before is timed too few times."""
    if batch == 64:
        raise OutOfMemoryError("8 GB did not fit.")
    call_ns = 1_000_000 + 10_000 * batch
    calls = 20 if batch == 8 else 200
    return Block("", 0, 0, durations_ns=np.full(calls, call_ns), calls_per_s=1e9 / call_ns, batch=batch)


def summary(*limits):
    found = sweep(RunConfig(model="m.onnx"), [1, 8, 64], [1], measure)
    return sweep_summary(found.cells, found.knee(), found.best([Constraint.parse(text) for text in limits]), limits)


def test_every_cell_its_numbers_or_why_there_are_none():
    lines = summary().splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["1", "8", "64"]
    assert "1.01 ms" in lines[1]
    assert lines[3].endswith("8 GB did not fit.")
    assert "batch 8 with 1 caller: P99 not measured, because 20 calls are too few." in lines


def test_the_knee_and_the_best_are_said():
    *_, knee, best = summary().splitlines()
    assert knee.startswith("There is no knee")
    assert best.startswith("The best is batch 8 with 1 caller: throughput 7,410 items/s")


def test_a_limit_that_no_cell_keeps_is_said():
    assert summary("p50<1us").splitlines()[-1].endswith("the closest misses p50<1us by 101,000 %.")
    assert "batch 1 with 1 caller" in summary("p50<1us").splitlines()[-1]


def test_the_class_has_the_name_of_its_device():
    cells = sweep(RunConfig(model="m.onnx"), [1], [1], measure).cells.assign(klass="launch+memory")
    lines = {kind: sweep_summary(cells, None, None, (), kind).splitlines()[1] for kind in ("cuda", "cpu")}
    assert lines["cuda"].endswith("launch and memory")
    assert lines["cpu"].endswith("framework overhead and memory")
