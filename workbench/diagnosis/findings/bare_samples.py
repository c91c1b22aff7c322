"""NVML's samples while the bare calls were measured, a row to a moment: what several rules look at."""

from __future__ import annotations

from typing import Final

import pandas as pd

from workbench.analysis.tables import Tables, measured_calls, rows_of

CLOCK: Final = "sm_clock_mhz"
REASONS: Final = "clock_event_reasons_mask"
PROCESSES: Final = "compute_processes_count"
FEWEST: Final = 5
"""Fewer samples say nothing about how long something lasted."""


def bare_samples(run: Tables) -> pd.DataFrame:
    """Samples between the begin of the first and the end of the last measured call of the bare pass.

    Index `time_ns`, one float64 column per metric, NaN where a moment lacks it. Empty where fewer than `FEWEST` were
    taken, as on a CPU and in an imported capture.
    """
    calls = measured_calls(run, "latency")
    samples = rows_of(run, "samples", "latency", ("time_ns", "metric", "value"))
    begin, end = calls["start_ns"].min(), (calls["start_ns"] + calls["duration_ns"]).max()
    during = samples[samples["time_ns"].between(begin, end)].astype({"metric": object})
    wide = during.pivot_table(index="time_ns", columns="metric", values="value", aggfunc="last")
    return wide if len(wide) >= FEWEST else wide.iloc[:0]
