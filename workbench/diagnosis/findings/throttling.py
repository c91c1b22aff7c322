"""Clocks held down by a limit while the latency was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from workbench.analysis.conditions import THROTTLE_REASONS
from workbench.diagnosis.findings.bare_samples import CLOCK, REASONS, bare_samples
from workbench.diagnosis.findings.finding import Case, Finding

RULE: Final = "throttling"
LEAST_SAMPLES: Final = 0.05
"""Of the samples; a lone one is a moment's."""
LEAST_SLOWER: Final = 0.02
"""By which the mean clock must lie below the fastest: a step of an H200's clock is 15 MHz of 1,980, under 1 %."""


def rule(case: Case) -> Iterator[Finding]:
    """NVML named a limit as the reason for the clock; work on the device would take the less time, the faster it is."""
    samples = bare_samples(case.run)
    if not {CLOCK, REASONS} <= set(samples.columns):
        return
    samples = samples.dropna(subset=[CLOCK, REASONS])
    masks = samples[REASONS].astype("int64")
    held = (masks & sum(THROTTLE_REASONS)) > 0
    fastest = float(max(case.manifest.device.max_sm_clock_mhz or 0, samples[CLOCK].max()))
    slower = 1.0 - samples[CLOCK].where(held, fastest).mean() / fastest
    if not len(samples) or held.mean() < LEAST_SAMPLES or slower < LEAST_SLOWER:
        return
    clocks = {reason: samples.loc[(masks & bit) > 0, CLOCK] for bit, reason in THROTTLE_REASONS.items()}
    rows = [(why, len(at) / len(samples), at.mean(), at.min()) for why, at in clocks.items() if len(at)]
    evidence = pd.DataFrame(rows, columns=["reason", "samples_fraction", "sm_clock_mean_mhz", "sm_clock_least_mhz"])
    evidence = evidence.sort_values("samples_fraction", ascending=False)
    said = (
        f"The clocks were held down in {100 * held.mean():.0f} % of {len(samples)} samples, most by "
        f"{evidence['reason'].iloc[0]}, to {samples.loc[held, CLOCK].mean():.0f} of {fastest:.0f} MHz."
    )
    pieces = case.diagnosis.pieces
    work_ns = None if pieces is None else pieces.compute + pieces.memory + pieces.under_filled + pieces.unknown
    yield Finding.of(
        RULE, said,
        "Raise the limit or cool the GPU; else compare only with runs under the same limit, and expect what heats less "
        "(float16, fewer bytes) to gain more than its own share.",
        evidence, saves_ns=None if work_ns is None else float(work_ns * slower),
    )  # fmt: skip
