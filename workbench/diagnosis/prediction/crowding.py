"""More items at once: a larger batch, or several calls in flight. T is the time of an item."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.thresholds import CEILING_SIGMA, CEILING_SIGMA_CORROBORATED
from workbench.diagnosis.prediction.facts import Amount, Facts
from workbench.diagnosis.prediction.formula import Formula, Terms, Unpredictable
from workbench.diagnosis.situation import Situation
from workbench.diagnosis.trace import CallTrace

# Kernels that fill the device stay the same ones when there is more to do, so that they are better known than others.
_SAME_KERNELS: Final = CEILING_SIGMA_CORROBORATED / CEILING_SIGMA


def batched(times: float) -> Formula:
    """The batch `times` as large: work and copies grow with it, weights are read once, and the host's part is shared.

    Under-filled time grows at least to what the larger work needs at the ceilings, at most as the waves of the same
    kernels do; between the two, larger work gets better kernels. Longer kernels hide idle time of the host, from none
    of it to all.
    """
    return partial(_batched, times=times)


def in_flight(calls: int) -> Formula:
    """Several calls in flight: idle time is filled, and under-filled kernels may run side by side; other work is not
    done faster, and each direction of copies has one engine. Between that and no gain at all, all is possible: the
    host's locks decide.
    """
    return partial(_in_flight, calls=calls)


def _batched(situation: Situation, trace: CallTrace, facts: Facts, *, times: float) -> Terms:
    diagnosis, pieces = situation.diagnosis, facts.pieces
    if diagnosis is None or diagnosis.nodes is None or situation.graph is None:
        raise Unpredictable("The nodes and the graph were not recorded, so what grows with the batch is not known.")
    nodes = diagnosis.nodes.nodes
    growth, bound_ns = _grown_bounds(nodes, situation.graph.weights, times)
    filled_ns, under_ns = (nodes["compute_ns"] + nodes["memory_ns"]).to_numpy(), nodes["under-filled_ns"].to_numpy()
    share = np.divide(under_ns, nodes["time_ns"].to_numpy(), out=np.zeros(len(nodes)), where=under_ns > 0)
    best = np.minimum(np.maximum(under_ns, bound_ns * share), under_ns * max(times, 1.0)).sum()
    waves = trace.under_filled["waves"].to_numpy(np.float64)
    rising = np.minimum(np.fmax(1.0, waves * times), max(times, 1.0))
    best_rise = best / under_ns.sum() if under_ns.any() else 1.0
    same_rise = max(_weighted(rising, trace.under_filled["own_ns"].to_numpy(np.float64), 1.0), best_rise)
    filled = (pieces.compute + pieces.memory) * _weighted(growth, filled_ns, times) * facts.other_kernels**_SAME_KERNELS
    under = pieces.under_filled * best_rise ** (1.0 - facts.span) * same_rise**facts.span * facts.other_kernels
    other = (pieces.unknown + pieces.exposed_copies) * times
    before = pieces.compute + pieces.memory + pieces.under_filled + pieces.unknown + pieces.exposed_copies
    hidden = np.clip(filled + under + other - before, 0.0, np.maximum(pieces.idle - facts.ends, 0.0))
    return {
        "compute and memory": filled / times,
        "under-filled": under / times,
        "copies and unknown": other / times,
        "idle": (pieces.idle - hidden * facts.span) / times,
    }


def _grown_bounds(
    nodes: pd.DataFrame, weights: dict[str, int], times: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Factor by which the larger bound of each node grows, weights read once, and that bound in ns (0: unknown)."""
    weight_bytes = nodes["name"].astype(object).map(weights).fillna(0.0).to_numpy(np.float64)
    moved = (nodes["read_bytes"] + nodes["written_bytes"]).to_numpy(np.float64)
    compute, memory = (nodes[name].to_numpy(np.float64) for name in ("compute_bound_ns", "memory_bound_ns"))
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.nan_to_num(np.minimum(weight_bytes / moved, 1.0))
        bound = np.fmax(compute * times, memory * (kept + (1.0 - kept) * times))
        growth = bound / np.fmax(compute, memory)
    return np.where(np.isfinite(growth), growth, times), np.nan_to_num(bound)


def _in_flight(situation: Situation, trace: CallTrace, facts: Facts, *, calls: int) -> Terms:
    pieces = facts.pieces
    work = pieces.compute + pieces.memory + pieces.unknown + pieces.under_filled / calls
    copies = trace.border_copies
    copied = [
        float(copies.loc[copies["kind"] == kind, "duration_ns"].sum()) / trace.node_calls for kind in ("h2d", "d2h")
    ]
    busiest = np.maximum(np.maximum(work, max(copied)), facts.latency / calls)
    least = np.minimum(busiest, facts.latency)
    return {
        "what cannot overlap": least,
        "half of the rest": (facts.latency - least) * facts.span,
    }


def _weighted(values: Amount, weights: Amount, otherwise: float) -> float:
    return float(np.average(values, weights=weights)) if len(weights) and weights.sum() else otherwise
