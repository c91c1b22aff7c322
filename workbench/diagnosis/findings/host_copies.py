"""Copies between host and device of the measured calls, by what they carry, and how much of T they hold."""

from __future__ import annotations

import pandas as pd

from workbench.diagnosis.findings.finding import Case

_KEY = ["carries", "kind", "source", "target", "copy_bytes"]


def host_copies(case: Case) -> pd.DataFrame:
    """One row per input, output or node, direction and size, the longest first.

    Columns: `carries` (`input x`, `output y`, the node's name, or null where the source does not say), `kind` (h2d or
    d2h), `source` and `target` memory, `copy_bytes` of one copy; per call `copies`, `bytes` and `time_ns`;
    `bytes_per_s`; `at_border` (carries an input or output of the graph; null where nodes were not recorded, so that it
    is not known).
    """
    nodes = case.diagnosis.nodes
    if not case.on_gpu or nodes is None or not len(case.device):
        none = pd.DataFrame(columns=[*_KEY, "copies", "bytes", "time_ns", "bytes_per_s", "at_border"])
        return none.astype({"at_border": "boolean"})
    copies = case.device[case.device["host_copy"]]
    memory = case.run.table("copies", ["source", "target"]).loc[copies["row"].to_numpy()]
    table = pd.DataFrame(
        {
            "carries": copies["carries"].to_numpy(object),
            "kind": copies["kind"].to_numpy(object),
            "source": memory["source"].to_numpy(object),
            "target": memory["target"].to_numpy(object),
            "copy_bytes": copies["bytes"].to_numpy(),
            "bytes": copies["bytes"].to_numpy(),
            "time_ns": (copies["end_ns"] - copies["start_ns"]).to_numpy(),
        }
    )
    table["at_border"] = table["carries"].notna()
    of_node = copies["node"].to_numpy()
    inside = of_node >= 0
    table.loc[inside, "carries"] = nodes.executions["name"].astype(str).to_numpy(object)[of_node[inside]]
    groups = table.groupby([*_KEY, "at_border"], dropna=False, sort=False)
    found = groups[["bytes", "time_ns"]].sum() / case.calls
    found.insert(0, "copies", groups.size() / case.calls)
    found["bytes_per_s"] = found["bytes"] / found["time_ns"].where(found["time_ns"] > 0) * 1e9
    found = found.reset_index().astype({"at_border": "boolean"})
    if not len(nodes.executions):
        found["at_border"] = pd.array([pd.NA] * len(found), "boolean")
    return found.sort_values("time_ns", ascending=False, ignore_index=True)


def exposed_ns(case: Case, time_ns: float, all_copies: pd.DataFrame) -> float | None:
    """The part of T that copies of so much time hold: their part of the exposed copies |X|; None where |X| is unknown.

    all_copies: as `host_copies` gives them. Copies of one run overlap kernels alike, so that |X| is shared out by time.
    """
    pieces, whole = case.diagnosis.pieces, float(all_copies["time_ns"].sum())
    if pieces is None or not whole:
        return None
    return min(float(pieces.exposed_copies) * time_ns / whole, case.latency_ns)
