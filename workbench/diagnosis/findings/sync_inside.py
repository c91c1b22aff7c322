"""The host waits for the device in the middle of a call, so that it cannot launch ahead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from workbench.analysis.attribution import NO_NODE, innermost_node
from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.findings.waits import waiting_calls
from workbench.diagnosis.passes import detailed_pass

RULE: Final = "sync-inside"
LEAST_SHARE: Final = 0.02
"""Of T that the host waits before the last node; below, nobody would notice."""
_KEY: Final = ["name", "op_type", "provider", "place"]


def rule(case: Case) -> Iterator[Finding]:
    """Synchronisations that a node of the same call follows or holds; those after the last node end the call."""
    waits = waits_inside(case)
    waited_ns = float(waits["wait_ns"].sum()) if len(waits) else 0.0
    if not len(waits) or waited_ns < LEAST_SHARE * case.latency_ns:
        return
    first = waits.iloc[0]
    said = (
        f"The host waits for the device {waits['waits'].sum():.3g} times inside each call, {waited_ns / 1e6:.3g} ms "
        f"together, at {len(waits)} nodes, longest {first['place']} {first['name']!r} ({first['op_type']})."
    )
    yield Finding.of(
        RULE, said,
        "Keep on the GPU what the host needs there (shapes, conditions, inputs of nodes on the CPU), or fix the shapes "
        "so that it is worked out before the call.",
        waits, saves_ns=min(waited_ns, case.latency_ns),
    )  # fmt: skip


def waits_inside(case: Case) -> pd.DataFrame:
    """One row per node that the host waits in (`place` "in") or before, the longest wait first; empty when not known.

    Columns: `name`, `op_type`, `provider`, `place`, `wait_ns` and `waits`, per call of the pass that saw the nodes.
    """
    nodes, pass_name = case.diagnosis.nodes, detailed_pass(case.manifest)
    if not case.on_gpu or pass_name is None or nodes is None or not len(nodes.executions):
        return pd.DataFrame()
    made = waiting_calls(case, pass_name)
    executions = nodes.executions[~nodes.executions["replayed"]].sort_values("start_ns")
    starts, ends = (made[edge].to_numpy(np.int64) for edge in ("start_ns", "end_ns"))
    node = innermost_node(starts + (ends - starts) // 2, made["thread"].to_numpy(np.int64), executions)
    following = np.searchsorted(executions["start_ns"].to_numpy(np.int64), starts)
    call = np.append(executions["call"].to_numpy(np.int64), -1)
    counts = (node != NO_NODE) | (call[following] == made["call"].to_numpy())
    at = np.where(node != NO_NODE, node, following)[counts]
    waits = executions[["name", "op_type", "provider"]].astype(object).iloc[at].reset_index(drop=True)
    waits["place"] = np.where(node != NO_NODE, "in", "before")[counts]
    waits["wait_ns"] = (ends - starts)[counts]
    summed = waits.groupby(_KEY, dropna=False)["wait_ns"].agg(["sum", "size"])
    per_call: pd.DataFrame = (summed / max(nodes.calls, 1)).set_axis(["wait_ns", "waits"], axis=1)
    return per_call.reset_index().sort_values("wait_ns", ascending=False, ignore_index=True)
