"""What predictions are made of, once as it was measured and once as draws of what is uncertain about it.

Every amount is a float or float64[draws]; the formulas of this package take either. Uncertain are: which calls were
seen (bootstrap), the bare median (its interval), how much of the traced idle time the tracing made, the cost of the
ends of a call, the gap between kernels of a replayed graph, the clock that compute-bound work keeps, and the ceilings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.thresholds import CEILING_SIGMA, UNDERFILLED_SIGMA
from workbench.diagnosis.confidence import MOST_SAMPLED
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
# The union of kernels differed by less than 1 % between two traces of the same graph (H200, twelve graphs).
WORK_SIGMA: Final = 0.005
# The ceiling of page-locked copies is the best of several 256 MiB; the usual one was 1 % slower (H200), and the bus is
# shared with whatever else the host does.
COPY_SIGMA: Final = 0.02


@dataclass(frozen=True)
class Facts:
    """Nanoseconds per call, but for fractions. All that a formula may use.

    latency: T. pieces: the diagnosis' pieces. work, inner_idle, exposed_copies: as traced, where inner idle time is
    freed from what tracing adds. ends: what a call costs besides, when nothing is copied: ORT's own time before the
    first launch, the launch, and the synchronisation at the end. replay_gap: between two kernels of a replayed graph.
    stretch: by which compute-bound work takes longer when it is alone. copy_stretch: by which copies take longer than
    at their ceiling. seen: fraction of saved kernel time that shortens the call. ceiling_shift: logarithm of an error
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
    seen: Amount
    ceiling_shift: Amount
    misjudged: Amount
    other_kernels: Amount
    span: Amount

    def slowed_work(self) -> Amount:
        """|K| when the device does nothing but this: compute-bound work may meet the power cap."""
        pieces = self.pieces
        whole = pieces.compute + pieces.memory + pieces.under_filled + pieces.unknown
        compute = np.divide(pieces.compute, whole, out=np.zeros_like(whole * 1.0), where=np.asarray(whole) > 0)
        return self.work * (1 + compute * (self.stretch - 1))


def measured(situation: Situation, trace: CallTrace, pieces: Pieces) -> Facts:
    """The facts as measured; where only a range is known, its middle."""
    low, high = _undilated(trace, pieces)
    return Facts(
        latency=pieces.latency_ns,
        pieces=pieces,
        work=float(np.median(trace.work)),
        exposed_copies=float(np.median(trace.exposed_copies)),
        inner_idle=float(trace.inner_idle.mean()) * (low + high) / 2,
        ends=_ends(situation, trace)[1],
        replay_gap=_replay_gap(situation)[1],
        stretch=1.0,
        copy_stretch=1.0,
        seen=1.0,
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
    low, high = _undilated(trace, pieces)
    idle = pieces.idle / pieces.latency_ns
    return Facts(
        latency=latency,
        pieces=Pieces(**{name: value * latency / pieces.latency_ns for name, value in vars(pieces).items()}),
        work=np.median(trace.work[calls], axis=1) * (1 + WORK_SIGMA * rng.standard_normal(DRAWS)),
        exposed_copies=np.median(trace.exposed_copies[calls], axis=1),
        inner_idle=trace.inner_idle[calls].mean(axis=1) * rng.uniform(low, high, DRAWS),
        ends=_around(rng, *_ends(situation, trace)),
        replay_gap=_around(rng, *_replay_gap(situation)),
        stretch=rng.uniform(1.0, POWER_CAP_STRETCH, DRAWS),
        copy_stretch=1 + np.abs(COPY_SIGMA * rng.standard_normal(DRAWS)),
        seen=rng.uniform(1.0 - idle, 1.0, DRAWS) if idle > 0 else np.ones(DRAWS),
        ceiling_shift=CEILING_SIGMA * rng.standard_normal(DRAWS),
        misjudged=np.minimum(UNDERFILLED_SIGMA * np.abs(rng.standard_normal(DRAWS)), 1.0),
        other_kernels=np.exp(CEILING_SIGMA * rng.standard_normal(DRAWS)),
        span=rng.uniform(0.0, 1.0, DRAWS),
    )


def _undilated(trace: CallTrace, pieces: Pieces) -> tuple[float, float]:
    """Least and most that the traced inner idle time is multiplied with to free it from what tracing added.

    Two assumptions bound it. All idle time was stretched alike: the factor is that between the idle time in T and the
    traced one. Or the outer idle time was not stretched at all, and the inner one holds all that was added. Where the
    passes saw different speeds the idle time in T is what two large numbers leave, and 1 is the most.
    """
    inner, outer = float(trace.inner_idle.mean()), float(trace.outer_idle.mean())
    if not inner:
        return 1.0, 1.0
    alike = pieces.idle / (inner + outer)
    only_inner = (pieces.idle - outer) / inner
    low = min(max(only_inner, 0.0), 1.0)
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
