"""Which node launched which kernel, copy or memset: by the clocks, never by guessing.

A piece of device work belongs to the host call with its correlation id, and that call to the innermost node whose
interval holds the middle of the call. ONNX Runtime's node times are whole microseconds, cut off; the middle of a call
that takes several microseconds lies inside its node all the same.

Copies before the executor starts carry graph inputs, copies after it ends carry graph outputs. What fits nowhere is
reported with its cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.device_work import HOST_COPIES
from workbench.analysis.pairing import NO_CALL, TOO_EARLY, launch_rows, taken
from workbench.analysis.spans import NO_SPAN, innermost

NO_NODE = NO_SPAN
EXECUTOR_EVENT = "SequentialExecutor::Execute"
_MICROSECOND_NS = 1000

NO_LAUNCH = "no host call has its correlation id"
STARTS_BEFORE_LAUNCH = "starts before its launch"
OUTSIDE_NODES = "launched outside every node"
OUTSIDE_CALLS = "outside every call"
GRAPH_NODES_MISSING = "replayed by a CUDA graph whose nodes were not recorded"
GRAPH_NODE_UNKNOWN = "graph node without a known origin"
CAUSES: Final = (
    NO_LAUNCH, STARTS_BEFORE_LAUNCH, OUTSIDE_NODES, OUTSIDE_CALLS, GRAPH_NODES_MISSING, GRAPH_NODE_UNKNOWN,
)  # fmt: skip


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

    work: rows with `call`, `start_ns`, `correlation`, `process` where known, and for copies `kind` and `bytes` (else
    null). input_bytes: size of each graph input, in the graph's order. output_names: the graph's outputs in order.

    Returns a frame with the index of `work`: `launch_ns` (start of the host call, -1 unknown), `node` (row position
    in `nodes`, -1 for none), `carries` (name of the graph input or output that a copy carries, else null) and `cause`
    (why it is unattributed, one of `CAUSES`, else null; Categorical).
    """
    rows = launch_rows(work, launches)
    known = rows >= 0
    start = taken(launches["start_ns"].to_numpy(np.int64), rows, -1)
    node = np.full(len(work), NO_NODE, np.int64)
    middle = start
    if len(nodes) or len(session_events):
        middle = start + (taken(launches["end_ns"].to_numpy(np.int64), rows, -1) - start) // 2
        threads = launches["thread"].to_numpy(np.int64)
        node[known] = innermost_node(middle[known], threads[rows[known]], nodes)
    border = known & (node == NO_NODE)
    carries = _border_copies(work, border, middle, session_events, input_bytes, list(output_names))
    cause = np.full(len(work), CAUSES.index(OUTSIDE_NODES), np.int8)
    cause[rows == NO_CALL] = CAUSES.index(NO_LAUNCH)
    cause[rows == TOO_EARLY] = CAUSES.index(STARTS_BEFORE_LAUNCH)
    cause[work["call"].to_numpy() < 0] = CAUSES.index(OUTSIDE_CALLS)
    cause[node != NO_NODE] = -1
    cause[pd.notna(carries)] = -1
    return pd.DataFrame(
        {
            "launch_ns": start,
            "node": node,
            "carries": pd.Series(carries, dtype=object),
            "cause": pd.Categorical.from_codes(cause, pd.Index(CAUSES)),
        }
    ).set_index(work.index)


def innermost_node(times_ns: NDArray[np.int64], threads: NDArray[np.int64], nodes: pd.DataFrame) -> NDArray[np.int64]:
    """Row position of the innermost node that holds each moment on its thread, -1 for none: int64[n].

    Where the threads of calls and nodes share no number (another operating system's ids), the thread is left out.
    """
    node_threads = nodes["thread"].to_numpy(np.int64)
    if not np.isin(threads, node_threads).any():
        threads, node_threads = np.zeros_like(threads), np.zeros_like(node_threads)
    starts = nodes["start_ns"].to_numpy(np.int64)
    ends = starts + nodes["duration_ns"].to_numpy(np.int64) + _MICROSECOND_NS
    return innermost(times_ns, threads, starts, ends, node_threads)


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
    rows = np.flatnonzero(free & work["kind"].isin(HOST_COPIES).to_numpy() & work["call"].isin(executor.index))
    rows = rows[np.lexsort((work["start_ns"].to_numpy()[rows], work["call"].to_numpy()[rows]))]
    copies = work.iloc[rows]
    begin, duration = executor.loc[copies["call"], ["start_ns", "duration_ns"]].to_numpy(np.int64).T
    middle, kinds = launch_middle[rows], copies["kind"].to_numpy()
    comes_in = (kinds == "h2d") & (middle < begin + _MICROSECOND_NS)
    goes_out = (kinds == "d2h") & (middle > begin + duration)
    for call in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(copies["call"].to_numpy())) + 1):
        incoming, outgoing = call[comes_in[call]], call[goes_out[call]]
        carries[rows[incoming]] = _input_labels(copies["bytes"].iloc[incoming], input_bytes)
        carries[rows[outgoing]] = _output_labels(len(outgoing), output_names)
    return carries


def _input_labels(sizes: pd.Series, input_bytes: Mapping[str, int]) -> list[str | None]:
    """Each copy takes the first input of its size that is still free: ONNX Runtime copies feeds in order.

    Of an imported run the inputs are not known, so that no name is claimed.
    """
    if not input_bytes:
        return ["an input"] * len(sizes)
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
