"""Copies from and to pageable host memory, where page-locked memory would be quicker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.findings.host_copies import exposed_ns, host_copies
from workbench.diagnosis.findings.wording import megabytes, milliseconds

RULE: Final = "pageable-copies"
LEAST_SHARE: Final = 0.02
"""Of T to be saved; below, nobody would notice. A few hundred bytes travel with the launch, pageable or not."""


def rule(case: Case) -> Iterator[Finding]:
    """Inputs and outputs lie in pageable memory, and the bus is quicker from page-locked memory by the ceilings.

    What nodes copy inside the graph is left out: ONNX Runtime allocates that itself. Without the ceilings of
    page-locked copies what would be saved is not known, and the time of the copies decides.
    """
    every = host_copies(case)
    pageable = every[every["at_border"].fillna(True)]
    pageable = pageable[(pageable[["source", "target"]] == "pageable").any(axis=1)]
    if not len(pageable):
        return
    locked_ns = _page_locked_ns(case, pageable)
    known = bool(locked_ns.notna().all())
    taken_ns = pageable["time_ns"]
    held = exposed_ns(case, float((taken_ns - locked_ns if known else taken_ns).sum()), every)
    if held is None or held < LEAST_SHARE * case.latency_ns:
        return
    said = (
        f"Copies from and to pageable host memory take {milliseconds(taken_ns.sum())} of a call for "
        f"{megabytes(pageable['bytes'].sum())}"
        + (f"; from page-locked memory they would take {milliseconds(locked_ns.sum())}." if known else ".")
    )
    evidence = pageable.drop(columns="at_border").assign(page_locked_ns=locked_ns)
    yield Finding.of(
        RULE, said, "Hold inputs and outputs in page-locked host memory, or bind them on the device.", evidence,
        lever="io-binding-pinned", saves_ns=held if known else None,
    )  # fmt: skip


def _page_locked_ns(case: Case, copies: pd.DataFrame) -> pd.Series:
    """Time per call of each row from page-locked memory: bytes over the measured ceiling, null without one.

    A copy takes as long as the shortest kernel at least, and never longer than it did.
    """
    ceilings = case.manifest.ceilings
    rates = {"h2d": ceilings.h2d_pinned_bytes_per_s, "d2h": ceilings.d2h_pinned_bytes_per_s}
    bandwidth = copies["kind"].map(rates).astype(np.float64)
    least_ns = copies["copies"] * (ceilings.shortest_kernel_ns or 0.0)
    ideal_ns = copies["bytes"] / bandwidth * 1e9
    return ideal_ns.clip(lower=least_ns).clip(upper=copies["time_ns"])
