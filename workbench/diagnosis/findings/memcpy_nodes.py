"""Memcpy nodes: copies that ONNX Runtime puts between nodes because a neighbour runs on the CPU or reads there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.findings.placement import host_saving_ns, memcpy_nodes
from workbench.diagnosis.findings.wording import megabytes, milliseconds

RULE: Final = "memcpy-nodes"
LEAST_SHARE: Final = 0.02
"""Of T in Memcpy nodes; below, nobody would notice. Small ones are normal where a shape is worked out on the host."""


def rule(case: Case) -> Iterator[Finding]:
    """Memcpy nodes take a part of the call that matters; each with the node that causes it."""
    table = memcpy_nodes(case)
    saves = host_saving_ns(case, float(table["host_ns"].sum()))
    if not len(table) or saves < LEAST_SHARE * case.latency_ns:
        return
    caused = table.groupby("cause_op_type")["host_ns"].sum().sort_values(ascending=False)
    by = f", above all because of {caused.index[0]} nodes" if len(caused) else ""
    copied = f"copy {megabytes(table['bytes'].sum())} between host and device and " if table["bytes"].any() else ""
    said = (
        f"Memcpy nodes ({len(table)}) {copied}hold the host for {milliseconds(table['host_ns'].sum())} of a call{by}."
    )
    remedy = (
        "Replace the nodes that cause them by ones that the GPU's provider runs, or cut the model there; a CUDA graph "
        "is not possible before."
    )
    yield Finding.of(RULE, said, remedy, table, saves_ns=saves)
