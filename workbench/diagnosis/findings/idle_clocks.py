"""The clocks fell because the GPU had too little to do between and within the calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from workbench.analysis.call_windows import connected
from workbench.analysis.conditions import THROTTLE_REASONS
from workbench.analysis.tables import measured_calls
from workbench.diagnosis.findings.bare_samples import CLOCK, REASONS, bare_samples
from workbench.diagnosis.findings.finding import Case, Finding

RULE: Final = "idle-clocks"
LOW: Final = 0.95
"""Of the fastest clock, as `conditions.CLOCK_DRIFT`: one step of the clock is under 1 %."""
LEAST_SAMPLES: Final = 0.10
"""Of the samples at a low clock; right after a pause the first ones always are."""
LEAST_IDLE: Final = 0.25
"""Of the time from the first measured call to the last; a GPU that has more to do keeps its clocks up."""
LEAST_SAVED: Final = 0.02
"""Of T."""
_SET_BY_USER: Final = 0x02  # nvml.h, nvmlClocksEventReasonApplicationsClocksSetting


def rule(case: Case) -> Iterator[Finding]:
    """Low clocks that neither a limit nor a setting explains, in a run whose device idled."""
    samples = bare_samples(case.run)
    pieces = case.diagnosis.pieces
    if pieces is None or not {CLOCK, REASONS} <= set(samples.columns):
        return
    samples = samples.dropna(subset=[CLOCK, REASONS])
    free = (samples[REASONS].astype("int64") & (sum(THROTTLE_REASONS) | _SET_BY_USER)) == 0
    fastest = float(max(case.manifest.device.max_sm_clock_mhz or 0, samples[CLOCK].max()))
    low = samples[free & (samples[CLOCK] < LOW * fastest)]
    if not len(samples) or len(low) < LEAST_SAMPLES * len(samples):
        return
    calls = measured_calls(case.run, "latency").sort_values("start_ns")
    starts, durations = (calls[name].to_numpy(np.int64) for name in ("start_ns", "duration_ns"))
    windows, _ = connected(starts, starts + durations)
    wall_ns = int(windows.ends[-1] - windows.starts[0])
    idle = 1.0 - windows.length_ns / wall_ns * (1.0 - pieces.idle / pieces.latency_ns)
    work_ns = pieces.compute + pieces.memory + pieces.under_filled + pieces.unknown
    saves_ns = work_ns * (1.0 - samples[CLOCK].where(samples.index.isin(low.index), fastest).mean() / fastest)
    if idle < LEAST_IDLE or saves_ns < LEAST_SAVED * case.latency_ns:
        return
    pauses = np.concatenate(([0], windows.starts[1:] - windows.ends[:-1]))
    before = pauses[np.searchsorted(windows.starts, low.index, side="right") - 1]
    said = (
        f"The SM clock was at {low[CLOCK].mean():.0f} of {fastest:.0f} MHz in {100 * len(low) / len(samples):.0f} % of "
        f"the samples with no limit in force, while the GPU idled {100 * idle:.0f} % of the time, up to "
        f"{pauses.max() / 1e6:.3g} ms between two calls."
    )
    yield Finding.of(
        RULE, said,
        "Keep the GPU busy (larger batches, calls back to back) or lock its clocks (nvidia-smi --lock-gpu-clocks).",
        low[[CLOCK]].assign(pause_before_ns=before).reset_index().sort_values("pause_before_ns", ascending=False),
        saves_ns=float(saves_ns),
    )  # fmt: skip
