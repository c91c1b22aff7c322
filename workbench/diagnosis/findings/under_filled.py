"""Kernels that leave most of the GPU empty: too few blocks, or hardly longer than an empty kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.levers import lever

RULE: Final = "under-filled"
LEAST_SHARE: Final = 0.10
"""Of T. Every graph has some small kernels; a tenth of T is about the least that calls side by side win back."""
SIDE_BY_SIDE: Final = 2
"""Times as many calls in flight: the next step of what a caller can do without another model."""


def rule(case: Case) -> Iterator[Finding]:
    """Under-filled kernels take a large part of T; calls side by side share at most what lies beyond the ceilings."""
    pieces = case.diagnosis.pieces
    if not case.on_gpu or pieces is None or pieces.under_filled < LEAST_SHARE * case.latency_ns:
        return
    kernels = case.kernels
    kernels = kernels[kernels["limit"] == "under-filled"]
    if not len(kernels):
        return
    by_kernel = kernels.groupby("kernel", as_index=False)[["kernels", "time_ns"]].sum()
    most = kernels.drop_duplicates("kernel").rename(columns={"name": "longest_node"})[
        ["kernel", "longest_node", "op_type"]
    ]
    evidence = most.merge(by_kernel, on="kernel").sort_values("time_ns", ascending=False)
    said = (
        f"{kernels['kernels'].sum():,.0f} kernels a call fill less than the GPU has room for: "
        f"{pieces.under_filled / 1e6:.3g} ms of {case.latency_ns / 1e6:.3g} ms, "
        f"{kernels['time_ns'].sum() / kernels['kernels'].sum() / 1e3:.2g} µs each on average."
    )
    saves = (1 - 1 / SIDE_BY_SIDE) * float(pieces.under_filled) * (1 - _bound(case))
    yield Finding.of(
        RULE, said, "Give each kernel more to do (a larger batch, fused nodes), or let several calls share the GPU.",
        evidence, lever=_lever(case), saves_ns=saves,
    )  # fmt: skip


def _lever(case: Case) -> str | None:
    """More calls in flight on a session, or where a CUDA graph forbids that, more sessions; None of an import."""
    now = {"concurrency": case.config.concurrency, "sessions": case.config.sessions}
    names = [f"{called}-{count * SIDE_BY_SIDE}" for called, count in now.items()] if case.situation.configured else []
    return next((name for name in names if lever(name).why_not(case.situation) is None), None)


def _bound(case: Case) -> float:
    """Fraction of the under-filled node time that the ceilings demand of any kernels: 0..1; 0 where none is known."""
    if not len(case.nodes):
        return 0.0
    under_ns = case.nodes["under-filled_ns"]
    bound_ns = case.nodes[["compute_bound_ns", "memory_bound_ns"]].max(axis=1)
    part = under_ns * (bound_ns / case.nodes["time_ns"]).clip(upper=1).fillna(0)
    return float(part.sum() / under_ns.sum()) if under_ns.any() else 0.0
