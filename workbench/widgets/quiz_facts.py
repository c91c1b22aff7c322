"""The numbers of a run that the feedback of the quiz quotes, each None where the run does not hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.node_times import NodeTimes
from workbench.diagnosis.counters import steady_counters
from workbench.diagnosis.device_load import device_load
from workbench.diagnosis.result import Diagnosis
from workbench.diagnosis.shares import Pieces
from workbench.runs.manifest import Manifest
from workbench.runs.reader import RunFolder


@dataclass(frozen=True)
class Facts:
    """Of one call: times in nanoseconds, sizes in bytes, fractions 0..1.

    pieces: how T is made up. running, accessed: NVML's two utilisations. sm_active, tensor_active, dram_active: GPM
    counters. copied_bytes, copies_ns: between host and device, with kernels beside them or not. flops, moved_bytes: of
    all nodes, at least; compute_bound_ns, memory_bound_ns: what these need at the measured ceilings, summed over nodes.
    kernels: launched; kernel_ns: median duration of one; empty_kernel_ns: of one that does nothing.
    """

    kind: str
    latency_ns: float
    shares: dict[str, float | None]
    pieces: Pieces | None
    running: float | None = None
    accessed: float | None = None
    sm_active: float | None = None
    tensor_active: float | None = None
    dram_active: float | None = None
    copied_bytes: float | None = None
    copies_ns: float | None = None
    flops: float | None = None
    moved_bytes: float | None = None
    compute_bound_ns: float | None = None
    memory_bound_ns: float | None = None
    kernels: float | None = None
    kernel_ns: float | None = None
    empty_kernel_ns: float | None = None
    memory_bytes_per_s: float | None = None


def facts_of(run: RunFolder, diagnosis: Diagnosis) -> Facts:
    """Gather them from a run and its diagnosis."""
    manifest: Manifest = run.manifest
    on_gpu = manifest.device.kind == "cuda"
    load = device_load(run) if on_gpu else None
    counters = steady_counters(run) if on_gpu else {}

    def counted(name: str) -> float | None:
        return counters[name] / 100 if name in counters else None

    nodes = diagnosis.nodes
    return Facts(
        kind=manifest.device.kind,
        latency_ns=diagnosis.latency.median_ns,
        shares=diagnosis.shares,
        pieces=diagnosis.pieces,
        running=None if load is None else load.running,
        accessed=None if load is None else load.accessed,
        sm_active=counted("sm_active_percent"),
        tensor_active=counted("tensor_active_percent"),
        dram_active=counted("dram_active_percent"),
        empty_kernel_ns=manifest.ceilings.shortest_kernel_ns,
        memory_bytes_per_s=manifest.ceilings.memory_bytes_per_s,
        **({} if nodes is None or not nodes.calls else {**_of_nodes(nodes), **_of_device(nodes)}),
    )


def _of_nodes(found: NodeTimes) -> dict[str, Any]:
    table = found.nodes
    if not len(table):
        return {}
    return {
        "flops": _sum(table[["tensor_flops", "fp_flops", "special_flops"]]),
        "moved_bytes": _sum(table[["read_bytes", "written_bytes"]]),
        "compute_bound_ns": _sum(table[["compute_bound_ns"]]),
        "memory_bound_ns": _sum(table[["memory_bound_ns"]]),
    }


def _of_device(found: NodeTimes) -> dict[str, Any]:
    work, calls = found.device, found.calls
    if not len(work):
        return {}
    lasted_ns = (work["end_ns"] - work["start_ns"]).to_numpy(np.float64)
    crossing, kernel = work["host_copy"].to_numpy(np.bool_), (work["table"] == "kernels").to_numpy()
    return {
        "copied_bytes": float(work.loc[crossing, "bytes"].fillna(0).sum()) / calls,
        "copies_ns": float(lasted_ns[crossing].sum()) / calls,
        "kernels": float(kernel.sum()) / calls,
        "kernel_ns": float(np.median(lasted_ns[kernel])) if kernel.any() else None,
    }


def _sum(amounts: pd.DataFrame) -> float | None:
    """The sum of what is known, a lower bound; None where nothing is."""
    known = amounts.to_numpy(np.float64)
    return float(np.nansum(known)) if np.isfinite(known).any() else None
