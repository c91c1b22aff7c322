"""What a traced pass spent in any window of time: the arithmetic of whole calls, cut at the window's edges.

Nothing is rounded, so that two windows that touch add up to the one that holds both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.intervals import Intervals, Nanoseconds, overlap_ns
from workbench.analysis.roofline import LIMITS

NODE_KEY: Final = ["node_index", "name", "op_type"]
NO_ROW: Final = -1

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class WindowTimes:
    """Nanoseconds of [start_ns, end_ns) inside calls of the pass.

    wall_ns: the part of the window that calls cover; work_ns, exposed_copy_ns and the three causes of idle time, as
    `workbench.analysis.device_work.call_times` has them, sum to it. limit_ns: the device's own time (on a CPU that of
    the nodes) by limit. calls: how many calls reach into the window.
    """

    start_ns: int
    end_ns: int
    calls: int
    wall_ns: int
    work_ns: int
    copy_ns: int
    exposed_copy_ns: int
    host_ns: int
    launch_latency_ns: int
    sync_ns: int
    limit_ns: dict[str, int]

    @property
    def idle_ns(self) -> int:
        """The time in calls in which the device did nothing."""
        return self.host_ns + self.launch_latency_ns + self.sync_ns


class Gaps(NamedTuple):
    """Idle time inside calls, ascending: int64[n] edges, and until when the host had not begun the next launch.

    in_time: whether that launch had begun before the gap, which makes the whole gap launch latency.
    """

    starts: Nanoseconds
    ends: Nanoseconds
    until: Nanoseconds
    in_time: NDArray[np.bool_]


class Pieces(NamedTuple):
    """Pieces of device work (on a CPU executions of nodes) by start: int64[n] each.

    own_starts: from where on no earlier piece covers it. node: row in `NodeTimes.nodes`, limit: position in `LIMITS`;
    -1 for none.
    """

    starts: Nanoseconds
    ends: Nanoseconds
    own_starts: Nanoseconds
    node: Codes
    limit: Codes


class Kernels(NamedTuple):
    """Kernels by name, then by duration: int64[n] each, own time as in `Pieces` but per device.

    rules: one row for each code of a name, as `workbench.analysis.kernel_names.kernel_rules`.
    """

    starts: Nanoseconds
    ends: Nanoseconds
    own_starts: Nanoseconds
    node: Codes
    name: Codes
    rules: pd.DataFrame


@dataclass(frozen=True)
class PassTrace:
    """The calls of one traced pass, ready to be asked about any window.

    calls: each call, by start. inside: connected groups of them. nodes: one row per graph node, as
    `NodeTimes.nodes`. executions: the host's side of each node as pieces, whose own times are not used.
    """

    calls: Intervals
    inside: Intervals
    work: Intervals
    copies: Intervals
    busy: Intervals
    gaps: Gaps
    waits: Intervals
    pieces: Pieces
    kernels: Kernels
    executions: Pieces
    nodes: pd.DataFrame

    def times(self, start_ns: int, end_ns: int) -> WindowTimes:
        """What the calls spent in [start_ns, end_ns). O(n)."""
        edges = [start_ns], [end_ns]
        wall, work, copy, busy = (
            int(overlap_ns(*edges, cover)[0]) for cover in (self.inside, self.work, self.copies, self.busy)
        )
        low, high = np.searchsorted(self.gaps.ends, start_ns, "right"), np.searchsorted(self.gaps.starts, end_ns)
        seen, every = slice(low, high), self.gaps
        gaps = Gaps(every.starts[seen], every.ends[seen], every.until[seen], every.in_time[seen])
        starts, ends = np.maximum(gaps.starts, start_ns), np.minimum(gaps.ends, end_ns)
        latency = int((ends - starts)[gaps.in_time].sum())
        sync = int(overlap_ns(starts, np.minimum(ends, gaps.until), self.waits).sum())
        own = _length_inside(self.pieces.own_starts, self.pieces.ends, start_ns, end_ns)
        limits = np.zeros(len(LIMITS) + 1, np.int64)  # the last is that of copies, which have none
        rows = np.flatnonzero(own)
        np.add.at(limits, self.pieces.limit[rows], own[rows])
        return WindowTimes(
            start_ns,
            end_ns,
            calls=int(_touching(self.calls.starts, self.calls.ends, start_ns, end_ns).sum()),
            wall_ns=wall,
            work_ns=work,
            copy_ns=copy,
            exposed_copy_ns=busy - work,
            host_ns=wall - busy - latency - sync,
            launch_latency_ns=latency,
            sync_ns=sync,
            limit_ns=dict(zip(LIMITS, limits[:-1].tolist(), strict=True)),
        )

    def node_table(self, start_ns: int, end_ns: int) -> pd.DataFrame:
        """The nodes that ran or had work in the window, longest first.

        Columns: `node` (row of `nodes`), `node_index`, `name`, `op_type`, `provider`, `executions` (that reach into the
        window), `host_ns`, `time_ns` (device time; on a CPU, as `host_ns`, the nodes' duration), `limit` (of the most
        of it), `share` (of the time of all nodes in the window, NaN where that is none).
        """
        count = len(self.nodes)
        done = self.executions
        own = _length_inside(self.pieces.own_starts, self.pieces.ends, start_ns, end_ns)
        split = np.zeros((count + 1, len(LIMITS) + 1), np.int64)
        rows = np.flatnonzero(own)
        np.add.at(split, (self.pieces.node[rows], self.pieces.limit[rows]), own[rows])
        reached = _touching(done.starts, done.ends, start_ns, end_ns)
        executions = np.bincount(done.node[reached] + 1, minlength=count + 1)[1:]
        host = np.zeros(count + 1, np.int64)
        np.add.at(host, done.node, _length_inside(done.starts, done.ends, start_ns, end_ns))
        time = split[:-1].sum(axis=1)
        table = self.nodes[[*NODE_KEY, "provider"]].assign(
            node=np.arange(count),
            executions=executions,
            host_ns=host[:-1],
            time_ns=time,
            limit=np.where(time > 0, np.array(LIMITS)[split[:-1, :-1].argmax(axis=1)], "unknown"),
            share=time / time.sum() if time.sum() else np.nan,
        )
        seen: pd.DataFrame = table[(executions > 0) | (time > 0)]
        return seen.sort_values("time_ns", ascending=False, kind="stable", ignore_index=True)

    def kernel_table(self, start_ns: int, end_ns: int) -> pd.DataFrame:
        """The kernels by name that reach into the window, most time first, as `workbench.analysis.kernel_times`.

        Columns: `kernel` (row of `kernels.rules`), `name`, `family`, `tensor_cores`, `rule`, `count`, `own_ns` (inside
        the window), `median_ns` (of whole durations, the lower of two), `share` (of all `own_ns`, NaN where that is 0).
        """
        every = self.kernels
        rows = np.flatnonzero(_touching(every.starts, every.ends, start_ns, end_ns))
        name = every.name[rows]
        first = np.flatnonzero(np.diff(name, prepend=NO_ROW))
        count = np.diff(first, append=len(rows))
        median = rows[first + (count - 1) // 2]
        inside = _length_inside(every.own_starts[rows], every.ends[rows], start_ns, end_ns)
        own = np.add.reduceat(inside, first) if len(rows) else inside
        table = every.rules.iloc[name[first]].assign(
            kernel=name[first],
            count=count,
            own_ns=own,
            median_ns=every.ends[median] - every.starts[median],
            share=own / own.sum() if own.sum() else np.nan,
        )
        longest_first: pd.DataFrame = table.sort_values("own_ns", ascending=False, kind="stable", ignore_index=True)
        return longest_first

    def longest_gaps(self, start_ns: int, end_ns: int, count: int) -> pd.DataFrame:
        """The longest gaps that begin in the window, longest first: `start_ns`, `end_ns`, `cause` in words."""
        rows = np.flatnonzero((self.gaps.starts >= start_ns) & (self.gaps.starts < end_ns))
        rows = rows[np.argsort(self.gaps.starts[rows] - self.gaps.ends[rows], kind="stable")[:count]]
        starts, ends = self.gaps.starts[rows], self.gaps.ends[rows]
        waiting = overlap_ns(starts, np.minimum(ends, self.gaps.until[rows]), self.waits)
        held = np.where(2 * waiting > ends - starts, "a synchronisation", "the host came late")
        cause = np.where(self.gaps.in_time[rows], "launch latency", held)
        return pd.DataFrame({"start_ns": starts, "end_ns": ends, "cause": cause})


def _length_inside(starts: Nanoseconds, ends: Nanoseconds, start_ns: int, end_ns: int) -> Nanoseconds:
    """How much of each interval lies in the window."""
    inside: Nanoseconds = np.maximum(np.minimum(ends, end_ns) - np.maximum(starts, start_ns), 0)
    return inside


def _touching(starts: Nanoseconds, ends: Nanoseconds, start_ns: int, end_ns: int) -> NDArray[np.bool_]:
    """What overlaps the window; a moment belongs to the window that it lies in."""
    reached: NDArray[np.bool_] = (starts < end_ns) & ((ends > start_ns) | (starts >= start_ns))
    return reached
