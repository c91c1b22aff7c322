"""From the kernels of a replayed CUDA graph back to the nodes that put them into the graph.

ONNX Runtime reports no nodes while a graph replays, and all work of a replay has the correlation id of its one launch.
But each kernel names the graph node that it is, that node the one that it was cloned from when the graph was made
executable, and the last of these was made by a host call inside an ONNX Runtime node: in the call that captured.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.attribution import (
    CAUSES,
    GRAPH_NODE_UNKNOWN,
    GRAPH_NODES_MISSING,
    NO_NODE,
    OUTSIDE_NODES,
    innermost_node,
)
from workbench.analysis.pairing import first_rows

_UNKNOWN_ORIGIN = -2
_NO_THREAD = -1


class Replays(NamedTuple):
    """`found`: the attribution with the replayed work filled in, its `node` a row position in `executions`.

    `executions`: the executed nodes, and below them one row for each node and replay that ran it.
    """

    found: pd.DataFrame
    executions: pd.DataFrame


def lead_back(
    work: pd.DataFrame, found: pd.DataFrame, executions: pd.DataFrame, nodes: pd.DataFrame, graph_nodes: pd.DataFrame
) -> Replays:
    """Attribute replayed work that no executed node launched.

    work: device work with `call`, `start_ns`, `process`, `correlation` and `graph_node` (null where not replayed).
    found: its attribution (`workbench.analysis.attribution.attribute`) to `executions`. executions: the measured rows
    of `nodes`, whose index labels are those of `nodes`; nodes: of every call, for the capture lies in a warm-up call.
    graph_nodes: rows of the table of that name.

    A replay gives each node that owns some of its work an execution of its own in its call: the captured row with
    `start_ns` of the replay's launch (of its first work where the launch is unknown) and `duration_ns` 0, because the
    host did nothing for it. It has `replayed` True; the caller gives the other executions False.
    """
    cause = found["cause"].cat.codes.to_numpy().copy()
    replayed = np.flatnonzero(work["graph_node"].notna() & (cause >= 0) & (work["call"] >= 0))
    if not len(replayed):
        return Replays(found, executions)
    if len(graph_nodes):
        # A clone is reported twice, as created and as cloned: the second says from what.
        graph_nodes = graph_nodes.sort_values("origin", na_position="last", kind="stable")
        rows = _rows_of_graph_nodes(work.iloc[replayed], graph_nodes, "graph_node")
        origin = np.append(_captured_in(graph_nodes, nodes), _UNKNOWN_ORIGIN)[rows]
        cause[replayed] = np.select(
            [origin >= 0, origin == NO_NODE], [-1, CAUSES.index(OUTSIDE_NODES)], CAUSES.index(GRAPH_NODE_UNKNOWN)
        )
    else:
        origin = np.full(len(replayed), _UNKNOWN_ORIGIN)
        cause[replayed] = CAUSES.index(GRAPH_NODES_MISSING)
    found = found.assign(cause=pd.Categorical.from_codes(cause, pd.Index(CAUSES)))
    replayed, origin = replayed[origin >= 0], origin[origin >= 0]
    return _with_executions(work.iloc[replayed], replayed, origin, found, executions, nodes)


def _with_executions(
    work: pd.DataFrame,
    rows: NDArray[np.int64],
    origin: NDArray[np.int64],
    found: pd.DataFrame,
    executions: pd.DataFrame,
    nodes: pd.DataFrame,
) -> Replays:
    """Point each replayed piece, at `rows` of `found`, to its node's execution in its own call; add those missing."""
    captured = nodes.iloc[origin]
    owner = pd.Index(executions.index).get_indexer(captured.index)
    owner[captured["call"].to_numpy() != work["call"].to_numpy()] = NO_NODE
    launch = found["launch_ns"].to_numpy()[rows]
    replays = pd.DataFrame(
        {
            "call": work["call"].to_numpy(),
            "process": work["process"].to_numpy(),
            "correlation": work["correlation"].to_numpy(),
            "origin": origin,
            "start_ns": np.where(launch < 0, work["start_ns"].to_numpy(), launch),
        }
    )[owner == NO_NODE]
    groups = replays.groupby(["call", "process", "correlation", "origin"], dropna=False, sort=False)
    each = groups["start_ns"].min().reset_index()
    added = nodes.iloc[each["origin"]].assign(call=each["call"].to_numpy(), start_ns=each["start_ns"].to_numpy())
    owner[owner == NO_NODE] = len(executions) + groups.ngroup().to_numpy()
    node = found["node"].to_numpy().copy()
    node[rows] = owner
    added = added.assign(duration_ns=0, replayed=True)
    return Replays(found.assign(node=node), pd.concat([executions, added], ignore_index=True))


def _rows_of_graph_nodes(table: pd.DataFrame, graph_nodes: pd.DataFrame, column: str) -> NDArray[np.int64]:
    """Row in `graph_nodes` that each row of `table` names in `column`, -1 for none."""
    return first_rows(table["process"], table[column], graph_nodes["process"], graph_nodes["graph_node"])


def _captured_in(graph_nodes: pd.DataFrame, nodes: pd.DataFrame) -> NDArray[np.int64]:
    """Row position in `nodes` in which each graph node was captured: int64[graph nodes].

    `NO_NODE` where the capture lies outside every node, `_UNKNOWN_ORIGIN` where the chain of clones has no end.
    """
    count = len(graph_nodes)
    cloned = graph_nodes["origin"].notna().to_numpy()
    parents = _rows_of_graph_nodes(graph_nodes, graph_nodes, "origin")
    lost = count  # one row more than there are: where chains end whose origin is no row
    above = np.append(np.where(cloned, np.where(parents >= 0, parents, lost), np.arange(count)), lost)
    for _ in range(count.bit_length()):  # each round doubles the step, so that every chain without a cycle ends
        above = above[above]
    root = above[:count]
    known = np.append(~cloned & graph_nodes["time_ns"].notna().to_numpy(), False)[root]
    roots = graph_nodes.iloc[root[known]]
    found = np.full(count, _UNKNOWN_ORIGIN, np.int64)
    found[known] = innermost_node(
        roots["time_ns"].to_numpy(np.int64), roots["thread"].fillna(_NO_THREAD).to_numpy(np.int64), nodes
    )
    return found
