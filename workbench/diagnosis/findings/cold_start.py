"""The first call costs far more than a usual one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.finding import Case, Finding

RULE: Final = "cold-start"
LEAST_NS: Final = 200_000_000
"""What the first call must cost once: below a fifth of a second neither a person nor a time limit minds."""
LEAST_CALLS: Final = 100
"""Usual calls in the same time; below, any short series of calls earns it back."""
_PARTS: Final = {"loading_ns": "loading code", "allocation_ns": "allocation", "device_ns": "work on the device"}


def rule(case: Case) -> Iterator[Finding]:
    """Binding and first call, which is made while binding where a CUDA graph is captured, against a measured call."""
    steps = case.cold_start
    usual = steps["usual_ns"].reindex(["first call"]).dropna()
    if not len(usual):
        return
    usual_ns = int(usual.iloc[0])
    making = steps.reindex(["binding", "first call"]).dropna(subset=["duration_ns"])
    once_ns = int(making["duration_ns"].sum()) - usual_ns
    if once_ns < max(LEAST_NS, LEAST_CALLS * usual_ns):
        return
    traced = making[["traced_ns", *_PARTS, "other_ns"]]
    said = (
        f"Before the second call, binding and the first call cost {once_ns / 1e6:.0f} ms once, "
        f"as much as {once_ns / usual_ns:.0f} usual calls"
    )
    if traced.notna().to_numpy().all():
        shares = (100 * traced.sum() / traced["traced_ns"].sum()).astype(float)
        parts = [f"{shares[name]:.0f} % {part}" for name, part in _PARTS.items()]
        said += f": {', '.join(parts)} and {shares['other_ns']:.0f} % neither, but the host's own work"
    yield Finding.of(
        RULE, f"{said}.",
        "Make one call of every shape before the first request arrives, and keep the process and its session alive.",
        steps[~steps.index.str.startswith("shape ")].sort_values("duration_ns", ascending=False).reset_index(),
    )  # fmt: skip
