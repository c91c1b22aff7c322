"""The device waits for launches that the host makes only after the previous work has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.levers import lever
from workbench.diagnosis.passes import detailed_pass

RULE: Final = "host-late"
LEAST_SHARE: Final = 0.10
"""Of T in which the device waits for the host; every run has a few per cent at the begin and the end of a call."""
CURE: Final = "cuda-graph"
_OUTSIDE: Final = "outside every node"


def rule(case: Case) -> Iterator[Finding]:
    """The share is that of the diagnosis; which nodes the gaps come before is read from the pass that saw nodes."""
    pieces = case.diagnosis.pieces
    if not case.on_gpu or pieces is None or pieces.host < LEAST_SHARE * case.latency_ns or _replays(case):
        return
    gaps = late_gaps(case)
    if not len(gaps):
        return
    half = int((gaps["gaps_fraction"].cumsum() < 0.5).sum()) + 1
    first = gaps.iloc[0]
    said = (
        f"The device waits {pieces.host / 1e6:.3g} ms of each call ({100 * pieces.host / case.latency_ns:.0f} %) for "
        f"launches that come after it went idle; {half} of {len(gaps)} nodes are behind half of the gaps, first "
        f"{first['name']!r} ({100 * first['gaps_fraction']:.0f} %)."
    )
    why_not = lever(CURE).why_not(case.situation)
    remedy = (
        "Replay a CUDA graph, in which nothing waits for the host."
        if why_not is None
        else f"Launch less and earlier: fewer and larger nodes, a larger batch. A CUDA graph is no help here: {why_not}"
    )
    yield Finding.of(
        RULE, said, remedy, gaps, lever=CURE if why_not is None else None,
        saves_ns=min(float(pieces.host), case.latency_ns),
    )  # fmt: skip


def _replays(case: Case) -> bool:
    """Whether calls replay a CUDA graph, by configuration or trace: only its one launch could then be late."""
    nodes = case.diagnosis.nodes
    traced = case.diagnosis.traced.get("replay_ns", 0.0) > 0
    return case.config.cuda_graph or traced or (nodes is not None and bool(nodes.executions["replayed"].any()))


def late_gaps(case: Case) -> pd.DataFrame:
    """One row per node before whose work the device idled until the launch, the largest gaps first.

    Columns: `name`, `op_type`, `provider`, `traced_gap_ns` per call, which the profiler of that pass stretches, `gaps`
    per call, and `gaps_fraction`, the part of all such gaps.
    """
    work = case.device
    if not len(work) or not case.calls or case.diagnosis.nodes is None or not len(case.nodes):
        return pd.DataFrame()
    executions = case.diagnosis.nodes.executions[["name", "op_type", "provider"]].astype(object)
    pass_name = detailed_pass(case.manifest) or ""
    table = case.run.latency
    begins = table[table["pass"] == pass_name].set_index("call")["start_ns"]
    starts, ends, launches = (work[name].to_numpy(np.int64) for name in ("start_ns", "end_ns", "launch_ns"))
    begun = work["call"].map(begins).to_numpy(np.int64)
    idle_from = np.maximum(begun, np.concatenate((begun[:1], np.maximum.accumulate(ends)[:-1])))
    late = (starts > idle_from) & (launches > idle_from)
    nodes = executions.reindex(work["node"].to_numpy()[late]).reset_index(drop=True)
    nodes["name"] = nodes["name"].fillna(_OUTSIDE)
    nodes["traced_gap_ns"] = (starts - idle_from)[late]
    found = nodes.groupby(["name", "op_type", "provider"], dropna=False)["traced_gap_ns"].agg(["sum", "size"])
    per_call = (found / case.calls).set_axis(["traced_gap_ns", "gaps"], axis=1)
    per_call["gaps_fraction"] = per_call["traced_gap_ns"] / per_call["traced_gap_ns"].sum()
    return per_call.reset_index().sort_values("traced_gap_ns", ascending=False, ignore_index=True)
