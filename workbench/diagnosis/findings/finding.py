"""A finding: one concrete cause in a run, with the rows that show it, what to do, and what that would save."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import pandas as pd

from workbench.analysis.cold_start import cold_start
from workbench.config import RunConfig
from workbench.diagnosis.findings.node_kernels import node_kernels
from workbench.diagnosis.levers import Situation, situation_of
from workbench.diagnosis.result import Diagnosis
from workbench.runs.manifest import Manifest
from workbench.runs.reader import RunFolder

MOST_ROWS: Final = 20


@dataclass(frozen=True)
class Finding:
    """One cause.

    rule: its name, in kebab case, as its file. said: what is so, a sentence with its numbers. remedy: what to do, a
    sentence. lever: name of the lever that does it, None where none does. saves_ns: time of a call that the remedy
    would save at most, None where the data do not bound it. evidence: at most `MOST_ROWS` rows, the largest first, with
    units in the names of the columns; counted: how many there are in all.
    """

    rule: str
    said: str
    remedy: str
    evidence: pd.DataFrame = field(repr=False, compare=False)
    lever: str | None = None
    saves_ns: float | None = None
    counted: int = 0

    @classmethod
    def of(
        cls,
        rule: str,
        said: str,
        remedy: str,
        evidence: pd.DataFrame,
        *,
        lever: str | None = None,
        saves_ns: float | None = None,
    ) -> Finding:
        """A finding that shows the first rows of its evidence and counts all of them."""
        shown = evidence.head(MOST_ROWS).reset_index(drop=True)
        return cls(rule, said, remedy, shown, lever, saves_ns, len(evidence))

    def to_dict(self) -> dict[str, Any]:
        """The object that `workbench diagnose --json` prints."""
        rows = self.evidence.astype(object).where(self.evidence.notna(), None)
        return {
            "rule": self.rule,
            "said": self.said,
            "remedy": self.remedy,
            "lever": self.lever,
            "saves_ns": self.saves_ns,
            "evidence": rows.to_dict("records"),
            "evidence_rows": self.counted,
        }


@dataclass(frozen=True)
class Case:
    """What rules look at: a run and its diagnosis; the rest is worked out once, when a rule asks for it."""

    run: RunFolder
    diagnosis: Diagnosis

    @property
    def manifest(self) -> Manifest:
        """What was run, where, with what."""
        return self.run.manifest

    @property
    def on_gpu(self) -> bool:
        """Whether the run is on a CUDA device."""
        return self.manifest.device.kind == "cuda"

    @property
    def latency_ns(self) -> float:
        """T."""
        return self.diagnosis.latency.median_ns

    @cached_property
    def situation(self) -> Situation:
        """What levers are judged in."""
        return situation_of(self.run, self.diagnosis)

    @property
    def config(self) -> RunConfig:
        """What the run was made with; of an imported capture little of it is known."""
        return self.situation.config

    @cached_property
    def nodes(self) -> pd.DataFrame:
        """One row per graph node with times per call (`workbench.analysis.node_times`); empty without a nodes pass."""
        found = self.diagnosis.nodes
        return pd.DataFrame() if found is None else found.nodes

    @cached_property
    def device(self) -> pd.DataFrame:
        """Device work of the measured calls of the nodes pass, attributed; empty without one."""
        found = self.diagnosis.nodes
        return pd.DataFrame() if found is None else found.device

    @cached_property
    def kernels(self) -> pd.DataFrame:
        """Kernels by name, node and limit (`workbench.diagnosis.findings.node_kernels`)."""
        return node_kernels(self.diagnosis.nodes)

    @cached_property
    def cold_start(self) -> pd.DataFrame:
        """The steps of the cold start by cause (`workbench.analysis.cold_start`)."""
        return cold_start(self.run)

    @property
    def calls(self) -> int:
        """How many calls `nodes` and `device` are of."""
        return 0 if self.diagnosis.nodes is None else self.diagnosis.nodes.calls

    def share(self, name: str) -> float:
        """A share of T, 0 where it is not known."""
        return self.diagnosis.shares.get(name) or 0.0


Rule = Callable[[Case], Iterator[Finding]]
