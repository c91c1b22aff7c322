"""The diagnosis of a run whose device work or nodes no pass recorded: an estimate, or nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from workbench.analysis.conditions import disturbances
from workbench.analysis.node_times import NodeTimes
from workbench.diagnosis.estimate import estimate
from workbench.diagnosis.known import attributed_fraction, work_coverage
from workbench.diagnosis.result import DiagnosedRun, Diagnosis
from workbench.diagnosis.shares import FRAMEWORK_OVERHEAD, SHARES
from workbench.diagnosis.verdict import INCONCLUSIVE, Verdict, judge
from workbench.runs.manifest import LatencyInfo, Manifest

GPU_ONLY: Final = ("pcie", "sync")
"""Shares that a CPU run has none of."""


def estimated(
    run: DiagnosedRun, manifest: Manifest, bare: LatencyInfo, missing: list[str], nodes: NodeTimes | None
) -> Diagnosis | None:
    """From the latency pass alone; None where it says too little, and of imported captures."""
    found = estimate(run, manifest, bare, run.model_graph) if manifest.imported is None else None
    if found is None:
        return None
    on_cpu = manifest.device.kind == "cpu"
    unmeasured = GPU_ONLY if on_cpu else ("sync",)
    shares = found.pieces.shares()
    verdict = judge(shares)
    causes = found.pieces.launch_causes()
    sub_cause = FRAMEWORK_OVERHEAD if on_cpu else max(causes, key=lambda name: float(causes[name]))
    return Diagnosis(
        verdict=replace(verdict, reason=f"{found.reasons[0]} {verdict.reason}"),
        sub_cause=sub_cause if "launch" in (verdict.name, *(verdict.pair or ())) else None,
        confidence=found.confidence,
        shares={name: None if name in unmeasured else float(shares[name]) for name in SHARES},
        latency=bare,
        pieces=None,  # those are measured; what these rest on stands in the notes
        traced={},
        attributed=attributed_fraction(nodes),
        work_coverage=work_coverage(nodes),
        corroboration=[],
        missing=missing,
        not_applicable=list(GPU_ONLY) if on_cpu else [],
        notes=[*disturbances(run), *manifest.notes, *bare.notes, *found.reasons[1:]],
        nodes=nodes,
    )


def unknown(
    bare: LatencyInfo, missing: list[str], why: str, nodes: NodeTimes | None, not_applicable: list[str] | None = None
) -> Diagnosis:
    """Nothing but the latency is known: all of the time is "other", and any class would be a guess."""
    shares = {name: 1.0 if name == "other" else None for name in SHARES}
    reason = f"Only the latency is known, because {why}."
    return Diagnosis(
        verdict=Verdict(INCONCLUSIVE, None, None, reason),
        sub_cause=None,
        confidence=0.0,
        shares=shares,
        latency=bare,
        pieces=None,
        traced={},
        attributed=attributed_fraction(nodes),
        work_coverage=work_coverage(nodes),
        corroboration=[],
        missing=missing,
        not_applicable=not_applicable or [],
        notes=[],
        nodes=nodes,
    )
