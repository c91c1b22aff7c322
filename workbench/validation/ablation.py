"""A run with some of its sources taken away, as if they had never answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnx
import pandas as pd

from workbench.diagnosis.result import DiagnosedRun
from workbench.runs.manifest import Manifest, PassInfo

EVERYTHING: Final = "everything"
LATENCY_AND_NVML: Final = "latency and NVML"
ABLATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    EVERYTHING: (),
    "no counters": ("counters",),
    "no activity": ("activity",),
    "no node attribution": ("nodes",),
    LATENCY_AND_NVML: ("counters", "activity", "nodes"),
    "latency alone": ("counters", "activity", "nodes", "samples"),
}
"""What is left → the passes that are taken away; `samples` are those of NVML in all passes."""

_TAKEN: Final = "taken away"
_SOURCES: Final = {"counters": ("gpm",), "nodes": ("ort_profiler",), "samples": ("nvml",)}
_TRACERS: Final = ("cupti", "nsys")


class Without:
    """A run that lacks passes, as `diagnose` takes it. What the passes left is gone from every table.

    Each table is read whole and filtered once, which suits the few calls of a labelled run.
    """

    def __init__(self, run: DiagnosedRun, taken: Sequence[str]) -> None:
        self._run, self._taken = run, tuple(taken)
        self._tables: dict[str, pd.DataFrame] = {}

    @property
    def manifest(self) -> Manifest:
        """The manifest with the passes skipped and their sources absent."""
        whole = self._run.manifest
        passes = {
            name: PassInfo(name=name, state="skipped", reason=_TAKEN) if name in self._taken else info
            for name, info in whole.passes.items()
        }
        if "samples" in self._taken:  # device memory is NVML's to tell
            passes = {name: info.model_copy(update={"peak_device_bytes": None}) for name, info in passes.items()}
        gone = {source for name in self._taken for source in _SOURCES.get(name, ())}
        if {"activity", "nodes"} <= set(self._taken):
            gone |= set(_TRACERS)
        sources = {
            name: info.model_copy(update={"state": "absent", "reason": _TAKEN}) if name in gone else info
            for name, info in whole.sources.items()
        }
        return whole.model_copy(update={"passes": passes, "sources": sources})

    @property
    def graph(self) -> onnx.ModelProto | None:
        """The optimised graph, which the pass `nodes` saves."""
        return None if "nodes" in self._taken else self._run.graph

    @property
    def model_graph(self) -> onnx.ModelProto | None:
        """The graph that ONNX Runtime was given."""
        return self._run.model_graph

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table, or the columns chosen of it, without the rows of the passes that were taken away."""
        if name not in self._tables:
            whole = self._run.table(name)
            kept = np.zeros(len(whole), np.bool_) if name in self._taken else ~whole["pass"].isin(self._taken)
            self._tables[name] = whole if kept.all() else whole[kept]
        found = self._tables[name]
        return found if columns is None else found[list(columns)]
