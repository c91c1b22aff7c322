"""A run that recorded latency and NVML alone: shares from floors and from how busy the GPU was, and how sure they are.

`workbench.diagnosis.estimated_pieces` holds the arithmetic, the other modules that are imported here what goes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from workbench.analysis.filling import Filling
from workbench.analysis.roofline import bound_times
from workbench.analysis.tables import Tables
from workbench.analysis.thresholds import CEILING_SIGMA, CONFIDENCE_DRAWS
from workbench.diagnosis.device_load import DeviceLoad, device_load
from workbench.diagnosis.estimated_pieces import Evidence, Floors, Guess, pieces_of, shifted
from workbench.diagnosis.link_floor import LinkFloor, link_floor
from workbench.diagnosis.shares import CLASSES, Pieces
from workbench.diagnosis.static_nodes import static_filling, static_nodes
from workbench.diagnosis.verdict import labels
from workbench.runs.manifest import LatencyInfo, Manifest

_UNFUSED_LEVELS: Final = ("disable", "basic")
_MOST_CELLS: Final = 1 << 20
"""Draws times distinct nodes that are worked out at once, which bounds memory."""


@dataclass(frozen=True)
class Estimate:
    """Pieces that sum to T (their `sync` is not known, and 0), how sure they are (0..1), and a sentence per reason."""

    pieces: Pieces
    confidence: float
    reasons: list[str]


def estimate(run: Tables, manifest: Manifest, latency: LatencyInfo, model: onnx.ModelProto | None) -> Estimate | None:
    """Pieces, confidence and reasons from the latency pass alone; None where it holds too little to say anything.

    model: the graph as given, without weights. Reads the tables `latency` and `samples` of that pass, the manifest and
    its ceilings. Nothing is said of an imported capture, of a CPU run without a graph, or where neither NVML nor a
    graph nor copies are known.
    """
    evidence = _evidence(run, manifest, latency, model)
    if evidence is None:
        return None
    load = evidence.load
    running = load.running if load is not None and load.periods > 0 else np.nan
    point = Guess(latency.median_ns, 0.0, 1.0, 1.0, running, 0.5, 0.5)
    pieces = Pieces(**{name: float(value) for name, value in vars(pieces_of(evidence, point)).items()})
    return Estimate(pieces, _confidence(evidence, point, latency, pieces), _reasons(evidence, pieces, latency))


def _evidence(run: Tables, manifest: Manifest, latency: LatencyInfo, model: onnx.ModelProto | None) -> Evidence | None:
    if manifest.imported is not None:
        return None
    on_cpu = manifest.device.kind == "cpu"
    floors = floors_of(manifest, model)
    load = None if on_cpu else device_load(run)
    link = LinkFloor(0.0, 0.0, 0.0) if on_cpu else link_floor(run, manifest, latency, model)
    ceilings = manifest.ceilings
    if floors is None and (on_cpu or (load is None and not link.slow_ns)):
        return None
    nodes = floors.nodes if floors is not None else 0.0
    replayed = bool(manifest.config.get("cuda_graph"))
    start = (ceilings.launch_ns or 0.0) if replayed else nodes * (ceilings.node_overhead_ns or 0.0)
    gap = nodes * (ceilings.replay_gap_ns or 0.0) if replayed else 0.0
    return Evidence(link, floors, load, start, gap, 0.0 if on_cpu else ceilings.shortest_kernel_ns or 0.0, on_cpu)


def floors_of(manifest: Manifest, model: onnx.ModelProto | None) -> Floors | None:
    """Equal nodes in one row, so that many draws of a large graph stay small; None where no node is known.

    TensorRT makes kernels of its own out of whole subgraphs, of which the graph as given tells nothing.
    """
    if model is None or manifest.config.get("provider") == "tensorrt":
        return None
    session = manifest.config.get("session", {})
    fused = session.get("graph_optimization_level", "all") not in _UNFUSED_LEVELS
    nodes = static_nodes(model, manifest.model.feed_shapes, fused=fused)
    if not len(nodes):
        return None
    bounds = bound_times(nodes, manifest.ceilings, tf32=manifest.uses_tf32)
    fill = static_filling(nodes, bounds, manifest.device)
    table = bounds.assign(coverage=fill.coverage, waves=fill.waves)
    distinct = table.groupby(list(table.columns), dropna=False, sort=False).size().reset_index(name="occurrences")
    columns = {name: distinct[name].to_numpy(np.float64) for name in distinct}
    return Floors(
        columns["compute_ns"],
        columns["memory_ns"],
        columns["occurrences"],
        Filling(columns["coverage"], columns["waves"]),
    )


def _confidence(evidence: Evidence, point: Guess, latency: LatencyInfo, pieces: Pieces) -> float:
    """How sure the verdict is, 0..1: the fraction of guesses that lead to it, times what NVML's readings can tell.

    Drawn are T, the ceilings (`CEILING_SIGMA`), the rates of copies and of starting nodes with the same width, the
    reading of NVML with its spread, all that is only bounded evenly between its bounds, and the owner of unclassed
    time. The n periods that NVML watched are all the observations there are, and n that agree make the next one certain
    to (n + 1) / (n + 2) only (Laplace's rule of succession): to one half without any.
    """
    rng = np.random.default_rng(0)

    def normal() -> NDArray[np.float64]:
        return rng.standard_normal(CONFIDENCE_DRAWS)

    spread = (latency.ci_high_ns - latency.ci_low_ns) / (2 * 1.96)
    seen = evidence.load.spread if evidence.load is not None else 0.0
    draws = Guess(
        latency_ns=np.maximum(point.latency_ns + spread * normal(), 1.0),
        shift=CEILING_SIGMA * normal(),
        copies=np.exp(CEILING_SIGMA * normal()),
        overhead=np.exp(CEILING_SIGMA * normal()),
        running=np.clip(point.running + seen * normal(), 0.0, 1.0),
        placed=rng.uniform(size=CONFIDENCE_DRAWS),
        evenly=rng.uniform(size=CONFIDENCE_DRAWS),
    )
    owner = rng.integers(0, len(CLASSES), CONFIDENCE_DRAWS)
    rows = len(evidence.floors.occurrences) if evidence.floors is not None else 1
    parts = min(-(-rows * CONFIDENCE_DRAWS // _MOST_CELLS), CONFIDENCE_DRAWS)
    verdict, same = labels(pieces.shares())[0], 0
    for chunk in np.array_split(np.arange(CONFIDENCE_DRAWS), parts):
        drawn = pieces_of(evidence, Guess(*(each[chunk] for each in draws))).shares()
        placed = {
            name: drawn[name] + np.where(owner[chunk] == index, drawn["other"], 0.0)
            for index, name in enumerate(CLASSES)
        }
        same += int((labels(placed) == verdict).sum())
    periods = evidence.load.periods if evidence.load is not None else 0.0
    return same / CONFIDENCE_DRAWS * (periods + 1) / (periods + 2)


def _reasons(evidence: Evidence, pieces: Pieces, latency: LatencyInfo) -> list[str]:
    """What the estimate rests on and what it lacks, a sentence each."""
    said = [_basis(evidence, pieces)]
    if evidence.floors is None:
        said.append("The nodes that ran are not known, so that device time is split by what NVML saw alone.")
    else:
        unknown = float(evidence.floors.occurrences[np.isnan(evidence.floors.memory_ns)].sum())
        if unknown:
            said.append(f"The work of {unknown:.0f} of {evidence.floors.nodes:.0f} nodes could not be counted.")
    if not evidence.on_cpu:
        said.append(_load_reason(evidence.load))
        if not evidence.link.known:
            said.append("How much crosses PCIe in a call is not known, so that copies count as idle or device time.")
    if latency.callers > 1:
        said.append("Several callers overlap copies with work, which shares of one call leave out.")
    return said


def _basis(evidence: Evidence, pieces: Pieces) -> str:
    def percent(time_ns: float) -> str:
        return f"{100 * min(time_ns / float(pieces.latency_ns), 1.0):.0f} %"

    recorded = "the latency was" if evidence.load is None else "latency and NVML were"
    parts = [f"copies {percent(evidence.link.slow_ns)}"] if evidence.link.slow_ns else []
    if evidence.floors is not None:
        needed = float(shifted(evidence.floors, 0.0).needed_ns)
        parts += [f"work of the nodes {percent(needed)}", f"starting them {percent(evidence.start_ns)}"]
    floors = f"; at the measured ceilings a call needs at least, of its time: {', '.join(parts)}" if parts else ""
    return f"Only {recorded} recorded, so shares are bounds, not measurements{floors}."


def _load_reason(load: DeviceLoad | None) -> str:
    if load is None:
        return "NVML told nothing of the calls, so that idle and busy time are told apart by the floors alone."
    if not load.periods:
        return (
            "The calls were over before NVML had watched a whole period, so that its "
            f"{100 * load.running:.0f} % of the time with something running is a lower bound: measure longer."
        )
    accessed = f" and memory accessed in {100 * load.accessed:.0f} %" if load.accessed is not None else ""
    return (
        f"NVML saw something running in {100 * load.running:.0f} % of the time{accessed}, over {load.periods:.1f} of "
        "its periods."
    )
