"""How much of a run is known: what is missing, and how much of the rest is attributed and counted."""

from __future__ import annotations

from typing import Final

import numpy as np

from workbench.analysis.node_times import NodeTimes
from workbench.analysis.work import coverage
from workbench.runs.manifest import Manifest

_GPU_SOURCES: Final = frozenset(("counters", "activity", "nvml", "gpm"))


def missing_sources(manifest: Manifest) -> list[str]:
    """Passes and sources that gave nothing, each with its reason, and what an import had to leave out.

    On a CPU those of a GPU are not missing.
    """
    unneeded = _GPU_SOURCES if manifest.device.kind == "cpu" else frozenset()
    passes = [p for p in manifest.passes.values() if p.state != "complete" and p.name not in unneeded]
    sources = [(n, s) for n, s in manifest.sources.items() if s.state != "present" and n not in unneeded]
    said = [*(f"{p.name} pass: {p.reason}" for p in passes), *(f"{n}: {s.reason}" for n, s in sources)]
    left_out = manifest.imported.skipped if manifest.imported is not None else []
    return list(dict.fromkeys([*said, *left_out]))


def attributed_fraction(nodes: NodeTimes | None) -> float | None:
    """Of the device work the fraction that leads to a node or a graph input or output; None without nodes or work."""
    if nodes is None or not len(nodes.device) or not len(nodes.executions):
        return None
    return float(nodes.device["cause"].isna().mean())


def work_coverage(nodes: NodeTimes | None) -> float | None:
    """Of the node time the fraction whose flops and bytes are counted; None without nodes."""
    if nodes is None or not len(nodes.executions):
        return None
    weighted = nodes.executions.assign(duration_ns=nodes.executions["device_ns"])
    found = coverage(nodes.executions, weighted)
    return None if np.isnan(found) else found
