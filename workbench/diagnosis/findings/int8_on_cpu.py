"""Quantised nodes that the GPU's provider cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.findings.placement import host_cost, on_cpu, quantised
from workbench.diagnosis.findings.wording import milliseconds

RULE: Final = "int8-on-cpu"
LEAST_SHARE: Final = 0.02
"""Of T in such nodes and the Memcpy nodes that they cause; below, nobody would notice."""


def rule(case: Case) -> Iterator[Finding]:
    """Nodes of integer quantisation ran on the CPU provider inside a run on a GPU."""
    nodes = on_cpu(case)
    nodes = nodes[quantised(nodes["op_type"])] if len(nodes) else nodes
    if not len(nodes):
        return
    cost = host_cost(case, nodes)
    if cost.saves_ns < LEAST_SHARE * case.latency_ns:
        return
    kinds = ", ".join(nodes.groupby("op_type", observed=True)["host_ns"].sum().sort_values(ascending=False).index)
    said = (
        f"Quantised nodes ({len(nodes)}: {kinds}) run on the CPU provider and take {milliseconds(cost.own_ns)} of a "
        f"call, and Memcpy nodes that they cause ({cost.copies}) {milliseconds(cost.copies_ns)}."
    )
    remedy = (
        "Leave these nodes in float16 or float32, quantise weights alone (int8-weights or int4-weights on the model in "
        "float), or run the quantised model with TensorRT."
    )
    evidence = nodes.sort_values("host_ns", ascending=False)[["name", "op_type", "dtype", "executions", "host_ns"]]
    yield Finding.of(RULE, said, remedy, evidence, saves_ns=cost.saves_ns)
