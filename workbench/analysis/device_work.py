"""All device work of one pass in one table, and what each call spent on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
import pandas as pd

from workbench.analysis.gaps import UNKNOWN_LAUNCH, split_idle
from workbench.analysis.intervals import difference, union

HOST_COPIES: Final = ("h2d", "d2h")
_COLUMNS: Final = ("call", "start_ns", "end_ns", "device", "stream", "correlation")


class Tables(Protocol):
    """Anything that gives the tables of a run by name."""

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table with its declared columns, or with those chosen; empty when the run lacks it."""


def rows_of(run: Tables, name: str, pass_name: str) -> pd.DataFrame:
    """The rows of one table that one pass recorded."""
    table = run.table(name)
    return table[table["pass"] == pass_name]


def measured_calls(run: Tables, pass_name: str) -> pd.DataFrame:
    """Rows of `latency`: the measured calls of one pass, in order."""
    calls = rows_of(run, "latency", pass_name)
    return calls[calls["phase"] == "measured"].sort_values("call")


def device_work(run: Tables, pass_name: str) -> pd.DataFrame:
    """Kernels, copies, memsets and graph replays of one pass, by start time.

    Columns: `table`, `row` (index label in that table), `call`, `start_ns`, `end_ns`, `device`, `stream`,
    `correlation`, `name` (kernels), `kind` and `bytes` (copies), and `host_copy` (crosses between host and device).
    """
    parts = []
    for name in ("kernels", "copies", "memsets", "graphs"):
        rows = rows_of(run, name, pass_name)
        part = rows[[*_COLUMNS]].assign(table=name, row=rows.index)
        part["name"] = rows.get("name", None)
        part["kind"] = rows.get("kind", None)
        part["bytes"] = rows["bytes"].astype("Int64") if "bytes" in rows else pd.array([pd.NA] * len(rows), "Int64")
        parts.append(part)
    work = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    work["host_copy"] = work["kind"].isin(HOST_COPIES)
    return work.sort_values("start_ns", kind="stable", ignore_index=True)


def call_times(run: Tables, pass_name: str) -> pd.DataFrame:
    """What each measured call of a traced pass spent, in int64 nanoseconds; index `call`.

    wall_ns: the call. work_ns: union of kernels, memsets, device-side copies and graph replays, |K|. copy_ns: union of
    host-device copies, |C|. exposed_copy_ns: |C outside K|. host_ns, launch_latency_ns, sync_ns: the idle time by cause
    (`workbench.analysis.gaps`). replay_ns: the part of work_ns that is graph replay. Work, exposed copies and the three
    causes sum to wall_ns. Unions are taken inside the call.
    """
    work = device_work(run, pass_name)
    calls_made = rows_of(run, "launches", pass_name)
    launch_of = calls_made.drop_duplicates("correlation").set_index("correlation")["start_ns"]
    work["launch_ns"] = launch_of.reindex(work["correlation"]).fillna(UNKNOWN_LAUNCH).to_numpy(np.int64)
    waiting = calls_made[calls_made["name"].str.contains("Synchronize", na=False)]
    syncs = union(waiting["start_ns"].to_numpy(), waiting["end_ns"].to_numpy())
    by_call = dict(iter(work.groupby("call")))
    rows = {}
    for call, start, duration in measured_calls(run, pass_name)[["call", "start_ns", "duration_ns"]].itertuples(
        index=False
    ):
        mine = by_call.get(call, work.iloc[:0])
        end = start + duration
        begins, ends = mine["start_ns"].to_numpy(np.int64), np.minimum(mine["end_ns"].to_numpy(np.int64), end)
        crossing = mine["host_copy"].to_numpy(bool)
        replays = (mine["table"] == "graphs").to_numpy()
        kernels = union(begins[~crossing], ends[~crossing])
        copies = union(begins[crossing], ends[crossing])
        idle = split_idle((start, end), union(begins, ends), begins, mine["launch_ns"].to_numpy(), syncs)
        rows[call] = {
            "wall_ns": duration,
            "work_ns": kernels.length_ns,
            "copy_ns": copies.length_ns,
            "exposed_copy_ns": difference(copies, kernels).length_ns,
            "host_ns": idle.host_ns,
            "launch_latency_ns": idle.launch_latency_ns,
            "sync_ns": idle.sync_ns,
            "replay_ns": union(begins[replays], ends[replays]).length_ns,
        }
    return pd.DataFrame.from_dict(rows, orient="index", dtype="int64").rename_axis("call")
