"""From floors and a load to the pieces of a call, for one guess of what they leave open, or for many.

The time of a call is copies, device work and an idle device. Each has a floor: bytes over the link's rate, flops and
bytes of each node over the measured ceilings, and what it costs to start that many nodes. NVML says how much of the
time something ran. Device time above the floors goes to the nodes evenly, since starting, filling and draining the GPU
costs a kernel about the same whatever its work, or in proportion to their floors, more to those that cannot fill the
GPU; the truth lies between. Each node is then classed by the rule of the traced verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.filling import Filling
from workbench.analysis.roofline import LIMITS, classify_kernels
from workbench.analysis.thresholds import UNDERFILLED_EFFICIENCY
from workbench.diagnosis.device_load import DeviceLoad
from workbench.diagnosis.link_floor import LinkFloor
from workbench.diagnosis.shares import Amount, Pieces

Floats = NDArray[np.float64]

SMALL_KERNELS_POWER: Final = 1.25
"""Of the idle power at the same clock. Below it hardly a multiprocessor works: on an H200, chains of kernels of one
block drew 0.97 to 1.0 times the idle power, a decoder step at batch 1 1.2, ResNet-50 at batch 1 1.6, full ones 4.5 to
6."""
MOSTLY_CAPPED: Final = 0.5
"""Fraction of the readings with the power limit in force from which the arithmetic units count as busy."""


class Floors(NamedTuple):
    """Device work by distinct node, float64[nodes]: times at the ceilings, NaN unknown; how often the node occurs."""

    compute_ns: Floats
    memory_ns: Floats
    occurrences: Floats
    fill: Filling

    @property
    def nodes(self) -> float:
        """How many nodes put work on the device."""
        return float(self.occurrences.sum())


class Guess(NamedTuple):
    """What the floors leave open, floats or float64[draws] each: the point estimate, or draws of it.

    shift: logarithm of an error in the ratio of the memory ceiling to the compute ceiling. copies, overhead: factors on
    the copies' time and on the cost of starting the nodes. running: fraction of T in which something ran. placed:
    where between its bounds (0..1) device time lies that NVML does not tell. evenly: fraction of the device time above
    the floors that the nodes share evenly.
    """

    latency_ns: Amount
    shift: Amount
    copies: Amount
    overhead: Amount
    running: Amount
    placed: Amount
    evenly: Amount


@dataclass(frozen=True)
class Evidence:
    """All that a guess is turned into pieces with. floors: None where the graph is not known. load: None without NVML.

    start_ns: what it costs the host to start the work of a call. gap_ns: device time between kernels of a replay.
    """

    link: LinkFloor
    floors: Floors | None
    load: DeviceLoad | None
    start_ns: float
    gap_ns: float
    shortest_ns: float
    on_cpu: bool


def pieces_of(evidence: Evidence, guess: Guess) -> Pieces:
    """The pieces that a guess leads to; floats, or float64[draws] each where the guess holds draws.

    Where the floors exceed T, the copies give way down to the time they need at the link's full rate, because their
    ceiling is the roughest one (small buffers stay in the host's caches), and then the work does.
    """
    total = np.asarray(guess.latency_ns, np.float64)
    floors = evidence.floors
    bounds = shifted(floors, guess.shift) if floors is not None else None
    needed = bounds.needed_ns if bounds is not None else 0.0 * total
    least = needed if floors is None else np.maximum(needed, floors.nodes * evidence.shortest_ns)
    copies = np.minimum(evidence.link.slow_ns * guess.copies, np.maximum(total - least, evidence.link.fast_ns))
    copies = np.minimum(copies, total)
    room = total - copies
    busy, unexplained = _busy(evidence, guess, room, np.minimum(least, room))
    gap = np.minimum(evidence.gap_ns, np.maximum(busy - needed, 0.0))
    if floors is not None and bounds is not None:
        limited = by_limit(floors, bounds, busy - gap, guess.evenly, evidence.shortest_ns)
    else:
        limited = _by_load(evidence.load, total, busy - gap)
    return Pieces(
        latency_ns=total,
        compute=limited["compute"],
        memory=limited["memory"],
        under_filled=limited["under-filled"],
        unknown=limited["unknown"] + unexplained,
        exposed_copies=copies,
        host=room - busy - unexplained,
        launch_latency=gap,
        sync=0.0 * total,
    )


def _busy(evidence: Evidence, guess: Guess, room: Floats, least: Floats) -> tuple[Floats, Floats]:
    """Device time beside the copies, and time of which not even that is known, both within `room`.

    What NVML saw running includes the copies while they use the link, so that time is taken off. Without it: the host
    starts work while the device computes, and a call takes as long as the slower of the two; where starting the nodes
    takes less than the room, the device fills it, else anything between the floors and the room is possible.
    """
    if evidence.on_cpu:
        return np.maximum(room - evidence.start_ns * guess.overhead, least), 0.0 * room
    running = np.asarray(guess.running, np.float64)
    link = evidence.link
    seen = np.clip(running * guess.latency_ns - link.active_ns, least, room)
    lowest = least
    if evidence.load is not None:
        lowest = np.clip(evidence.load.running * guess.latency_ns - link.slow_ns, least, room)
    if evidence.floors is None:
        return np.where(np.isnan(running), lowest, seen), np.where(np.isnan(running), room - lowest, 0.0)
    between = lowest + (room - lowest) * guess.placed
    unseen = np.where(evidence.start_ns * guess.overhead < room, room, between)
    return np.where(np.isnan(running), unseen, seen), 0.0 * room


class Shifted(NamedTuple):
    """Floors under a shift of the ceilings: float64[..., nodes] by bound, and their sum over the graph float64[...]."""

    compute_ns: Floats
    memory_ns: Floats
    longest_ns: Floats
    needed_ns: Floats


def shifted(floors: Floors, shift: Amount) -> Shifted:
    """The floors with half of the shift on each bound, by draw."""
    half = np.asarray(shift, np.float64)[..., None] / 2
    compute, memory = floors.compute_ns * np.exp(half), floors.memory_ns * np.exp(-half)
    longest = np.nan_to_num(np.fmax(compute, memory))
    return Shifted(compute, memory, longest, (longest * floors.occurrences).sum(axis=-1))


def by_limit(floors: Floors, bounds: Shifted, busy: Floats, evenly: Amount, shortest_ns: float) -> dict[str, Floats]:
    """Device time by what limits it: each node's share of `busy`, and the rule of the traced verdict on it.

    busy, evenly: float64[...] of the same shape as the draws of `bounds`.
    """
    needed = bounds.needed_ns
    above = np.maximum(busy - needed, 0.0)
    fitting = np.where(needed > busy, _ratio(busy, needed), 1.0)  # floors that exceed the time shrink to it
    slow = bounds.longest_ns / np.clip(np.nan_to_num(floors.fill.waves, nan=1.0), UNDERFILLED_EFFICIENCY, 1.0)
    weight = (slow * floors.occurrences).sum(axis=-1)
    shared = above * np.where(weight > 0, evenly, 1.0)
    even, stretch = shared / floors.nodes, _ratio(above - shared, weight)
    times = bounds.longest_ns * fitting[..., None] + slow * stretch[..., None] + even[..., None]
    shape = times.shape

    def flat(values: Floats) -> Floats:
        return np.broadcast_to(values, shape).ravel()

    limits = classify_kernels(
        np.rint(flat(times)).astype(np.int64),
        Filling(*(flat(each) for each in floors.fill)),
        pd.DataFrame(
            {
                "compute_ns": flat(bounds.compute_ns),
                "memory_ns": flat(bounds.memory_ns),
                "kernel_ns": np.maximum(flat(times), 1.0),
            }
        ),
        shortest_ns or None,
    ).reshape(shape)
    spent = times * floors.occurrences
    return {name: np.where(limits == code, spent, 0.0).sum(axis=-1) for code, name in enumerate(LIMITS)}


def _ratio(amount: Floats, of: Floats) -> Floats:
    """amount / of, and 0 where there is nothing to divide by."""
    return np.divide(amount, of, out=np.zeros(np.broadcast(amount, of).shape), where=np.asarray(of) > 0)


def _by_load(load: DeviceLoad | None, total: Floats, busy: Floats) -> dict[str, Floats]:
    """Device time by limit without a graph: memory as long as it was accessed; the rest only where power decides."""
    found = dict.fromkeys(LIMITS, 0.0 * busy)
    if load is None:
        return {**found, "unknown": busy}
    memory = np.minimum((load.accessed or 0.0) * total, busy)
    rest = "unknown"
    if (load.capped or 0.0) >= MOSTLY_CAPPED:
        rest = "compute"
    elif load.power_w is not None and load.idle_w is not None and load.power_w < SMALL_KERNELS_POWER * load.idle_w:
        rest = "under-filled"
    return {**found, "memory": memory, rest: busy - memory}
