"""Other data types and fewer bytes: every node is held against the bounds that it would have then.

A node that fills the device and gets a lower bound keeps its distance from it. Where its bound rises, it takes at least
the new bound and at most what keeping the distance would give. An under-filled node keeps its time while its bound is
below. Kernels of other types are other kernels, so the intervals are wide.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.roofline import bound_times
from workbench.analysis.thresholds import CEILING_SIGMA
from workbench.diagnosis.prediction.facts import Facts
from workbench.diagnosis.prediction.formula import Formula, Terms, Unpredictable
from workbench.diagnosis.situation import Situation
from workbench.diagnosis.trace import CallTrace

WEIGHT_BLOCK: Final = 32
"""Weights that share one scale of the type of the activations: the default of ONNX Runtime's MatMulNBits quantizer."""
_SHIFTS: Final = np.linspace(-4 * CEILING_SIGMA, 4 * CEILING_SIGMA, 33)  # holds 0, and all but 0.01 % of the draws

Rework = Callable[[Situation, pd.DataFrame], pd.DataFrame]
"""The table of nodes as it would be: `dtype`, `read_bytes` and `written_bytes` changed."""


def with_tf32(on: bool) -> Formula:
    """TF32 tensor cores for float32 matrix work, or the float32 units instead."""

    def formula(situation: Situation, trace: CallTrace, facts: Facts) -> Terms:
        return _with_nodes(situation, facts, lambda _, nodes: nodes, tf32=on)

    return formula


def with_half_precision(dtype: str, *, at_border: bool = False) -> Formula:
    """float32 work as `dtype` (2 bytes). at_border: the model's inputs and outputs too, which halves their copies;
    else every float32 input and output gets a node that casts it.
    """

    def formula(situation: Situation, trace: CallTrace, facts: Facts) -> Terms:
        terms = _with_nodes(situation, facts, partial(_halved, dtype=dtype), tf32=_uses_tf32(situation))
        if at_border:
            return {**terms, "change of copies": -facts.exposed_copies * (trace.border_fraction or 0.0) / 2}
        tensors = (*situation.model.inputs, *situation.model.outputs)
        casts = sum(tensor.type == "float32" for tensor in tensors)
        return {**terms, "casts": casts * (situation.ceilings.node_overhead_ns or 0.0) * facts.span}

    return formula


def with_smaller_weights(bits: int) -> Formula:
    """Weights of matrix products in `bits` bits and a scale for every block of them; the arithmetic stays."""

    def formula(situation: Situation, trace: CallTrace, facts: Facts) -> Terms:
        return _with_nodes(situation, facts, partial(_packed, bits=bits), tf32=_uses_tf32(situation))

    return formula


def _uses_tf32(situation: Situation) -> bool:
    return situation.cuda_options.get("use_tf32", "1") == "1"


def _halved(_: Situation, nodes: pd.DataFrame, *, dtype: str) -> pd.DataFrame:
    chosen = nodes["dtype"] == "float32"
    factor = np.where(chosen, 0.5, 1.0)
    return nodes.assign(
        dtype=nodes["dtype"].mask(chosen, dtype),
        read_bytes=nodes["read_bytes"] * factor,
        written_bytes=nodes["written_bytes"] * factor,
    )


def _packed(situation: Situation, nodes: pd.DataFrame, *, bits: int) -> pd.DataFrame:
    if situation.graph is None:
        raise Unpredictable("The optimised graph was not saved, so the bytes of the weights are not known.")
    weight_bytes = nodes["name"].astype(object).map(situation.graph.weights).fillna(0.0).to_numpy(np.float64)
    item_bits = np.where(nodes["dtype"] == "float32", 32, 16)
    kept = np.minimum((bits + item_bits / WEIGHT_BLOCK) / item_bits, 1.0)
    products = nodes["op_type"].astype(str).str.contains("MatMul|Gemm").to_numpy()
    return nodes.assign(read_bytes=nodes["read_bytes"] - np.where(products, weight_bytes * (1.0 - kept), 0.0))


def _with_nodes(situation: Situation, facts: Facts, rework: Rework, *, tf32: bool) -> Terms:
    """T with the change of device time; of what goes before idle time of the host, some is waited for anyway."""
    diagnosis = situation.diagnosis
    if diagnosis is None or diagnosis.nodes is None or not len(diagnosis.nodes.nodes):
        raise Unpredictable("The nodes were not recorded, so what limits each of them is not known.")
    nodes, pieces = diagnosis.nodes.nodes, facts.pieces
    before_ns = float(nodes["time_ns"].sum())
    if not before_ns:
        raise Unpredictable("No device time leads to a node.")
    reworked = rework(situation, nodes)
    changes = _changes(nodes, reworked, bound_times(reworked, situation.ceilings, tf32=tf32))
    # The nodes' times are brought to those of the pieces, which stand in proportion to T.
    scale = (pieces.compute + pieces.memory + pieces.under_filled + pieces.unknown) / before_ns
    least, most, judged = (np.interp(facts.ceiling_shift, _SHIFTS, each) for each in changes.by_shift_ns.T)
    change = least + (most - least) * facts.span + judged * facts.misjudged
    change = (change + (changes.touched_ns + change) * (facts.other_kernels - 1.0)) * scale
    return {"T": facts.latency, "change of device time": np.where(change < 0, change * facts.seen, change)}


class _Changes(NamedTuple):
    """Nanoseconds per call that the device works longer (below 0: less).

    by_shift_ns: float64[shifts, 3] for every error of the ceiling of the units that change: the least, the most, and
    what under-filled nodes would add if they followed their bounds. touched_ns: time of the nodes that change at all.
    """

    by_shift_ns: NDArray[np.float64]
    touched_ns: float


def _changes(nodes: pd.DataFrame, reworked: pd.DataFrame, bounds: pd.DataFrame) -> _Changes:
    """Nodes without known bounds stay as they are."""
    compute, memory = (bounds[name].to_numpy(np.float64) for name in ("compute_ns", "memory_ns"))
    compute_before, memory_before = (nodes[f"{name}_bound_ns"].to_numpy(np.float64) for name in ("compute", "memory"))
    before = np.fmax(compute_before, memory_before)
    known = (before > 0) & np.isfinite(compute) & np.isfinite(memory)
    same_unit = compute == compute_before  # its ceiling is as right or wrong as it was
    touched = known & ~(same_unit & (memory == memory_before))
    touched |= known & (reworked["dtype"] != nodes["dtype"]).to_numpy(np.bool_, na_value=False)
    filled, under = (nodes["compute_ns"] + nodes["memory_ns"]).to_numpy(), nodes["under-filled_ns"].to_numpy()
    filled, under, before, compute, memory, same_unit = (
        column[touched] for column in (filled, under, before, compute, memory, same_unit)
    )
    share = np.divide(filled, filled + under, out=np.zeros_like(filled), where=filled + under > 0)
    rows = []
    for shift in _SHIFTS:
        after = np.maximum(compute * np.where(same_unit, 1.0, np.exp(shift)), memory)
        factor = after / before
        kept = filled * factor
        risen = np.minimum(np.maximum(after * share, filled), kept)
        longer = np.maximum(after * (1.0 - share) - under, 0.0).sum() - filled.sum()
        least, most = np.where(factor > 1, risen, kept).sum() + longer, kept.sum() + longer
        rows.append((least, most, (under * (np.minimum(factor, 1.0) - 1.0)).sum()))
    return _Changes(np.array(rows), float((filled + under).sum()))
