"""What limits device work that leads to no node: the floors of the graph as given stand in for the nodes."""

from __future__ import annotations

from typing import Final

import numpy as np

from workbench.analysis.node_times import NodeTimes
from workbench.diagnosis.estimate import floors_of
from workbench.diagnosis.estimated_pieces import Floors, by_limit, shifted
from workbench.diagnosis.result import DiagnosedRun
from workbench.diagnosis.shares import Amount, LimitSplit

IN_PLACE_OF_NODES: Final = (
    "No kernel leads to a node, so that compute and memory are told apart by the work of the graph as it was given; "
    "the nodes pass measures it."
)

EVENLY: Final = 0.5
"""Fraction of the device time above the floors that nodes share evenly: the middle, as for an estimate."""


def floors_in_place(run: DiagnosedRun, nodes: NodeTimes | None) -> Floors | None:
    """The floors of a run whose device work leads to no node; None where nodes were recorded, or there is no graph."""
    if run.manifest.imported is not None or (nodes is not None and len(nodes.executions)):
        return None
    return floors_of(run.manifest, run.model_graph)


def with_floors(
    split: LimitSplit, floors: Floors, work_ns: float, ceiling_shift: Amount, shortest_ns: float | None
) -> LimitSplit:
    """The split with its unknown part classed by the floors.

    Kernels that fill little of the GPU are known by their own grids. Where the floors call more of the work
    under-filled than that, because it is far from both ceilings, the unknown part holds the difference; the rest of it
    is compute and memory in the proportion of the floors. work_ns: device work of a call. ceiling_shift: as in
    `limit_split`.
    """
    shift = np.asarray(ceiling_shift, np.float64)
    busy, evenly = np.full(shift.shape, work_ns), np.full(shift.shape, EVENLY)
    found = by_limit(floors, shifted(floors, shift), busy, evenly, shortest_ns or 0.0)
    compute, memory, under = (found[name] for name in ("compute", "memory", "under-filled"))
    filled = compute + memory
    part = np.divide(under, filled + under, out=np.zeros_like(under), where=filled + under > 0)
    more = np.where(filled > 0, np.clip(part - split.under_filled, 0.0, split.unknown), split.unknown * (under > 0))
    rest = split.unknown - more
    to_compute = rest * np.divide(compute, filled, out=np.zeros_like(filled), where=filled > 0)
    to_memory = rest * np.divide(memory, filled, out=np.zeros_like(filled), where=filled > 0)
    return LimitSplit(
        split.compute + to_compute,
        split.memory + to_memory,
        split.under_filled + more,
        rest - to_compute - to_memory,
    )
