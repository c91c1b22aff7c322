"""Disturbances are read off samples inside the measured calls, and only there."""

import numpy as np
import pandas as pd

from workbench.analysis.conditions import disturbances
from workbench.api import load


class Recorded:
    """Ten measured calls of 1 ms each, and one sample in the middle of each call."""

    def __init__(self, **metrics):
        times = np.arange(10) * 1_000_000
        self.tables = {
            "latency": pd.DataFrame(
                {"pass": "latency", "phase": "measured", "call": range(10), "start_ns": times, "duration_ns": 1_000_000}
            ),
            "samples": pd.concat(
                [
                    pd.DataFrame({"pass": "latency", "time_ns": times + 500_000, "metric": name, "value": values})
                    for name, values in metrics.items()
                ]
            ),
        }

    def table(self, name, columns=None):
        return self.tables[name]


def test_each_disturbance_is_said():
    run = Recorded(
        clock_event_reasons_mask=[0] * 5 + [0x4] * 5,
        sm_clock_mhz=[1980.0] * 5 + [1500.0] * 5,
        compute_processes_count=[1.0] * 9 + [3.0],
    )
    said = " ".join(disturbances(run))
    assert "power cap in 50 %" in said
    assert "1500 and 1980 MHz" in said
    assert "2 other process" in said


def test_a_quiet_run_and_one_without_samples_say_nothing():
    quiet = Recorded(
        clock_event_reasons_mask=[1.0] * 10, sm_clock_mhz=[1980.0] * 10, compute_processes_count=[1.0] * 10
    )
    assert disturbances(quiet) == []
    quiet.tables["samples"] = quiet.tables["samples"].iloc[:0]
    assert disturbances(quiet) == []


def test_what_happened_before_the_measured_calls_is_left_out():
    run = Recorded(compute_processes_count=[5.0] * 3 + [1.0] * 7)
    run.tables["latency"].loc[:2, "phase"] = "warm-up"
    assert disturbances(run) == []


def test_real_runs_one_quiet_and_one_against_the_power_cap(h200):
    assert disturbances(load(h200 / "memory_device")) == []
    said = disturbances(load(h200 / "compute_device"))  # half a second of dense FP16 products draws 700 W
    assert any("power cap" in sentence for sentence in said)
    assert any("SM clock moved" in sentence for sentence in said)
