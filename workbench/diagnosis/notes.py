"""What a reader has to know of a diagnosis beside its numbers."""

from __future__ import annotations

from typing import Final

from workbench.analysis.node_times import NodeTimes
from workbench.analysis.thresholds import (
    BEYOND_CEILING,
    BEYOND_SHARE,
    PROFILED_STRETCH,
    SPEED_DIFFERENCE,
    TRACED_STRETCH,
)
from workbench.diagnosis.confidence import Stretch
from workbench.diagnosis.passes import detailed_pass
from workbench.runs.manifest import LatencyInfo, Manifest

STRETCHES: Final = 4
"""Parts of a long capture that its nodes are worked out from."""


def notes_of(
    manifest: Manifest, bare: LatencyInfo, speed: float, nodes: NodeTimes | None, *, replayed: bool
) -> list[str]:
    """Sentences on how the times came about. speed: factor between the bare and the traced pass."""
    notes = [*manifest.notes, *bare.notes]
    sampled = _sampled(manifest, nodes)
    if sampled is not None:
        notes.append(
            f"Nodes, limits and attribution are those of {sampled[0]:,} of the {sampled[1]:,} calls, taken in "
            f"{STRETCHES} stretches spread over the capture; times and idle causes are of all calls."
        )
    if bare.traced:
        stretch = stretch_of(manifest, 0.0).most
        notes.append(
            f"T was measured with a profiler attached, which stretches idle time by up to {stretch:g} times: without "
            "it the launch share is smaller and the others are larger."
        )
    if abs(speed - 1) > SPEED_DIFFERENCE:
        said = "faster than the traced device work allows" if speed < 1 else "slower than the traced ones"
        notes.append(
            f"The bare calls ran {said}: the passes saw different speeds, and traced times were scaled by {speed:.2f}."
        )
    beyond = _beyond_ceilings(nodes)
    if beyond > BEYOND_SHARE:
        notes.append(
            f"Nodes with {100 * beyond:.0f} % of the time beat the measured ceilings: their data stays "
            "in caches, or the ceilings were measured while the machine was busy."
        )
    if replayed:
        notes.append("A graph replay counts as busy; what it takes beyond its kernels is launch latency.")
    return notes


def stretch_of(manifest: Manifest, idle_ns: float) -> Stretch:
    """How much of T the profiler that was attached may have made; nothing where T comes from a bare pass."""
    if manifest.latency is None or not manifest.latency.traced:
        return Stretch(0.0, 1.0)
    profiled = manifest.sources.get("ort_profiler")
    by_node = profiled is not None and profiled.state == "present"
    return Stretch(idle_ns, PROFILED_STRETCH if by_node else TRACED_STRETCH)


def _sampled(manifest: Manifest, nodes: NodeTimes | None) -> tuple[int, int] | None:
    """How many calls the nodes are worked out from, and how many there are; None when it is all of them."""
    pass_name = detailed_pass(manifest)
    if nodes is None or pass_name is None or nodes.calls >= manifest.passes[pass_name].measured_calls:
        return None
    return nodes.calls, manifest.passes[pass_name].measured_calls


def _beyond_ceilings(nodes: NodeTimes | None) -> float:
    """Fraction of node time in nodes that are faster than their bound at the ceilings, beyond doubt."""
    if nodes is None or not nodes.nodes["time_ns"].sum():
        return 0.0
    table = nodes.nodes
    return float(table.loc[table["efficiency"] > BEYOND_CEILING, "time_ns"].sum() / table["time_ns"].sum())
