"""Copies that go or become faster, and launches that become one: T is built up from what remains.

The copies of a copy-bound call are most of T, so that T minus the copies would be the small difference of two large
numbers that were measured in different passes. What remains is known by itself: device work, idle time between its
pieces, and the ends of a call.
"""

from __future__ import annotations

import numpy as np

from workbench.diagnosis.prediction.facts import Amount, Facts
from workbench.diagnosis.prediction.formula import Terms, Unpredictable
from workbench.diagnosis.situation import Situation
from workbench.diagnosis.trace import CallTrace


def replayed(situation: Situation, trace: CallTrace, facts: Facts) -> Terms:
    """A CUDA graph: |K| + (pieces - 1) · replay gap + the ends of one call, whatever the idle time was before."""
    _require_launch_costs(situation)
    return {
        "device work": facts.slowed_work(),
        f"{max(trace.pieces - 1, 0):.0f} gaps between replayed kernels": max(trace.pieces - 1, 0) * facts.replay_gap,
        "ends of the call": facts.ends,
    }


def bound_on_device(situation: Situation, trace: CallTrace, facts: Facts) -> Terms:
    """Inputs and outputs on the device: |K| + inner idle time + the copies that nodes make + the ends of one call."""
    _require_launch_costs(situation)
    return {
        "device work": facts.slowed_work(),
        "idle between its pieces": facts.inner_idle,
        "copies inside the graph": _copies_of_nodes(trace, facts),
        "ends of the call": facts.ends,
    }


def pinned(situation: Situation, trace: CallTrace, facts: Facts) -> Terms:
    """Page-locked buffers: as on the device, and the copies at the border at the measured bandwidth of such memory.

    A copy takes at least as long as the shortest kernel, and never longer than it took from pageable memory.
    """
    ceilings = situation.ceilings
    rates = {"h2d": ceilings.h2d_pinned_bytes_per_s, "d2h": ceilings.d2h_pinned_bytes_per_s}
    copies = trace.border_copies
    if situation.config.binding == "device":
        raise Unpredictable("Buffers on the device are not copied, and what a copy of them would cost is not recorded.")
    if trace.border_fraction is None or not all(rates.values()):
        raise Unpredictable("The bandwidth of page-locked memory or the copies of inputs and outputs are not known.")
    bandwidth = copies["kind"].astype(object).map(rates).to_numpy(np.float64)
    taken_ns = copies["duration_ns"].to_numpy(np.float64)
    least_ns = np.minimum(taken_ns, ceilings.shortest_kernel_ns or 0.0)
    locked_ns = np.clip(copies["bytes"].to_numpy(np.float64) / bandwidth * 1e9, least_ns, taken_ns)
    return {
        **bound_on_device(situation, trace, facts),
        "copies at the bandwidth of page-locked memory": locked_ns.sum() / trace.node_calls * facts.copy_stretch,
    }


def _copies_of_nodes(trace: CallTrace, facts: Facts) -> Amount:
    """Exposed copies that no binding removes: those that nodes make."""
    if trace.border_fraction is None:
        if np.any(facts.exposed_copies):
            raise Unpredictable("Which copies carry inputs and outputs is not known: record the nodes pass.")
        return facts.exposed_copies
    return facts.exposed_copies * (1.0 - trace.border_fraction)


def _require_launch_costs(situation: Situation) -> None:
    if situation.ceilings.launch_ns is None or situation.ceilings.node_overhead_ns is None:
        raise Unpredictable("What a launch and a node cost was not measured on this device.")
