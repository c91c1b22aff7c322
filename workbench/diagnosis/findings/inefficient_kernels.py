"""Kernels that fill the GPU and stay far below both of its ceilings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.analysis.thresholds import UNDERFILLED_EFFICIENCY
from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.levers import lever
from workbench.diagnosis.levers.conditions import CONVOLUTIONS

RULE: Final = "inefficient-kernels"
LEAST_SHARE: Final = 0.10
"""Of T that may be saved. Every graph has some nodes below a quarter of a ceiling, because small shapes get no more."""


def rule(case: Case) -> Iterator[Finding]:
    """Nodes with most of their time in kernels that fill the GPU, at less than a quarter of the nearer ceiling."""
    if not case.on_gpu or not len(case.nodes):
        return
    kernels = case.kernels
    filling = kernels[kernels["limit"].isin(("compute", "memory")) & (kernels["node"] >= 0)]
    per_node = filling.groupby("node")["time_ns"].sum()
    longest = filling.drop_duplicates("node").set_index("node")["kernel"].rename("longest_kernel")
    pieces = filling.groupby("node")["kernels"].sum()
    nodes = case.nodes.rename(columns={"time_ns": "node_ns"}).join(per_node, how="inner").join([longest, pieces])
    nodes = nodes[(nodes["time_ns"] > nodes["node_ns"] / 2) & (nodes["efficiency"] < UNDERFILLED_EFFICIENCY)]
    time_ns = float(nodes["time_ns"].sum())
    if not len(nodes):
        return
    reached = float((nodes["efficiency"] * nodes["node_ns"]).sum() / nodes["node_ns"].sum())
    saves = time_ns * (1 - reached)
    if saves < LEAST_SHARE * case.latency_ns:
        return
    convolutions = nodes.loc[nodes["op_type"].isin(CONVOLUTIONS), "time_ns"].sum() > time_ns / 2
    nhwc = convolutions and lever("prefer-nhwc").why_not(case.situation) is None
    said = (
        f"{len(nodes)} nodes fill the GPU for {time_ns / 1e6:.3g} ms a call and reach {reached:.0%} of the nearer of "
        f"its ceilings, with {nodes['kernels'].sum() / len(nodes):.2g} kernels each."
    )
    yield Finding.of(
        RULE, said, "Try other kernels for the same nodes: another layout, another type, or fused bias and activation.",
        nodes.sort_values("time_ns", ascending=False)[
            ["name", "op_type", "dtype", "longest_kernel", "kernels", "time_ns", "compute_bound_ns", "memory_bound_ns"]
        ],
        lever="prefer-nhwc" if nhwc else None, saves_ns=min(saves, case.latency_ns),
    )  # fmt: skip
