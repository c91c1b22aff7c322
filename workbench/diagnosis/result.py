"""What a diagnosis is: every number that a verdict, a report or a script quotes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import onnx

from workbench.analysis.node_times import NodeTimes, RunLike
from workbench.diagnosis.counters import Corroboration
from workbench.diagnosis.shares import Pieces
from workbench.diagnosis.verdict import Verdict
from workbench.runs.manifest import LatencyInfo, Manifest


class DiagnosedRun(RunLike, Protocol):
    """A run with its manifest."""

    @property
    def manifest(self) -> Manifest:
        """What was run, where, with what."""

    @property
    def model_graph(self) -> onnx.ModelProto | None:
        """The graph that ONNX Runtime was given, without weights."""


@dataclass(frozen=True)
class Diagnosis:
    """Verdict, shares and their arithmetic. Times are nanoseconds per call, fractions 0..1; None is "not measured".

    attributed: fraction of kernels and copies in the `nodes` pass that lead to a node or a graph input or output; 1 on
    a CPU, where the nodes themselves are the work, None where no node was recorded.
    work_coverage: fraction of node time whose flops and bytes are counted. traced: the measured pieces before they were
    set in proportion to T. missing: what is not known, and why. not_applicable: classes that need a GPU, on a CPU.
    """

    verdict: Verdict
    sub_cause: str | None
    confidence: float
    shares: dict[str, float | None]
    latency: LatencyInfo
    pieces: Pieces | None
    traced: dict[str, float]
    attributed: float | None
    work_coverage: float | None
    corroboration: list[Corroboration]
    missing: list[str]
    not_applicable: list[str]
    notes: list[str]
    nodes: NodeTimes | None = field(repr=False)

    def __str__(self) -> str:
        known = [f"{name} {100 * share:.1f} %" for name, share in self.shares.items() if share is not None]
        return f"{self.verdict}\n  {', '.join(known) or 'no shares'} of {self.latency.median_ns:,.0f} ns a call"

    def to_dict(self) -> dict[str, Any]:
        """The object that `workbench diagnose --json` prints."""
        pieces = self.pieces
        return {
            "verdict": self.verdict.name,
            "pair": list(self.verdict.pair) if self.verdict.pair else None,
            "sub_cause": self.sub_cause,
            "runner_up": self.verdict.runner_up,
            "reason": self.verdict.reason,
            "confidence": self.confidence,
            "shares": self.shares,
            "latency_ns": self.latency.median_ns,
            "latency_interval_ns": [self.latency.ci_low_ns, self.latency.ci_high_ns],
            "attributed": self.attributed,
            "work_coverage": self.work_coverage,
            "pieces_ns": {k: float(v) for k, v in vars(pieces).items() if k != "latency_ns"} if pieces else None,
            "traced_ns": self.traced,
            "counters": [each.to_dict() for each in self.corroboration],
            "missing": self.missing,
            "not_applicable": self.not_applicable,
            "notes": self.notes,
        }
