"""Where nodes were placed, and which node makes data cross between host and device."""

from __future__ import annotations

from typing import NamedTuple

import onnx
import pandas as pd

from workbench.capture.subgraph import all_nodes, subgraphs
from workbench.diagnosis.findings.finding import Case
from workbench.diagnosis.situation import CPU_PROVIDER, MEMCPY

_QUANTISED = r"(?i:quantiz)|Integer|NBits|^QLinear|^QOrdered|^QGemm$|^QAttention$|^QEmbed"
"""Operators of ONNX and of ONNX Runtime that compute on integers or convert to and from them."""


def on_cpu(case: Case) -> pd.DataFrame:
    """Rows of `case.nodes` that ran on the CPU provider although the run is on a GPU."""
    if not case.on_gpu or not len(case.nodes):
        return case.nodes.iloc[:0]
    return case.nodes[case.nodes["provider"] == CPU_PROVIDER]


def quantised(op_types: pd.Series) -> pd.Series:
    """Whether each operator is one of integer quantisation, or converts to or from it: bool, the index kept."""
    return op_types.astype(str).str.contains(_QUANTISED)


def edges(model: onnx.ModelProto | None) -> pd.DataFrame:
    """Edges between the nodes of a graph and of its subgraphs; none without a graph.

    Columns: `tensor`, `producer`, `producer_op_type`, `consumer`, `consumer_op_type`. A node with subgraphs consumes
    their outputs, such as the condition that a Loop reads after each iteration.
    """
    nodes = [] if model is None else list(all_nodes(model.graph))
    made = [(tensor, node.name, node.op_type) for node in nodes for tensor in node.output]
    used = [(tensor, node.name, node.op_type) for node in nodes for tensor in (*node.input, *_inner_outputs(node))]
    producers = pd.DataFrame(made, columns=["tensor", "producer", "producer_op_type"])
    consumers = pd.DataFrame(used, columns=["tensor", "consumer", "consumer_op_type"])
    return producers[producers["tensor"] != ""].merge(consumers, on="tensor")  # an output left out has no name


def memcpy_nodes(case: Case) -> pd.DataFrame:
    """One row per Memcpy node, the longest first, with the node that makes it necessary.

    Columns: `name`, `op_type`, `cause`, `cause_op_type` (null where the graph does not say), `executions`, `host_ns`,
    `bytes` and `copy_ns`, per call (null where no copy was recorded). A copy to the host is caused by the node that
    reads it there, a copy from the host by the node that left its output there.
    """
    if not case.on_gpu or not len(case.nodes):
        return pd.DataFrame(columns=["name", "op_type", "cause", "cause_op_type", "executions", "host_ns"])
    found = case.nodes.loc[case.nodes["op_type"].isin(MEMCPY), ["name", "op_type", "executions", "host_ns"]]
    found = found.astype({"name": str, "op_type": str})
    known = edges(case.run.graph)
    keys = ["name", "cause", "cause_op_type"]
    to_host = known[["producer", "consumer", "consumer_op_type"]].set_axis(keys, axis=1).assign(op_type="MemcpyToHost")
    from_host = known[["consumer", "producer", "producer_op_type"]].set_axis(keys, axis=1)
    causes = pd.concat([to_host, from_host.assign(op_type="MemcpyFromHost")]).drop_duplicates(["name", "op_type"])
    table = found.merge(causes, on=["name", "op_type"], how="left").merge(_copied(case), on="name", how="left")
    columns = ["name", "op_type", "cause", "cause_op_type", "executions", "host_ns", "bytes", "copy_ns"]
    return table.sort_values("host_ns", ascending=False)[columns]


class HostCost(NamedTuple):
    """What nodes on the CPU cost the host in a call: their own time, the Memcpy nodes that they cause and their time,
    and how much of both is saved at most.
    """

    own_ns: float
    copies: int
    copies_ns: float
    saves_ns: float


def host_cost(case: Case, nodes: pd.DataFrame) -> HostCost:
    """The cost of some rows of `on_cpu`."""
    copies = memcpy_nodes(case)
    copies = copies[copies["cause"].isin(nodes["name"].astype(str))]
    own_ns, copies_ns = float(nodes["host_ns"].sum()), float(copies["host_ns"].sum())
    return HostCost(own_ns, len(copies), copies_ns, host_saving_ns(case, own_ns + copies_ns))


def host_saving_ns(case: Case, host_ns: float) -> float:
    """What is saved at most when the host spends so much less on a call: never more than the device does not work.

    T is bare and `host_ns` was profiled, which only makes it longer; the device's work stays.
    """
    pieces = case.diagnosis.pieces
    most = case.latency_ns if pieces is None else float(pieces.exposed_copies + pieces.idle)
    return min(host_ns, max(most, 0.0))


def _copied(case: Case) -> pd.DataFrame:
    """Bytes and time per call of the host copies of each node: `name`, `bytes`, `copy_ns`."""
    nodes = case.diagnosis.nodes
    if nodes is None or not len(case.device):
        return pd.DataFrame({"name": pd.Series(dtype=str), "bytes": [], "copy_ns": []})
    copies = case.device[case.device["host_copy"] & (case.device["node"] >= 0)]
    names = nodes.executions["name"].astype(str).to_numpy()[copies["node"].to_numpy()]
    table = pd.DataFrame({"bytes": copies["bytes"], "copy_ns": copies["end_ns"] - copies["start_ns"]})
    return (table.groupby(names).sum() / case.calls).rename_axis("name").reset_index()


def _inner_outputs(node: onnx.NodeProto) -> list[str]:
    return [output.name for inner in subgraphs(node) for output in inner.output]
