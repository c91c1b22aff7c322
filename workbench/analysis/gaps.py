"""Why the device was idle: each gap between device work is split by cause, exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from workbench.analysis.intervals import Intervals, complement, overlap_ns

UNKNOWN_LAUNCH = -1


@dataclass(frozen=True)
class IdleCauses:
    """Nanoseconds of idle time by cause; the three sum to the idle time of the window.

    host: gaps whose next launch began only after the previous work had ended, or that no work follows. launch_latency:
    gaps whose next launch came in time. sync: the part of host gaps, before their launch, that the host spent inside a
    synchronisation.
    """

    host_ns: int
    launch_latency_ns: int
    sync_ns: int

    @property
    def idle_ns(self) -> int:
        """All three together."""
        return self.host_ns + self.launch_latency_ns + self.sync_ns


def split_idle(
    window: tuple[int, int], busy: Intervals, work_starts: ArrayLike, launch_starts: ArrayLike, syncs: Intervals
) -> IdleCauses:
    """Split the idle time inside `window`.

    window: (start, end) of one call. busy: union of the device work. work_starts, launch_starts: int64[n], when each
    piece of work and the host call that launched it began (`UNKNOWN_LAUNCH` where no call is known, which counts as
    host). syncs: union of the host's synchronisation calls. All in nanoseconds on one clock.
    """
    gaps = complement(busy, *window)
    starts, launches = np.asarray(work_starts, np.int64), np.asarray(launch_starts, np.int64)
    order = np.lexsort((launches, starts))
    starts, launches = starts[order], launches[order]
    at = np.searchsorted(starts, gaps.ends, side="left")
    found = (at < len(starts)) & (gaps.ends < window[1])
    chosen = np.minimum(at, max(len(starts) - 1, 0))
    launch = launches[chosen] if len(starts) else np.full(len(gaps.starts), UNKNOWN_LAUNCH)
    known = found & (launch != UNKNOWN_LAUNCH)
    in_time = known & (launch <= gaps.starts)
    # Until the launch begins, the host may be held up by a synchronisation; afterwards it is on its way.
    waiting_until = np.where(known, np.clip(launch, gaps.starts, gaps.ends), gaps.ends)
    sync_ns = int(overlap_ns(gaps.starts, waiting_until, syncs).sum())
    lengths = gaps.ends - gaps.starts
    return IdleCauses(int(lengths[~in_time].sum()) - sync_ns, int(lengths[in_time].sum()), sync_ns)
