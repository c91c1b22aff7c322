"""Nodes on the CPU provider inside a run on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.findings.placement import edges, host_cost, on_cpu, quantised
from workbench.diagnosis.findings.wording import milliseconds
from workbench.diagnosis.situation import CONTROL_FLOW

RULE: Final = "cpu-nodes"
LEAST_SHARE: Final = 0.02
"""Of T in such nodes and the Memcpy nodes that they cause. ONNX Runtime puts the arithmetic of shapes on the CPU on
purpose, which stays below."""


def rule(case: Case) -> Iterator[Finding]:
    """Nodes that the GPU's provider does not run; those of quantisation have a rule of their own.

    A node with subgraphs is left out: its time is that of the nodes inside it.
    """
    nodes = on_cpu(case)
    nodes = nodes[~quantised(nodes["op_type"]) & ~nodes["op_type"].isin(CONTROL_FLOW)] if len(nodes) else nodes
    if not len(nodes) or len(nodes) == len(case.nodes):  # a whole run on the CPU is another finding
        return
    cost = host_cost(case, nodes)
    if cost.saves_ns < LEAST_SHARE * case.latency_ns:
        return
    said = (
        f"Nodes on the CPU provider ({len(nodes)}) take {milliseconds(cost.own_ns)} of a call on the GPU, and Memcpy "
        f"nodes that they cause ({cost.copies}) {milliseconds(cost.copies_ns)}."
    )
    remedy = (
        "Export these nodes with operators and types that the CUDA provider implements, or move them to the ends of "
        "the graph."
    )
    yield Finding.of(RULE, said, remedy, _with_neighbours(case, nodes), saves_ns=cost.saves_ns)


def _with_neighbours(case: Case, nodes: pd.DataFrame) -> pd.DataFrame:
    """The nodes, the longest first, with the operators that feed them and that they feed (null where not known)."""
    known = edges(case.run.graph)
    fed_by, feeds = (
        known.groupby(node)[op_type].agg(lambda words: ", ".join(sorted(set(words))))
        for node, op_type in (("consumer", "producer_op_type"), ("producer", "consumer_op_type"))
    )
    names = nodes["name"].astype(str)
    table = nodes[["name", "op_type", "dtype", "executions", "host_ns"]]
    return table.assign(fed_by=names.map(fed_by), feeds=names.map(feeds)).sort_values("host_ns", ascending=False)
