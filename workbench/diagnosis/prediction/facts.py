"""What predictions are made of, once as it was measured and once as draws of what is uncertain about it.

Every amount is a float or float64[draws]; the formulas of this package take either. Uncertain are: which calls were
seen (bootstrap), the bare median (its interval), how much of the traced idle time the tracing made, the cost of the
ends of a call, the gap between kernels of a replayed graph, the clock that compute-bound work keeps, the ceilings, and
how fast the host would launch if nothing held it up, here and in the process of the variant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.thresholds import CEILING_SIGMA, UNDERFILLED_SIGMA
from workbench.diagnosis.confidence import MOST_SAMPLED
from workbench.diagnosis.prediction.race import Race, race_of
from workbench.diagnosis.shares import Pieces
from workbench.diagnosis.situation import Situation
from workbench.diagnosis.trace import CallTrace

Amount = Any  # float or float64[draws], as in `workbench.diagnosis.shares`

DRAWS: Final = 1000
# T_graph was |K| + 0.2 to 0.9 µs per kernel, mostly around 0.55, on twelve exported graphs (H200): kernels that depend
# on each other start later than empty ones. The gap that was measured on the device is the most likely one.
LARGEST_REPLAY_GAP_NS: Final = 900.0
USUAL_REPLAY_GAP_NS: Final = 550.0
# Compute-bound work that fills a call heats the chip up to its power cap: of 1980 MHz, 1500 were left (FP16 GEMM 4096³
# in a loop, H200), so that it may take this much longer than between pauses.
POWER_CAP_STRETCH: Final = 1980 / 1500
# The union of kernels differed by less than 1 % between two traces of one process (H200, twelve graphs), and by up to
# 1.5 % between processes that ran the same kernels (H200, seven pairs).
WORK_SIGMA: Final = 0.01
# The ceiling of page-locked copies is the best of several 256 MiB; the usual one was 1 % slower (H200), and the bus is
# shared with whatever else the host does.
COPY_SIGMA: Final = 0.02
# Processes of one configuration that the host holds back differed by this much (logarithm of the median latency, root
# mean square over 14 such arms of 5 or 6 processes, H200: 0.04 to 0.19); those that the device holds back by 0.01.
HOST_SIGMA: Final = 0.13


@dataclass(frozen=True)
class Facts:
    """Nanoseconds per call, but for fractions. All that a formula may use.

    latency: T. pieces: the diagnosis' pieces. work, inner_idle, exposed_copies: as traced, where inner idle time is
    freed from what tracing adds. ends: what a call costs besides, when nothing is copied: ORT's own time before the
    first launch, the launch, and the synchronisation at the end. replay_gap: between two kernels of a replayed graph.
    stretch: by which compute-bound work takes longer when it is alone. copy_stretch: by which copies take longer than
    at their ceiling. race: of the host with the device, None where launches are not known. own_gaps: what the device
    itself needs between its pieces. host_speed: factor that takes profiled launches to those of a bare call.
    host_drift: factor by which the host is slower in the process of the variant. ceiling_shift: logarithm of an error
    in the compute ceiling. misjudged: fraction of under-filled time that follows its bounds. other_kernels: factor by
    which kernels that replace others differ from what they should take. span: where in its possible range an effect
    lies of which only bounds are known, 0 to 1.
    """

    latency: Amount
    pieces: Pieces
    work: Amount
    exposed_copies: Amount
    inner_idle: Amount
    ends: Amount
    replay_gap: Amount
    stretch: Amount
    copy_stretch: Amount
    race: Race | None
    own_gaps: Amount
    host_speed: Amount
    host_drift: Amount
    ceiling_shift: Amount
    misjudged: Amount
    other_kernels: Amount
    span: Amount

    def slowed_work(self) -> Amount:
        """|K| when the device does nothing but this: compute-bound work may meet the power cap."""
        pieces = self.pieces
        whole = _device_time(pieces)
        compute = np.divide(pieces.compute, whole, out=np.zeros_like(whole * 1.0), where=np.asarray(whole) > 0)
        return self.work * (1 + compute * (self.stretch - 1))

    def overlap(self, device: Amount, host: Amount = 0.0) -> Amount:
        """What a call takes more (below 0: less) than T and these two, when its device works `device` longer and its
        host `host`: savings that do not show because the other comes later, and additions that fall into idle time.
        """
        if self.race is None:
            return 0.0 * (device + host)
        work = _device_time(self.pieces)
        before = self.race.duration(work, self.own_gaps, self.host_speed)
        speed = self.host_speed * self.host_drift
        after = self.race.duration(np.maximum(work + device, 0.0), self.own_gaps, speed, host * self.host_drift)
        return after - before - device - host

    def hosts_part(self) -> float:
        """The part of the time from the first launch to the last work for which the host decides, median; 0..1."""
        if self.race is None:
            return 0.0
        part = self.race.hosts_part(_device_time(self.pieces), self.own_gaps, self.host_speed)
        return float(np.median(part))


def measured(situation: Situation, trace: CallTrace, pieces: Pieces) -> Facts:
    """The facts as measured; where only a range is known, its middle."""
    low, high = _undilated(situation, trace, pieces)
    race = _race(situation)
    ends = _ends(situation, trace)[1]
    return Facts(
        latency=pieces.latency_ns,
        pieces=pieces,
        work=float(np.median(trace.work)),
        exposed_copies=float(np.median(trace.exposed_copies)),
        inner_idle=float(trace.inner_idle.mean()) * (low + high) / 2,
        ends=ends,
        replay_gap=_replay_gap(situation)[1],
        stretch=1.0,
        copy_stretch=1.0,
        race=race,
        own_gaps=pieces.launch_latency / 2,
        host_speed=_host_speed(situation, race, pieces, pieces.launch_latency / 2, ends, 0.5),
        host_drift=1.0,
        ceiling_shift=0.0,
        misjudged=0.0,
        other_kernels=1.0,
        span=0.5,
    )


def drawn(situation: Situation, trace: CallTrace, pieces: Pieces) -> Facts:
    """The same as draws, float64[DRAWS]; deterministic (seed 0)."""
    rng = np.random.default_rng(0)
    bare = situation.diagnosis.latency if situation.diagnosis is not None else None
    spread = (bare.ci_high_ns - bare.ci_low_ns) / (2 * 1.96) if bare is not None else 0.0
    latency = np.maximum(pieces.latency_ns + spread * rng.standard_normal(DRAWS), 1.0)
    calls = rng.integers(0, len(trace.work), (DRAWS, min(len(trace.work), MOST_SAMPLED)))
    low, high = _undilated(situation, trace, pieces)
    scaled = Pieces(**{name: value * latency / pieces.latency_ns for name, value in vars(pieces).items()})
    race = _race(situation)
    ends = _around(rng, *_ends(situation, trace))
    own_gaps = scaled.launch_latency * rng.uniform(0.0, 1.0, DRAWS)
    return Facts(
        latency=latency,
        pieces=scaled,
        work=np.median(trace.work[calls], axis=1) * (1 + WORK_SIGMA * rng.standard_normal(DRAWS)),
        exposed_copies=np.median(trace.exposed_copies[calls], axis=1),
        inner_idle=trace.inner_idle[calls].mean(axis=1) * rng.uniform(low, high, DRAWS),
        ends=ends,
        replay_gap=_around(rng, *_replay_gap(situation)),
        stretch=rng.uniform(1.0, POWER_CAP_STRETCH, DRAWS),
        copy_stretch=1 + np.abs(COPY_SIGMA * rng.standard_normal(DRAWS)),
        race=race,
        own_gaps=own_gaps,
        host_speed=_host_speed(situation, race, scaled, own_gaps, ends, rng.uniform(0.0, 1.0, DRAWS)),
        host_drift=np.exp(HOST_SIGMA * rng.standard_normal(DRAWS)),
        ceiling_shift=CEILING_SIGMA * rng.standard_normal(DRAWS),
        misjudged=np.minimum(UNDERFILLED_SIGMA * np.abs(rng.standard_normal(DRAWS)), 1.0),
        other_kernels=np.exp(CEILING_SIGMA * rng.standard_normal(DRAWS)),
        span=rng.uniform(0.0, 1.0, DRAWS),
    )


def _race(situation: Situation) -> Race | None:
    return race_of(situation.diagnosis.nodes) if situation.diagnosis is not None else None


def _device_time(pieces: Pieces) -> Amount:
    return pieces.compute + pieces.memory + pieces.under_filled + pieces.unknown


def _host_speed(
    situation: Situation, race: Race | None, pieces: Pieces, own_gaps: Amount, ends: Amount, span: Amount
) -> Amount:
    """What takes profiled launches to bare ones: as slow as T allows, which T needs where the host comes late.

    Where the device alone explains T, the host is between as fast as bare launches and as slow as profiled ones.
    """
    if race is None:
        return 1.0 + 0.0 * span
    work = _device_time(pieces)
    inner = np.maximum(pieces.latency_ns - pieces.exposed_copies - ends, work)
    least = min((situation.ceilings.launch_ns or 0.0) * race.launches / race.launched[-1], 1.0)
    return np.minimum(race.fastest_fit(inner, work, own_gaps), least + (1.0 - least) * span)


def _undilated(situation: Situation, trace: CallTrace, pieces: Pieces) -> tuple[float, float]:
    """Least and most that the traced inner idle time is multiplied with to free it from what tracing added.

    Two assumptions bound it. All idle time was stretched alike: the factor is that between the idle time in T and the
    traced one. Or the outer idle time was not stretched at all, and the inner one holds all that was added. Where the
    passes saw different speeds the idle time in T is what two large numbers leave, and 1 is the most. A host that
    waited for long copies launches slowly after them (30 µs instead of 4 after 28 ms, H200); without the copies it may
    need no more than a bare launch per gap.
    """
    inner, outer = float(trace.inner_idle.mean()), float(trace.outer_idle.mean())
    if not inner:
        return 1.0, 1.0
    alike = pieces.idle / (inner + outer)
    only_inner = (pieces.idle - outer) / inner
    low = min(max(only_inner, 0.0), 1.0)
    launch_ns = situation.ceilings.launch_ns
    if pieces.exposed_copies > 0 and launch_ns is not None:
        low = min(low, max(trace.pieces - 1, 0.0) * launch_ns / inner)
    return low, min(max(alike, low), 1.0) if alike > 0 else 1.0


def _ends(situation: Situation, trace: CallTrace) -> tuple[float, float, float]:
    """Least, likely and largest cost of the ends of a call.

    Likely is what ONNX Runtime needs for one node, its launch included, and as much as another launch for the
    synchronisation at the end, which is a call into the driver, too. At least one launch has to pass, at most all idle
    time that was traced outside the work.
    """
    launch = situation.ceilings.launch_ns or 0.0
    likely = launch + (situation.ceilings.node_overhead_ns or 0.0)
    return launch, likely, max(float(trace.outer_idle.mean()), likely)


def _replay_gap(situation: Situation) -> tuple[float, float, float]:
    """Least, likely and largest gap between two kernels of a replayed graph."""
    gap = situation.ceilings.replay_gap_ns
    return 0.0, USUAL_REPLAY_GAP_NS if gap is None else min(gap, LARGEST_REPLAY_GAP_NS), LARGEST_REPLAY_GAP_NS


def _around(rng: np.random.Generator, least: float, likely: float, most: float) -> NDArray[np.float64]:
    """Draws that lie below and above the likely value equally often, and the more seldom the farther from it."""
    below, above = (rng.triangular(0.0, 0.0, 1.0, DRAWS) for _ in range(2))
    lower = rng.random(DRAWS) < 0.5
    return np.where(lower, likely - below * (likely - least), likely + above * (most - likely))
