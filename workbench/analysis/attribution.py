"""Which node launched which kernel, copy or memset: by the clocks, never by guessing.

A piece of device work belongs to the host call with its correlation id, and that call to the innermost node whose
interval holds the middle of the call. ONNX Runtime's node times are whole microseconds, cut off; the middle of a call
that takes several microseconds lies inside its node all the same.

Copies before the executor starts carry graph inputs, copies after it ends carry graph outputs. What fits nowhere is
reported with its cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NO_NODE = -1
EXECUTOR_EVENT = "SequentialExecutor::Execute"
RUN_EVENT = "model_run"
_MICROSECOND_NS = 1000

NO_LAUNCH = "no host call has its correlation id"
OUTSIDE_NODES = "launched outside every node"
OUTSIDE_CALLS = "outside every call"


def attribute(
    work: pd.DataFrame,
    launches: pd.DataFrame,
    nodes: pd.DataFrame,
    session_events: pd.DataFrame,
    *,
    input_bytes: Mapping[str, int],
    output_names: Sequence[str],
) -> pd.DataFrame:
    """Attribute device work of one pass to nodes.

    work: rows with `call`, `start_ns`, `correlation`, and for copies `kind` and `bytes` (else null).
    input_bytes: size of each graph input, in the graph's order. output_names: the graph's outputs in order.

    Returns a frame with the index of `work`: `launch_ns` (start of the host call, -1 unknown), `node` (row position
    in `nodes`, -1 for none), `carries` (name of the graph input or output that a copy carries, else null) and `cause`
    (why it is unattributed, else null).
    """
    calls_by_id = launches.drop_duplicates("correlation").set_index("correlation")
    joined = calls_by_id.reindex(work["correlation"].to_numpy())
    known = joined["start_ns"].notna().to_numpy()
    start = joined["start_ns"].fillna(-1).to_numpy(np.int64)
    end = joined["end_ns"].fillna(-1).to_numpy(np.int64)
    middle = start + (end - start) // 2
    thread = joined["thread"].fillna(-1).to_numpy(np.int64)
    node = np.where(known, innermost_node(middle, thread, nodes), NO_NODE)
    border = known & (node == NO_NODE)
    carries = _border_copies(work, border, middle, session_events, input_bytes, list(output_names))
    outside = work["call"].to_numpy(np.int64) < 0
    cause = np.where(outside, OUTSIDE_CALLS, np.where(known, OUTSIDE_NODES, NO_LAUNCH)).astype(object)
    cause[(node != NO_NODE) | pd.notna(carries)] = None
    return pd.DataFrame(
        {"launch_ns": np.where(known, start, -1), "node": node, "carries": carries, "cause": cause}, index=work.index
    )


def attributed_share(attribution: pd.DataFrame, inside: NDArray[np.bool_]) -> float | None:
    """Fraction of the chosen rows that lead to a node or a graph input or output; None without rows."""
    return float(attribution.loc[inside, "cause"].isna().mean()) if inside.any() else None


def innermost_node(times_ns: NDArray[np.int64], threads: NDArray[np.int64], nodes: pd.DataFrame) -> NDArray[np.int64]:
    """Row position of the innermost node that holds each moment on its thread, -1 for none: int64[n].

    Where the threads of calls and nodes share no number (another operating system's ids), the thread is left out.
    """
    node_threads = nodes["thread"].to_numpy(np.int64)
    if not np.isin(threads, node_threads).any():
        threads, node_threads = np.zeros_like(threads), np.zeros_like(node_threads)
    found = np.full(len(times_ns), NO_NODE, np.int64)
    starts = nodes["start_ns"].to_numpy(np.int64)
    ends = starts + nodes["duration_ns"].to_numpy(np.int64) + _MICROSECOND_NS
    for thread in np.unique(node_threads):
        rows = np.flatnonzero(node_threads == thread)
        rows = rows[np.lexsort((-ends[rows], starts[rows]))]
        mine = np.flatnonzero(threads == thread)
        found[mine] = _innermost(times_ns[mine], starts[rows], ends[rows], rows)
    return found


def _innermost(
    times: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    at = np.searchsorted(starts, times, side="right") - 1
    parents = _parents(starts, ends)
    missed = (at >= 0) & (ends[np.maximum(at, 0)] <= times)
    while missed.any():  # climbs one level of nested subgraphs (If, Loop, Scan) in each round
        at[missed] = parents[at[missed]]
        missed = (at >= 0) & (ends[np.maximum(at, 0)] <= times)
    return np.where(at >= 0, rows[np.maximum(at, 0)], NO_NODE)


def _parents(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """For nodes by start (the longer first): position of the closest earlier node that reaches past this one's end."""
    parents = np.full(len(starts), NO_NODE, np.int64)
    reach = np.maximum.accumulate(ends) if len(ends) else ends
    nested = np.flatnonzero(np.concatenate(([False], reach[:-1] >= ends[1:])))
    for row in nested:
        above = row - 1
        while above >= 0 and ends[above] < ends[row]:
            above = parents[above] if parents[above] >= 0 else above - 1
        parents[row] = above
    return parents


def _border_copies(
    work: pd.DataFrame,
    free: NDArray[np.bool_],
    launch_middle: NDArray[np.int64],
    session_events: pd.DataFrame,
    input_bytes: Mapping[str, int],
    output_names: list[str],
) -> NDArray[np.object_]:
    """What each free copy at the border of the graph carries, or None: object[n]."""
    carries = np.full(len(work), None, object)
    executor = session_events[session_events["name"] == EXECUTOR_EVENT].drop_duplicates("call").set_index("call")
    spans = executor.reindex(work["call"].to_numpy())
    begin = spans["start_ns"].fillna(-1).to_numpy(np.int64)
    finish = begin + spans["duration_ns"].fillna(0).to_numpy(np.int64)
    calls, kinds, sizes = (work[name].to_numpy() for name in ("call", "kind", "bytes"))
    free = free & (begin >= 0)
    comes_in = free & (kinds == "h2d") & (launch_middle < begin + _MICROSECOND_NS)
    goes_out = free & (kinds == "d2h") & (launch_middle > finish)
    order = np.argsort(work["start_ns"].to_numpy(), kind="stable")
    for call in np.unique(calls[comes_in | goes_out]):
        mine = order[calls[order] == call]
        incoming, outgoing = mine[comes_in[mine]], mine[goes_out[mine]]
        carries[incoming] = _input_labels(sizes[incoming], input_bytes)
        carries[outgoing] = _output_labels(len(outgoing), output_names)
    return carries


def _input_labels(sizes: NDArray[np.int64], input_bytes: Mapping[str, int]) -> list[str | None]:
    """Each copy takes the first input of its size that is still free: ONNX Runtime copies feeds in order."""
    left = dict(input_bytes)
    labels: list[str | None] = []
    for size in sizes:
        name = next((name for name, wanted in left.items() if wanted == size), None)
        labels.append(None if name is None else f"input {name}")
        left.pop(name or "", None)
    return labels


def _output_labels(count: int, names: list[str]) -> list[str]:
    """Copies leave in the outputs' order; with other numbers of copies and outputs no name is claimed."""
    return [f"output {name}" for name in names] if count == len(names) else ["an output"] * count
