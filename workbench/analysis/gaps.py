"""Why the device was idle: each gap between device work is split by cause, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from workbench.analysis.intervals import Intervals, Nanoseconds, difference, overlap_ns

UNKNOWN_LAUNCH = -1


@dataclass(frozen=True)
class IdleCauses:
    """Nanoseconds of idle time by cause, int64[windows]; the three sum to the idle time of each window.

    host: gaps whose next launch began only after the previous work had ended, or that no work follows. launch_latency:
    gaps whose next launch came in time. sync: the part of host gaps, before their launch, that the host spent inside a
    synchronisation.
    """

    host_ns: Nanoseconds
    launch_latency_ns: Nanoseconds
    sync_ns: Nanoseconds

    @property
    def idle_ns(self) -> Nanoseconds:
        """All three together."""
        return self.host_ns + self.launch_latency_ns + self.sync_ns


def split_idle(
    windows: tuple[ArrayLike, ArrayLike],
    busy: Intervals,
    work_starts: ArrayLike,
    launch_starts: ArrayLike,
    syncs: Intervals,
) -> IdleCauses:
    """Split the idle time inside each window. O((n + windows) log n).

    windows: starts and ends of the calls, disjoint and ascending, or two numbers for a single call. busy: union of the
    device work. work_starts, launch_starts: int64[n] in any order, when each piece of work and the host call that
    launched it began (`UNKNOWN_LAUNCH` where no call is known, which counts as host). Work that starts outside the
    window of its call is left out of these two. syncs: union of the host's synchronisation calls. All in nanoseconds
    on one clock.
    """
    begins, ends = (np.atleast_1d(np.asarray(edge, np.int64)) for edge in windows)
    gaps = difference(Intervals(begins, ends), busy)
    starts, launches = np.asarray(work_starts, np.int64), np.asarray(launch_starts, np.int64)
    order = np.lexsort((launches, starts))
    starts, launches = starts[order], launches[order]
    at = np.searchsorted(starts, gaps.ends, side="left")
    window = np.searchsorted(begins, gaps.starts, side="right") - 1
    found = (at < len(starts)) & (gaps.ends < ends[window])
    launch = np.append(launches, UNKNOWN_LAUNCH)[at]
    known = found & (launch != UNKNOWN_LAUNCH)
    in_time = known & (launch <= gaps.starts)
    # Until the launch begins, the host may be held up by a synchronisation; afterwards it is on its way.
    waiting_until = np.where(known, np.clip(launch, gaps.starts, gaps.ends), gaps.ends)
    sync = overlap_ns(gaps.starts, waiting_until, syncs)
    lengths = gaps.ends - gaps.starts
    first, after = (np.searchsorted(gaps.starts, edge, side="left") for edge in (begins, ends))

    def per_window(values: Nanoseconds) -> Nanoseconds:
        before = np.concatenate(([0], np.cumsum(values)))
        return before[after] - before[first]

    return IdleCauses(
        host_ns=per_window(np.where(in_time, 0, lengths - sync)),
        launch_latency_ns=per_window(np.where(in_time, lengths, 0)),
        sync_ns=per_window(sync),
    )
