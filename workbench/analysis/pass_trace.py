"""Makes a traced pass ready for windows: unions, gaps with their causes, and own times, worked out once. O(n log n)."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from workbench.analysis.call_windows import connected
from workbench.analysis.device_work import contains
from workbench.analysis.gaps import split_idle
from workbench.analysis.intervals import Intervals, Nanoseconds, difference, own_time_ns, union
from workbench.analysis.kernel_names import kernel_rules
from workbench.analysis.node_times import NodeTimes, cpu_limits
from workbench.analysis.roofline import LIMITS
from workbench.analysis.tables import Tables, rows_of
from workbench.analysis.window import NO_ROW, NODE_KEY, Codes, Gaps, Kernels, PassTrace, Pieces

_EVER: Final = Intervals(np.array([-(1 << 61)]), np.array([1 << 61]))


def pass_trace(run: Tables, pass_name: str, calls: pd.DataFrame, nodes: NodeTimes, device_kind: str) -> PassTrace:
    """Make a pass ready for windows.

    calls: rows of `latency` of the calls that `nodes` is of. nodes: `workbench.analysis.node_times.node_times` of the
    pass. device_kind: `cuda`, or `cpu`, where nodes take the place of device work and all idle time is the host's.
    """
    starts = calls["start_ns"].to_numpy(np.int64)
    order = np.argsort(starts, kind="stable")
    each = Intervals(starts[order], (starts + calls["duration_ns"].to_numpy(np.int64))[order])
    inside, group = connected(*each)
    of_node = _node_rows(nodes)
    executions = _executions(nodes, of_node)
    if device_kind == "cpu":
        done, call, crosses = executions, nodes.executions["call"], np.zeros(len(executions.starts), np.bool_)
        launches, waits = np.full(len(crosses), NO_ROW), union([], [])
        none = np.empty(0, np.int64)
        kernels = Kernels(none, none, none, none, none, kernel_rules([]))
    else:
        device = nodes.device
        done, call, crosses = _device_pieces(device, of_node), device["call"], device["host_copy"].to_numpy(np.bool_)
        launches, kernels = device["launch_ns"].to_numpy(np.int64), _kernels(device, done.node)
        made = rows_of(run, "launches", pass_name, ("start_ns", "end_ns", "name"))
        made = made[contains(made["name"], "Synchronize")]
        waits = union(made["start_ns"].to_numpy(np.int64), made["end_ns"].to_numpy(np.int64))
    numbers = calls["call"].to_numpy(np.int64)[order]
    by_number = np.argsort(numbers, kind="stable")
    window = group[by_number][np.searchsorted(numbers[by_number], call.to_numpy(np.int64))]
    low, high = inside.starts[window], inside.ends[window]
    begins, ends = np.maximum(done.starts, low), np.minimum(done.ends, high)
    busy = union(begins, ends)
    of_call = (done.starts >= low) & (done.starts < high)
    return PassTrace(
        calls=each,
        inside=inside,
        work=union(begins[~crosses], ends[~crosses]),
        copies=union(begins[crosses], ends[crosses]),
        busy=busy,
        gaps=_gaps(inside, busy, done.starts[of_call], launches[of_call]),
        waits=waits,
        pieces=done,
        kernels=kernels,
        executions=executions,
        nodes=nodes.nodes,
    )


def _gaps(inside: Intervals, busy: Intervals, work_starts: Nanoseconds, launches: Nanoseconds) -> Gaps:
    """The gaps in each group of calls. The causes come from `split_idle`, to which each gap is a window of its own."""
    gaps = difference(inside, busy)
    followed = ~np.isin(gaps.ends, inside.ends)  # one more nanosecond tells it that work of this call comes next
    # were the host waiting all the time, `sync_ns` would be the part of each gap before its launch
    causes = split_idle((gaps.starts, gaps.ends + followed), busy, work_starts, launches, _EVER)
    return Gaps(gaps.starts, gaps.ends, gaps.starts + causes.sync_ns, causes.launch_latency_ns > 0)


def _node_rows(nodes: NodeTimes) -> Codes:
    """The row in `nodes.nodes` of each execution; the last entry is that of no execution: int64[executions + 1]."""
    known = nodes.nodes[NODE_KEY].assign(row=np.arange(len(nodes.nodes)))
    found = nodes.executions[NODE_KEY].astype(known[NODE_KEY].dtypes.to_dict()).merge(known, on=NODE_KEY, how="left")
    return np.append(found["row"].to_numpy(np.int64), NO_ROW)


def _device_pieces(device: pd.DataFrame, of_node: Codes) -> Pieces:
    starts, ends = (device[edge].to_numpy(np.int64) for edge in ("start_ns", "end_ns"))
    own_starts = ends - device["own_ns"].to_numpy(np.int64)
    return Pieces(starts, ends, own_starts, of_node[device["node"].to_numpy()], _codes(device["limit"]))


def _executions(nodes: NodeTimes, of_node: Codes) -> Pieces:
    """On a CPU these are the work, and like a node's own time each counts with its whole duration."""
    starts = nodes.executions["start_ns"].to_numpy(np.int64)
    ends = starts + nodes.executions["duration_ns"].to_numpy(np.int64)
    words = pd.Series(pd.Categorical(cpu_limits(nodes.executions), LIMITS))
    return Pieces(starts, ends, starts, of_node[:-1], _codes(words))


def _kernels(device: pd.DataFrame, node: Codes) -> Kernels:
    chosen = (device["table"] == "kernels").to_numpy()
    kernels = device[chosen]
    starts, ends = (kernels[edge].to_numpy(np.int64) for edge in ("start_ns", "end_ns"))
    own = np.zeros(len(kernels), np.int64)
    for rows in kernels.groupby("device", dropna=False).indices.values():
        own[rows] = own_time_ns(starts[rows], ends[rows])
    code, names = pd.factorize(kernels["name"], use_na_sentinel=False)
    rules = kernel_rules([None if pd.isna(name) else str(name) for name in names])
    order = np.lexsort((ends - starts, code))
    return Kernels(starts[order], ends[order], (ends - own)[order], node[chosen][order], np.asarray(code)[order], rules)


def _codes(words: pd.Series) -> Codes:
    return np.asarray(words.cat.codes, np.int64)
