"""Time spent on moving elements into another layout: inside convolutions, and in Transpose nodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.levers import lever

RULE: Final = "layout-changes"
LEAST_SHARE: Final = 0.05
"""Of T. A convolutional network with channels first always converts some; below a twentieth, kernels of another layout
differ by as much."""
CONVERSION: Final = r"(?i)nchwtonhwc|nhwctonchw|nchwtofolded|foldednhwc"
"""cuDNN's kernels between channels first and channels last."""


def rule(case: Case) -> Iterator[Finding]:
    """Conversions of cuDNN, which channels last avoid, and Transpose nodes, which the graph itself asks for."""
    if not case.on_gpu:
        return
    kernels = case.kernels
    inside = kernels["kernel"].astype(str).str.contains(CONVERSION)
    nhwc = lever("prefer-nhwc").why_not(case.situation) is None
    yield from _found(
        case, kernels[inside], "Conversions between channels first and channels last inside convolutions",
        "Run convolutions with channels last (cuda.prefer_nhwc).", "prefer-nhwc" if nhwc else None,
    )  # fmt: skip
    yield from _found(
        case, kernels[~inside & (kernels["op_type"] == "Transpose")], "Transpose nodes",
        "Let the transposes go into their neighbours: export the model with fused attention, or in the layout that its "
        "operators take.", None,
    )  # fmt: skip


def _found(case: Case, moves: pd.DataFrame, called: str, remedy: str, by: str | None) -> Iterator[Finding]:
    time_ns = float(moves["time_ns"].sum())
    if time_ns < LEAST_SHARE * case.latency_ns:
        return
    said = f"{called} take {time_ns / 1e6:.3g} ms a call, in {moves['kernels'].sum():,.0f} kernels."
    yield Finding.of(
        RULE, said, remedy, moves[["name", "op_type", "kernel", "kernels", "time_ns"]],
        lever=by, saves_ns=min(time_ns, case.latency_ns),
    )  # fmt: skip
