"""From the tables of a traced pass to the marks of a timeline, and fewer of them where there are too many."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from workbench.analysis.device_work import contains
from workbench.analysis.intervals import clip, union
from workbench.analysis.level_lane import MERGED
from workbench.analysis.levels import Rows, build_levels
from workbench.analysis.node_times import NodeTimes, cpu_limits
from workbench.analysis.spans import depths
from workbench.figures.classes import CLASS_OF_LIMIT
from workbench.figures.theme import shorten
from workbench.figures.units import format_bytes, format_bytes_per_s

DEVICE_LANES: Final = ("kernels", "copies to device", "copies to host", "memsets, device copies", "graph replays")
RANGE_LANES: Final = ("ranges", "ranges, depth 2", "ranges, depth 3 and deeper")
LANES: Final = ("calls", *RANGE_LANES, "nodes", "host calls", "synchronisation", *DEVICE_LANES)
_COPY_LANES: Final = {"h2d": "copies to device", "d2h": "copies to host"}
_SINGULAR: Final = {"copies": "copy", "memsets": "memset", "graphs": "graph replay"}
_NODE_KEY: Final = ["node_index", "name", "op_type"]
_FACTS: Final = ["table", "of", "limit", "kind", "bytes"]
"""What `details` makes its words from, once it is known which few marks are drawn; null where it does not apply."""
COLUMNS: Final = ["lane", "start_ns", "end_ns", "name", "class", "count", "busy", *_FACTS]


def timeline_marks(
    calls: pd.DataFrame,
    nodes: NodeTimes,
    launches: pd.DataFrame,
    syncs: pd.DataFrame,
    ranges: pd.DataFrame,
    *,
    device_kind: str,
) -> pd.DataFrame:
    """Marks inside `calls` (rows of `latency`), one per row of the tables, by start: the columns `COLUMNS`.

    launches, syncs, ranges: rows of the same pass; of the ranges, those that NVTX recorded inside a call are drawn.
    `class` is the class that a mark is coloured by; calls and ranges have none. `count` is 1 and `busy` 1.0 until marks
    are merged; `details` says more about a mark of one.
    """
    chosen = calls["call"]
    executions = nodes.executions[nodes.executions["call"].isin(chosen)]
    executions = executions[~executions["replayed"]]  # the host did nothing for these
    device = nodes.device[nodes.device["call"].isin(chosen)]
    parts = [
        _part("calls", calls, name=[f"call {call}" for call in chosen], classes=None),
        *_range_marks(ranges, calls),
        _node_marks(executions, nodes.nodes, device_kind),
        _host_marks(launches[launches["call"].isin(chosen)], device),
        _part("synchronisation", (waits := syncs[syncs["call"].isin(chosen)]), name=waits["kind"], classes="sync"),
        _device_marks(device, nodes.executions),
    ]
    marks = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    return marks.sort_values("start_ns", kind="stable", ignore_index=True)[COLUMNS]


def _range_marks(ranges: pd.DataFrame, calls: pd.DataFrame) -> list[pd.DataFrame]:
    """NVTX ranges by depth. The worker's own log has no kind; what reaches over a whole call only repeats it."""
    chosen = ranges[ranges["kind"].notna() & ranges["call"].isin(calls["call"])]
    ends = (calls["start_ns"] + calls["duration_ns"]).set_axis(calls["call"])
    starts = calls.set_index("call")["start_ns"]
    inside = (chosen["end_ns"] <= chosen["call"].map(ends)) & (chosen["start_ns"] >= chosen["call"].map(starts))
    whole = (chosen["end_ns"] == chosen["call"].map(ends)) & (chosen["start_ns"] == chosen["call"].map(starts))
    chosen = chosen[inside & ~whole]
    depth = np.minimum(depths(chosen["start_ns"].to_numpy(), chosen["end_ns"].to_numpy()), len(RANGE_LANES) - 1)
    return [_part(lane, chosen[depth == at], classes=None) for at, lane in enumerate(RANGE_LANES)]


def merge_marks(marks: pd.DataFrame, pixels: int, most: int) -> pd.DataFrame:
    """At most `most` of these marks, which are by start, or one for each lane. pixels: from the first mark to the last.

    In a lane with too many, what lies in the same bin of time becomes one mark, from its first busy moment to its last;
    `count` says how many it holds, `busy` which fraction of it they cover, `name` and `class` what covers the most.
    """
    if len(marks) <= most:
        return marks
    names, texts = pd.factorize(marks["name"].fillna("unnamed"))
    classes, known = pd.factorize(marks["class"], use_na_sentinel=False)
    by_lane = {str(lane): rows for lane, rows in marks.groupby("lane", sort=False).indices.items()}
    starts, ends = marks["start_ns"].to_numpy(np.int64), marks["end_ns"].to_numpy(np.int64)
    levels = build_levels(
        [
            Rows(lane, lane, starts[rows], ends[rows], names[rows].astype(np.int32), classes[rows].astype(np.int32))
            for lane, rows in by_lane.items()
        ],
        [str(name) for name in texts],
        [None if pd.isna(name) else str(name) for name in known],
    )
    drawn = levels.window(levels.start_ns, levels.end_ns + 1, pixels, most)
    several = drawn["row"] == MERGED
    drawn["busy"] = (drawn["busy_ns"] / (drawn["end_ns"] - drawn["start_ns"]).clip(lower=1)).where(several, 1.0)
    of_lanes = np.concatenate(list(by_lane.values()))  # row of `marks`, lane by lane
    before = np.cumsum([0, *(len(rows) for rows in by_lane.values())])
    row = of_lanes[before[drawn["lane"]] + drawn["row"].clip(lower=0)]
    drawn[_FACTS] = marks[_FACTS].iloc[row].reset_index(drop=True).where(~several)
    drawn["lane"] = drawn["lane"].map(dict(enumerate(by_lane)))
    return drawn.sort_values("start_ns", kind="stable", ignore_index=True)[COLUMNS]


def details(marks: pd.DataFrame) -> list[str]:
    """The second line about each mark: what it belongs to, its limit, its size; empty where there is no more to say."""
    facts = marks[_FACTS].astype(object).where(marks[_FACTS].notna(), None)
    facts["length_ns"] = (marks["end_ns"] - marks["start_ns"]).astype(object)
    return [_detail(*row) for row in facts.to_numpy(object)]


def busy_fraction(marks: pd.DataFrame, lanes: tuple[str, ...]) -> float:
    """Fraction of the calls that marks of these lanes cover."""
    covering = marks[marks["lane"].isin(lanes)]
    covered = union(covering["start_ns"], covering["end_ns"])
    calls = marks.loc[marks["lane"] == "calls", ["start_ns", "end_ns"]].to_numpy(np.int64)
    return sum(clip(covered, start, end).length_ns for start, end in calls) / int((calls[:, 1] - calls[:, 0]).sum())


def _part(lane: Any, rows: pd.DataFrame, *, classes: Any, name: Any = None, **facts: Any) -> pd.DataFrame:
    ends = rows["end_ns"] if "end_ns" in rows else rows["start_ns"] + rows["duration_ns"]
    columns = {
        "lane": lane,
        "start_ns": rows["start_ns"].to_numpy(np.int64),
        "end_ns": ends.to_numpy(np.int64),
        "name": np.asarray(rows["name"] if name is None else name, object),
        "class": classes,
        "count": 1,
        "busy": 1.0,
        **dict.fromkeys(_FACTS),
        **facts,
    }
    return pd.DataFrame(columns, index=range(len(rows)))


def _host_marks(launches: pd.DataFrame, device: pd.DataFrame) -> pd.DataFrame:
    """Host calls by what they are for: a blocking copy or synchronisation is no launch overhead."""
    copying = launches["correlation"].isin(device.loc[device["host_copy"].astype(bool), "correlation"])
    waiting = contains(launches["name"], "Synchronize")
    classes = np.where(copying, "pcie", np.where(waiting, "sync", "launch"))
    return _part("host calls", launches, classes=classes)


def _node_marks(executions: pd.DataFrame, nodes: pd.DataFrame, device_kind: str) -> pd.DataFrame:
    """Nodes by the limit of their device time; on a CPU, of the execution itself."""
    if device_kind == "cpu":
        limits = pd.Series(cpu_limits(executions), dtype=object)
    else:
        limits = executions[_NODE_KEY].merge(nodes[[*_NODE_KEY, "limit"]], on=_NODE_KEY, how="left")["limit"]
    provider = executions["provider"].astype(object).str.removesuffix("ExecutionProvider")
    place = (executions["op_type"].astype(object) + " on " + provider).to_numpy()
    classes = limits.map(CLASS_OF_LIMIT).to_numpy()
    return _part("nodes", executions, classes=classes, table="nodes", of=place, limit=limits.to_numpy())


def _device_marks(device: pd.DataFrame, executions: pd.DataFrame) -> pd.DataFrame:
    # as objects, since each column gets words that are none of its categories
    table, kind, limit, name = (device[each].astype(object) for each in ("table", "kind", "limit", "name"))
    lane = kind.map(_COPY_LANES).where(table == "copies").fillna("memsets, device copies")
    lane = lane.mask(table == "kernels", "kernels").mask(table == "graphs", "graph replays")
    # `NO_NODE` is no row, so that it has no name
    owner = device["node"].map(executions["name"].astype(object)).astype(object).fillna("no node")
    return _part(
        lane.to_numpy(),
        device,
        classes=limit.map(CLASS_OF_LIMIT).mask(device["host_copy"].astype(bool), "pcie").to_numpy(),
        name=name.where(table == "kernels", table.map(_SINGULAR)),
        table=table.to_numpy(),
        of=device["carries"].where(device["carries"].notna(), owner).to_numpy(),
        limit=limit.to_numpy(),
        kind=kind.to_numpy(),
        bytes=device["bytes"].to_numpy(object),
    )


def _detail(
    table: str | None, of: str | None, limit: str | None, kind: str | None, size_bytes: int | None, length_ns: int
) -> str:
    if table == "nodes":
        return f"{of}, {limit}"
    if table == "kernels":
        return f"of {shorten(of)}, {limit}"
    if table not in ("copies", "memsets"):
        return ""
    moved = f"{format_bytes(size_bytes)} of {shorten(of)}"
    if table == "memsets":
        return moved
    rate = None if size_bytes is None or not length_ns else size_bytes / length_ns * 1e9
    return f"{kind}, {moved} at {format_bytes_per_s(rate)}"
