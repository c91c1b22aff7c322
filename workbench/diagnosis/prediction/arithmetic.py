"""Other data types and fewer bytes: every node is held against the bounds that it would have then.

A node that fills the device and gets a lower bound keeps its distance from it. Where its bound rises, it takes at least
the new bound and at most what keeping the distance would give. An under-filled node keeps its time while its bound is
below, but for matrix work: its tiles are computed one by one on few multiprocessors, so that each takes between as long
as before and in proportion to the rates of the units. What the device saves shows in T only where the host does not
come later. Kernels of other types are other kernels, so the intervals are wide.
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
HOST_DECIDES: Final = 0.5
"""Where the host makes more than this part of a call, what other nodes cost it weighs more than what they cost the
device."""
# Fusions that ONNX Runtime makes in float32 and float16 only: in bfloat16 their parts stayed nodes of their own
# (encoder of six layers: 153 kernels instead of 122; ONNX Runtime 1.31.1 on an H200).
_FUSED_WITHOUT_BFLOAT16: Final = frozenset(("BiasGelu", "BiasSoftmax"))
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
    else every float32 input and output gets a node that casts it, which costs the host as much as any node.
    """

    def formula(situation: Situation, trace: CallTrace, facts: Facts) -> Terms:
        apart = _FUSED_WITHOUT_BFLOAT16 & (situation.graph.op_types if situation.graph is not None else frozenset())
        if dtype == "bfloat16" and apart:
            raise Unpredictable(f"{min(apart)} comes apart in bfloat16, and what its parts take is not known.")
        rework = partial(_halved, dtype=dtype)
        if at_border:
            terms = _with_nodes(situation, facts, rework, tf32=_uses_tf32(situation))
            return {**terms, "change of copies": -facts.exposed_copies * (trace.border_fraction or 0.0) / 2}
        tensors = (*situation.model.inputs, *situation.model.outputs)
        casts = sum(tensor.type == "float32" for tensor in tensors) * (situation.ceilings.node_overhead_ns or 0.0)
        return _with_nodes(situation, facts, rework, tf32=_uses_tf32(situation), host_ns=casts)

    return formula


def with_smaller_weights(bits: int) -> Formula:
    """Weights of matrix products in `bits` bits and a scale for every block of them; the arithmetic stays.

    The products become other nodes that take their biases in: fewer nodes, each of which costs the host something else.
    """

    def formula(situation: Situation, trace: CallTrace, facts: Facts) -> Terms:
        if facts.hosts_part() > HOST_DECIDES:
            raise Unpredictable(
                "The host sets the pace of the calls, and what it takes for products of packed weights, which take "
                "their biases in, is not known."
            )
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


def _with_nodes(situation: Situation, facts: Facts, rework: Rework, *, tf32: bool, host_ns: float = 0.0) -> Terms:
    """T with the change of device time and `host_ns` more of the host, less what the one hides of the other."""
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
    least, most, judged, fast, slow = (np.interp(facts.ceiling_shift, _SHIFTS, each) for each in changes.by_shift_ns.T)
    tiles = fast ** (1.0 - facts.span) * slow**facts.span - changes.tiled_ns
    change = least + (most - least) * facts.span + judged * facts.misjudged + tiles
    change = (change + (changes.touched_ns + change) * (facts.other_kernels - 1.0)) * scale
    return {
        "T": facts.latency,
        "change of device time": change,
        "more nodes on the host": host_ns,
        "overlap of host and device": facts.overlap(change, host_ns),
    }


class _Changes(NamedTuple):
    """Nanoseconds per call that the device works longer (below 0: less).

    by_shift_ns: float64[shifts, 5] for every error of the ceiling of the units that change: the least, the most, and
    what under-filled nodes would add if they followed their bounds; and the time, not its change, that under-filled
    matrix work takes at least and at most. tiled_ns: the time that it takes now. touched_ns: time of the nodes that
    change at all.
    """

    by_shift_ns: NDArray[np.float64]
    tiled_ns: float
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
    matrix = nodes["tensor_flops"].to_numpy(np.float64) > 0
    filled, under, matrix, before, compute, memory, compute_before, memory_before, same_unit = (
        column[touched]
        for column in (filled, under, matrix, before, compute, memory, compute_before, memory_before, same_unit)
    )
    share = np.divide(filled, filled + under, out=np.zeros_like(filled), where=filled + under > 0)
    fewer_bytes = np.divide(memory, memory_before, out=np.ones_like(memory), where=memory_before > 0)
    rows = []
    for shift in _SHIFTS:
        shifted = compute * np.where(same_unit, 1.0, np.exp(shift))
        after = np.maximum(shifted, memory)
        factor = after / before
        kept = filled * factor
        risen = np.minimum(np.maximum(after * share, filled), kept)
        bound = after * (1.0 - share)
        longer = np.where(matrix, 0.0, np.maximum(bound - under, 0.0)).sum() - filled.sum()
        least, most = np.where(factor > 1, risen, kept).sum() + longer, kept.sum() + longer
        judged = np.where(matrix, 0.0, under * (np.minimum(factor, 1.0) - 1.0)).sum()
        slower_units = np.divide(shifted, compute_before, out=np.ones_like(shifted), where=compute_before > 0)
        fast, slow = (
            np.maximum(bound, under * pick(1.0, pick(slower_units, fewer_bytes)))[matrix].sum()
            for pick in (np.minimum, np.maximum)
        )
        rows.append((least, most, judged, fast, slow))
    return _Changes(np.array(rows), float(under[matrix].sum()), float((filled + under).sum()))
