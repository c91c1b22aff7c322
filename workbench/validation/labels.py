"""The label of each cell: by construction where the arithmetic leaves no doubt, else by intervention alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from workbench.diagnosis.interventional import tf32_ratio
from workbench.diagnosis.levers import Situation
from workbench.diagnosis.prediction.formula import Unpredictable
from workbench.diagnosis.shares import CLASSES
from workbench.diagnosis.verdict import labels
from workbench.validation.cells import MORE, Group
from workbench.validation.ratios import Ratio, Timed

CLEAR_FLOOR: Final = 3.0
"""A label by construction holds when its floor is this many times the next one …"""
NEAR_FLOOR: Final = 2.0
"""… and a border when neither of its two floors is more than this many times the other."""
LARGE_BY_INTERVENTION: Final = 0.4
"""An intervention agrees when it gives its class at least this, and one on another class at most this."""

Shares = dict[str, Ratio]


@dataclass(frozen=True)
class Label:
    """What a cell is.

    classes: one, or the two of a border. how: `construction`, `border` or `intervention`; empty where the run lacks
    what a label needs. accepted: whether the cell
    counts; `why` says why not. floors_ns: what each class needs at least. shares: interventional shares by class, with
    their intervals, as far as they were measured.
    """

    classes: tuple[str, ...]
    how: str
    accepted: bool
    why: str
    floors_ns: Mapping[str, float]
    shares: Mapping[str, Ratio]


def label_of(group: Group, arm: str, situation: Situation, timed: Timed) -> Label:
    """The label of one cell. situation: of its recorded run, of which only counted work and ceilings are used here."""
    expected = group.cells[arm]
    if situation.diagnosis is None or situation.diagnosis.nodes is None:
        unknown = "Its nodes were not recorded, so that its floors are not known."
        return Label(tuple(expected.split("+")) if expected else (), "", False, unknown, {}, {})
    floors, shares = floors_ns(situation), interventional_shares(group, arm, situation, timed)
    if expected is None:
        return _by_intervention(floors, shares)
    classes = tuple(expected.split("+"))
    why = _floors_against(classes, floors) or _interventions_against(classes, shares)
    how = "border" if len(classes) > 1 else "construction"
    return Label(classes, how, why is None, why or "", floors, shares)


def _by_intervention(floors: Mapping[str, float], shares: Shares) -> Label:
    if not shares.keys() >= set(CLASSES):
        lacking = ", ".join(sorted(set(CLASSES) - shares.keys()))
        return Label((), "intervention", False, f"No intervention measured {lacking}.", floors, shares)
    named = str(labels({name: shares[name].value for name in CLASSES})[0])
    if named == "inconclusive":
        return Label((), "intervention", False, "No interventional share is large and clear.", floors, shares)
    return Label(tuple(named.split("+")), "intervention", True, "", floors, shares)


def _floors_against(classes: tuple[str, ...], floors: Mapping[str, float]) -> str | None:
    mine = [floors[name] for name in classes]
    rest = max(floors[name] for name in CLASSES if name not in classes)
    if len(classes) == 1 and mine[0] < CLEAR_FLOOR * rest:
        return f"The floor of {classes[0]} is {mine[0] / rest:.1f} times the next one: too little to be sure."
    if len(classes) > 1 and max(mine) > NEAR_FLOOR * min(mine):
        return f"The two floors differ {max(mine) / min(mine):.1f} times: this is no border."
    return None


def _interventions_against(classes: tuple[str, ...], shares: Shares) -> str | None:
    for name, share in shares.items():
        if len(classes) == 1 and name == classes[0] and share.high < LARGE_BY_INTERVENTION:
            return f"The intervention gives {name} {share.value:.2f} of T only."
        if name not in classes and share.low > LARGE_BY_INTERVENTION:
            return f"The intervention gives {name} {share.value:.2f} of T."
    return None


def floors_ns(situation: Situation) -> dict[str, float]:
    """The least time that each class needs in a call: counted work over measured ceilings, nanoseconds.

    compute, memory: sums over the nodes of their bounds. pcie: inputs and outputs of the graph at the rate of their
    buffers. launch: nodes times what ONNX Runtime and a launch cost each; of a replayed graph, kernels times the
    shortest kernel and the gap; or what kernels that occupy few multiprocessors need at their part of the bandwidth,
    where that is more.
    """
    diagnosis, ceilings, config = situation.diagnosis, situation.ceilings, situation.config
    assert diagnosis is not None
    assert diagnosis.nodes is not None
    nodes = diagnosis.nodes.nodes
    border = diagnosis.nodes.device[diagnosis.nodes.device["carries"].notna()]
    copied = border.groupby("kind", observed=True)["bytes"].sum() / diagnosis.nodes.calls
    kind = "pinned" if config.binding == "pinned" else "pageable"
    pcie = sum(
        1e9 * float(copied.get(way, 0.0)) / (getattr(ceilings, f"{way}_{kind}_bytes_per_s") or math.nan)
        for way in ("h2d", "d2h")
    )
    if config.cuda_graph:
        kernels = (diagnosis.nodes.device["table"] == "kernels").sum() / diagnosis.nodes.calls
        launch = float(kernels) * ((ceilings.shortest_kernel_ns or math.nan) + (ceilings.replay_gap_ns or math.nan))
    else:
        launch = float(nodes["executions"].sum()) * (ceilings.node_overhead_ns or math.nan)
    return {
        "compute": float(np.nansum(nodes["compute_bound_ns"])),
        "memory": float(np.nansum(nodes["memory_bound_ns"])),
        "pcie": pcie,
        "launch": max(launch, _few_multiprocessors_ns(situation)),
    }


def _few_multiprocessors_ns(situation: Situation) -> float:
    """Memory time of nodes whose rows are fewer than the multiprocessors, each of which gets one thread block."""
    diagnosis, sms = situation.diagnosis, situation.device.sm_count
    assert diagnosis is not None
    assert diagnosis.nodes is not None
    nodes, rows = diagnosis.nodes.nodes, situation.batch
    if sms is None or rows is None or rows >= sms:
        return 0.0
    per_row = nodes["op_type"].astype(str) == "LayerNormalization"
    return float(nodes.loc[per_row, "memory_bound_ns"].sum()) * sms / rows


def interventional_shares(group: Group, arm: str, situation: Situation, timed: Timed) -> Shares:
    """The shares of T of one cell that the group's other arms give, by class.

    With T of the cell itself, D bound on the device, G replayed as a graph, K the graph at `MORE` times the batch and O
    without TF32: pcie = 1 - D/T; launch = (D - G)/T + (MORE·G - K)/((MORE - 1)·T), the second term for under-filled
    kernels and less the time to read the weights; compute = (O - D)/((r - 1)·T); memory is what is left. Classes whose
    arms were not measured are left out, and memory wherever one is.
    """
    found: Shares = {}
    on_device = timed.ratio("device", arm) if arm != "device" else Ratio(1.0, 1.0, 1.0, 0)
    graph, more, slow = (timed.ratio(name, "device") for name in ("graph", "graph-more", "tf32-off"))
    if arm == "graph" or on_device is None:
        return found
    if arm in ("numpy", "pinned"):
        found["pcie"] = Ratio(1 - on_device.value, 1 - on_device.high, 1 - on_device.low, on_device.rounds)
    elif situation.config.binding == "device":
        found["pcie"] = Ratio(0.0, 0.0, 0.0, 0)
    if graph is not None:
        fixed = _fixed(graph, more, situation) if more is not None else 0.0
        found["launch"] = _scaled(graph, lambda ratio: on_device.value * (1 - ratio + fixed))
        if more is None and group.real:
            del found["launch"]  # the under-filled part is not known
    if slow is not None:
        try:
            factor = on_device.value / (tf32_ratio(situation) - 1)
            found["compute"] = _scaled(slow, lambda ratio: factor * (ratio - 1))
        except Unpredictable:
            pass
    if len(found) == len(CLASSES) - 1:
        rest = 1 - sum(share.value for share in found.values())
        half = math.sqrt(sum(((share.high - share.low) / 2) ** 2 for share in found.values()))
        found["memory"] = Ratio(rest, rest - half, rest + half, min(share.rounds for share in found.values()))
    return found


def _fixed(graph: Ratio, more: Ratio, situation: Situation) -> float:
    """The part of D that a replayed call spends no matter how large its batch is, weights not counted."""
    bandwidth, diagnosis = situation.ceilings.memory_bytes_per_s, situation.diagnosis
    weights = sum(situation.graph.weights.values()) if situation.graph is not None else 0
    weights_ns = 1e9 * weights / bandwidth if bandwidth else 0.0
    assert diagnosis is not None
    part = (MORE * graph.value - more.value) / (MORE - 1) - weights_ns / diagnosis.latency.median_ns
    return float(np.clip(part, 0.0, graph.value))


def _scaled(ratio: Ratio, share: Callable[[float], float]) -> Ratio:
    ends = sorted((share(ratio.low), share(ratio.high)))
    return Ratio(share(ratio.value), ends[0], ends[1], ratio.rounds)
