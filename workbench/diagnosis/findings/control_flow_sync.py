"""If, Loop and Scan nodes for which the host waits until the device has worked out the condition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.attribution import NO_NODE, innermost_node
from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.findings.placement import host_saving_ns
from workbench.diagnosis.findings.waits import waiting_calls
from workbench.diagnosis.findings.wording import milliseconds
from workbench.diagnosis.passes import detailed_pass
from workbench.diagnosis.situation import CONTROL_FLOW

RULE: Final = "control-flow-sync"
LEAST_SHARE: Final = 0.02
"""Of T in such waits; below, nobody would notice."""


def rule(case: Case) -> Iterator[Finding]:
    """The host waits for the device inside control flow, or before it for what it decides by."""
    nodes, pass_name = case.diagnosis.nodes, detailed_pass(case.manifest)
    if not case.on_gpu or nodes is None or pass_name is None or not len(nodes.executions):
        return
    executions = nodes.executions[~nodes.executions["replayed"]]
    flow = executions[executions["op_type"].isin(CONTROL_FLOW)]
    if not len(flow):
        return
    calls = waiting_calls(case, pass_name)
    calls = calls[calls["call"].isin(flow["call"])]
    held_by = _held_by(calls, executions, flow)
    held = held_by != NO_NODE
    wait_ns = np.zeros(len(flow), np.int64)
    np.add.at(wait_ns, held_by[held], (calls["end_ns"] - calls["start_ns"]).to_numpy(np.int64)[held])
    waits = flow[["name", "op_type"]].astype(str).assign(
        waits=np.bincount(held_by[held], minlength=len(flow)), wait_ns=wait_ns, host_ns=flow["duration_ns"]
    )  # fmt: skip
    table = waits.groupby(["name", "op_type"], as_index=False).sum()
    table[["waits", "wait_ns", "host_ns"]] /= case.calls
    saves = host_saving_ns(case, float(table["wait_ns"].sum()))
    if saves < LEAST_SHARE * case.latency_ns:
        return
    said = (
        f"Control flow ({len(table)} nodes of {', '.join(sorted(set(table['op_type'])))}) makes the host wait for the "
        f"device {table['waits'].sum():.3g} times a call, {milliseconds(table['wait_ns'].sum())} in all."
    )
    remedy = (
        "Unroll the loop or compute both branches and select (Where), or work the condition out on the host from what "
        "is known there before the call."
    )
    yield Finding.of(RULE, said, remedy, table.sort_values("wait_ns", ascending=False), saves_ns=saves)


def _held_by(calls: pd.DataFrame, executions: pd.DataFrame, flow: pd.DataFrame) -> NDArray[np.int64]:
    """Row position in `flow` of the node that each host call waits for, -1 for none: int64[calls].

    That is the node it lies in, or when it lies in none at all the next node of its call: ONNX Runtime waits for a
    copy to the host before it starts the node that reads it.
    """
    middle = calls["start_ns"].to_numpy(np.int64) + (calls["end_ns"] - calls["start_ns"]).to_numpy(np.int64) // 2
    threads = calls["thread"].to_numpy(np.int64)
    held_by = innermost_node(middle, threads, flow)
    free = np.flatnonzero(innermost_node(middle, threads, executions) == NO_NODE)
    starts = executions[["call", "start_ns"]].astype(np.int64).assign(position=NO_NODE)
    starts.loc[flow.index, "position"] = np.arange(len(flow))
    between = pd.DataFrame({"call": calls["call"].to_numpy(np.int64)[free], "start_ns": middle[free], "row": free})
    following = pd.merge_asof(
        between.sort_values("start_ns"), starts.sort_values("start_ns"), on="start_ns", by="call", direction="forward"
    ).dropna()
    held_by[following["row"]] = following["position"].astype(np.int64)
    return held_by
