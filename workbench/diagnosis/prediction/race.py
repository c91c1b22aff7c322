"""The race of host and device in a call: whoever comes later at a launch sets the time of what follows.

A piece of work starts once the host has launched it and all work before it is done. Unrolled, that recursion says when
the last one ends: the largest over all pieces j of (launch of j) + (device time of j and all after it), as in a queue
with one server (Lindley, Proceedings of the Cambridge Philosophical Society 48(2), 1952). Kernels that become shorter
save nothing where the host comes later anyway, and kernels that become longer hide what was idle time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.attribution import NO_NODE
from workbench.analysis.gaps import UNKNOWN_LAUNCH
from workbench.analysis.node_times import NodeTimes

Amount = Any  # float or float64[draws], as in `workbench.diagnosis.shares`

_MOST_POINTS: Final = 512  # of a longer call evenly spaced ones, so that the arrays of draws stay small


@dataclass(frozen=True)
class Race:
    """launched: float64[n], nanoseconds from a call's first launch to each other, as profiled, mean over the calls.
    remaining: float64[n], the fraction of the call's device time in that piece and all after it; pieces: float64[n],
    the same of their number. launches: pieces of work per call.
    """

    launched: NDArray[np.float64]
    remaining: NDArray[np.float64]
    pieces: NDArray[np.float64]
    launches: int

    def duration(self, work_ns: Amount, gaps_ns: Amount, speed: Amount, host_ns: Amount = 0.0) -> Amount:
        """From the first launch to the end of the last piece, in nanoseconds.

        work_ns: device time of all pieces. gaps_ns: what the device itself needs between them. speed: factor that takes
        the profiled launches to those of the call. host_ns: time that the host takes besides, spread over its launches.
        """
        return self._lines(work_ns, gaps_ns, self._column(speed) * self.launched + self._spread(host_ns)).max(axis=-1)

    def hosts_part(self, work_ns: Amount, gaps_ns: Amount, speed: Amount) -> Amount:
        """The part of `duration` that passes before the launch from which on the device is never idle again: 0..1."""
        launched = self._column(speed) * self.launched
        lines = self._lines(work_ns, gaps_ns, launched)
        at = lines.argmax(axis=-1)
        late = np.take_along_axis(launched, np.expand_dims(at, -1), -1)[..., 0]
        return late / np.maximum(lines.max(axis=-1), 1e-9)

    def fastest_fit(self, duration_ns: Amount, work_ns: Amount, gaps_ns: Amount) -> Amount:
        """The largest `speed` with which the call takes no longer than `duration_ns`; at most 1, as profiled.

        A profiler never makes a host faster. Where 1 comes out, the call does not say how fast its host is.
        """
        later = self.launched > 0
        room = self._column(duration_ns) - self._lines(work_ns, gaps_ns, 0.0)[..., later]
        return np.clip((room / self.launched[later]).min(axis=-1), 0.0, 1.0)

    def _lines(self, work_ns: Amount, gaps_ns: Amount, launched_ns: Amount) -> NDArray[np.float64]:
        lines: NDArray[np.float64] = (
            launched_ns + self._column(work_ns) * self.remaining + self._column(gaps_ns) * self.pieces
        )
        return lines

    def _spread(self, host_ns: Amount) -> Amount:
        return self._column(host_ns) * (self.launched / self.launched[-1])

    @staticmethod
    def _column(amount: Amount) -> NDArray[np.float64]:
        return np.asarray(amount, np.float64)[..., None]


def race_of(nodes: NodeTimes | None) -> Race | None:
    """The race of the profiled calls, pieces in the order of their launches; None with fewer than two launches a call,
    as of a replayed graph. Copies between host and device are no part of it.
    """
    if nodes is None or not len(nodes.device):
        return None
    device = nodes.device
    known = ~device["host_copy"] & (device["node"] != NO_NODE) & (device["launch_ns"] != UNKNOWN_LAUNCH)
    pieces = device.loc[known, ["call", "launch_ns", "own_ns"]].sort_values(["call", "launch_ns"], kind="stable")
    by_call = pieces.groupby("call")["launch_ns"]
    pieces = pieces.assign(
        launch_ns=pieces["launch_ns"] - by_call.transform("min"), rank=by_call.cumcount().to_numpy(np.int64)
    )
    by_rank = pieces.groupby("rank")
    launched = np.maximum.accumulate(by_rank["launch_ns"].mean().to_numpy(np.float64))
    work, count = (np.asarray(each, np.float64) for each in (by_rank["own_ns"].sum(), by_rank.size()))
    if len(launched) < 2 or not launched[-1] or not work.sum():
        return None
    at = np.unique(np.linspace(0, len(launched) - 1, min(len(launched), _MOST_POINTS)).round().astype(np.int64))
    return Race(launched[at], _fraction_left(work)[at], _fraction_left(count)[at], round(len(pieces) / nodes.calls))


def _fraction_left(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    left: NDArray[np.float64] = amounts[::-1].cumsum()[::-1] / amounts.sum()
    return left
