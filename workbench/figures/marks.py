"""From the tables of a traced pass to the marks of a timeline, and fewer of them where there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from workbench.analysis.intervals import clip, union
from workbench.analysis.node_times import NodeTimes, cpu_limits
from workbench.figures.classes import CLASS_OF_LIMIT
from workbench.figures.theme import shorten
from workbench.figures.units import format_bytes, format_bytes_per_s

DEVICE_LANES: Final = ("kernels", "copies to device", "copies to host", "memsets, device copies", "graph replays")
LANES: Final = ("calls", "nodes", "host calls", "synchronisation", *DEVICE_LANES)
_COPY_LANES: Final = {"h2d": "copies to device", "d2h": "copies to host"}
_SINGULAR: Final = {"copies": "copy", "memsets": "memset", "graphs": "graph replay"}
_NODE_KEY: Final = ["node_index", "name", "op_type"]
COLUMNS: Final = ["lane", "start_ns", "end_ns", "name", "detail", "class", "count", "busy"]


def timeline_marks(
    calls: pd.DataFrame, nodes: NodeTimes, launches: pd.DataFrame, syncs: pd.DataFrame, *, device_kind: str
) -> pd.DataFrame:
    """Marks inside `calls` (rows of `latency`), one per row of the tables: the columns `COLUMNS`.

    launches, syncs: rows of the same pass. `class` is the class that a mark is coloured by; calls have none. `count` is
    1 and `busy` 1.0 until marks are merged.
    """
    chosen = calls["call"]
    executions = nodes.executions[nodes.executions["call"].isin(chosen)]
    device = nodes.device[nodes.device["call"].isin(chosen)]
    parts = [
        _part("calls", calls, name=[f"call {call}" for call in chosen], classes=None),
        _node_marks(executions, nodes.nodes, device_kind),
        _host_marks(launches[launches["call"].isin(chosen)], device),
        _part("synchronisation", (waits := syncs[syncs["call"].isin(chosen)]), name=waits["kind"], classes="sync"),
        _device_marks(device, nodes.executions),
    ]
    marks = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return marks.sort_values("start_ns", kind="stable", ignore_index=True)[COLUMNS]


def merge_marks(marks: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most about `most` marks: in a lane with too many, neighbours that begin in the same bin of time become one.

    A merged mark reaches from the first start to the last end; `count` says how many it holds, `busy` which fraction
    of it they cover, `name` and `class` what covers the most.
    """
    if len(marks) <= most:
        return marks
    budget = max(most // marks["lane"].nunique(), 1)
    lanes = [rows if len(rows) <= budget else _merge_lane(rows, budget) for _, rows in marks.groupby("lane")]
    return pd.concat(lanes, ignore_index=True).sort_values("start_ns", kind="stable", ignore_index=True)


def busy_fraction(marks: pd.DataFrame, lanes: tuple[str, ...]) -> float:
    """Fraction of the calls that marks of these lanes cover."""
    covering = marks[marks["lane"].isin(lanes)]
    covered = union(covering["start_ns"], covering["end_ns"])
    calls = marks.loc[marks["lane"] == "calls", ["start_ns", "end_ns"]].to_numpy(np.int64)
    return sum(clip(covered, start, end).length_ns for start, end in calls) / int((calls[:, 1] - calls[:, 0]).sum())


def _part(
    lane: str,
    rows: pd.DataFrame,
    *,
    classes: Any,
    name: Sequence[str] | pd.Series | None = None,
    detail: Sequence[str] | str = "",
) -> pd.DataFrame:
    ends = rows["end_ns"] if "end_ns" in rows else rows["start_ns"] + rows["duration_ns"]
    columns = {
        "lane": lane,
        "start_ns": rows["start_ns"].to_numpy(np.int64),
        "end_ns": ends.to_numpy(np.int64),
        "name": rows["name"].to_numpy() if name is None else list(name),
        "detail": detail,
        "class": classes,
        "count": 1,
        "busy": 1.0,
    }
    return pd.DataFrame(columns, index=range(len(rows)))


def _host_marks(launches: pd.DataFrame, device: pd.DataFrame) -> pd.DataFrame:
    """Host calls by what they are for: a blocking copy or synchronisation is no launch overhead."""
    copying = launches["correlation"].isin(device.loc[device["host_copy"].astype(bool), "correlation"])
    waiting = launches["name"].str.contains("Synchronize")
    classes = np.where(copying, "pcie", np.where(waiting, "sync", "launch"))
    return _part("host calls", launches, classes=classes)


def _node_marks(executions: pd.DataFrame, nodes: pd.DataFrame, device_kind: str) -> pd.DataFrame:
    """Nodes by the limit of their device time; on a CPU, of the execution itself."""
    if device_kind == "cpu":
        limits = pd.Series(cpu_limits(executions), dtype=object)
    else:
        limits = executions[_NODE_KEY].merge(nodes[[*_NODE_KEY, "limit"]], on=_NODE_KEY, how="left")["limit"]
    provider = executions["provider"].str.removesuffix("ExecutionProvider")
    shown = zip(executions["op_type"], provider, limits, strict=True)
    detail = [f"{op} on {where}, {limit}" for op, where, limit in shown]
    return _part("nodes", executions, detail=detail, classes=limits.map(CLASS_OF_LIMIT).to_numpy())


def _device_marks(device: pd.DataFrame, executions: pd.DataFrame) -> pd.DataFrame:
    kind, table = device["kind"], device["table"]
    lane = kind.map(_COPY_LANES).where(table == "copies").fillna("memsets, device copies")
    lane = lane.mask(table == "kernels", "kernels").mask(table == "graphs", "graph replays")
    classes = device["limit"].map(CLASS_OF_LIMIT).mask(device["host_copy"].astype(bool), "pcie")
    names = device["name"].where(table == "kernels", table.map(_SINGULAR))
    owner = device["node"].map(executions["name"].astype(object)).fillna("no node")  # `NO_NODE` is no row, so that it has no name
    carrier = device["carries"].where(device["carries"].notna(), owner)
    duration_ns = (device["end_ns"] - device["start_ns"]).to_numpy(np.float64)
    detail = [
        _device_detail(*row)
        for row in zip(table, carrier, device["limit"], device["bytes"], kind, duration_ns, strict=True)
    ]
    marks = _part("", device, name=names, detail=detail, classes=classes.to_numpy())
    return marks.assign(lane=lane.to_numpy())


def _device_detail(table: str, carrier: str, limit: Any, size: Any, kind: Any, duration_ns: float) -> str:
    if table == "kernels":
        return f"of {shorten(carrier)}, {limit}"
    if table == "graphs":
        return ""
    amount = format_bytes(float(size))
    if table == "memsets":
        return f"{amount} of {shorten(carrier)}"
    return f"{kind}, {amount} of {shorten(carrier)} at {format_bytes_per_s(float(size) / duration_ns * 1e9)}"


def _merge_lane(rows: pd.DataFrame, budget: int) -> pd.DataFrame:
    first, last = int(rows["start_ns"].min()), int(rows["start_ns"].max())
    width = (last - first) // budget + 1
    merged = []
    for _, group in rows.groupby((rows["start_ns"] - first) // width):
        if len(group) == 1:
            merged.append(group.iloc[0].to_dict())
            continue
        length = group["end_ns"] - group["start_ns"]
        start, end = int(group["start_ns"].min()), int(group["end_ns"].max())
        by_name, by_class = (length.groupby(group[column].fillna("")).sum() for column in ("name", "class"))
        merged.append(
            {
                "lane": group["lane"].iloc[0],
                "start_ns": start,
                "end_ns": end,
                "name": by_name.idxmax(),
                "detail": "",
                "class": by_class.idxmax() or None,
                "count": int(group["count"].sum()),
                "busy": union(group["start_ns"], group["end_ns"]).length_ns / max(end - start, 1),
            }
        )
    return pd.DataFrame(merged, columns=COLUMNS)
