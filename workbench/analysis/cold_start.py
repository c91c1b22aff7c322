"""The cold start, step by step: what each step took bare, and what the traced pass saw happen in the same step."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.call_windows import connected
from workbench.analysis.device_work import contains, device_work
from workbench.analysis.intervals import Intervals, Nanoseconds, overlap_ns, union
from workbench.analysis.tables import Tables, measured_calls, rows_of
from workbench.runs.schema import AGAIN

_BARE: Final = "latency"
_TRACED: Final = "activity"
_FIRST_CALL: Final = "first call"
_ALLOCATING: Final = ("alloc", "Alloc", "Free")  # cudaMalloc, cudaMallocAsync, cudaHostAlloc, cudaFree, …
_OF_CALLS: Final = ["work_ns", "kernels"]  # what a first call is compared in with a usual one


def cold_start(run: Tables) -> pd.DataFrame:
    """One row per step of the cold start, in order; index `step`, columns Int64, null where the source is missing.

    Bare, from the table `steps`:
    duration_ns: the step. usual_ns: the same call once nothing is new to it: for `first call` the median of the
    measured calls, for `shape n` its second call, which has no row of its own. beyond_usual_ns: their difference, which
    is what the call cost once.

    From the same step of the activity pass, which tracing stretches:
    traced_ns: the step. loading_ns: CUDA loaded or compiled code. allocation_ns: host calls that allocate or free.
    device_ns: kernels, copies, memsets and graph replays. Each of these is a union inside the step, and they overlap
    one another. other_ns: what none of the three covers, such as the creation of the session, the choice of algorithms
    and launches; null unless all three are known. work_beyond_usual_ns, kernels_beyond_usual: device work but for
    copies between host and device, and number of kernels, less those of the usual call. An algorithm search that times
    its candidates on the device shows here, one that asks a heuristic takes host time alone. Kernels are not counted
    where the replay of a graph hides them.

    A median is the lower one of two, so that it is a time that occurred. Nothing is compared with measured calls that
    overlap, since each of these waits for others.
    """
    steps = rows_of(run, "steps", _BARE)[["name", "duration_ns"]].dropna().drop_duplicates("name")
    bare = pd.Series(steps["duration_ns"].to_numpy(np.int64), steps["name"].to_numpy(object), "Int64")
    names = [name for name in bare.index if not name.endswith(AGAIN)]
    usual = _usual(bare, _median(measured_calls(run, _BARE), "duration_ns"), names)
    traced, calls = _traced(run, bare.index.to_list())
    beyond = {of: traced.loc[names, of] - _usual(traced[of], _median(calls, of), names) for of in _OF_CALLS}
    table = pd.DataFrame({"duration_ns": bare[names], "usual_ns": usual, "beyond_usual_ns": bare[names] - usual})
    table = table.join(traced.drop(columns=_OF_CALLS))
    table["work_beyond_usual_ns"], table["kernels_beyond_usual"] = beyond["work_ns"], beyond["kernels"]
    return table.rename_axis("step")


def _usual(values: pd.Series, of_calls: int | None, names: list[str]) -> pd.Series:
    """What stands against each step: the second call of its shape, or the median of the measured calls."""
    found = values.reindex([f"{name}{AGAIN}" for name in names]).set_axis(pd.Index(names, dtype=object))
    return found.where(found.index != _FIRST_CALL, pd.NA if of_calls is None else of_calls)


def _median(calls: pd.DataFrame, column: str) -> int | None:
    """The lower median over calls, which have start_ns and duration_ns; None for none, unknown or overlapping ones."""
    if not len(calls) or calls[column].isna().any():
        return None
    starts, durations = calls.sort_values("start_ns")[["start_ns", "duration_ns"]].to_numpy(np.int64).T
    windows, _ = connected(starts, starts + durations)
    return int(calls[column].quantile(interpolation="lower")) if len(windows.starts) == len(calls) else None


def _traced(run: Tables, names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the activity pass saw, Int64: in each step by name (null for one it did not make), and in measured calls."""
    ranges = rows_of(run, "ranges", _TRACED, ("name", "start_ns", "end_ns")).astype({"name": object})
    steps = ranges[ranges["name"].isin(names)].dropna().drop_duplicates("name")
    calls = measured_calls(run, _TRACED)
    call_starts = calls["start_ns"].to_numpy(np.int64)
    starts = np.concatenate((steps["start_ns"].to_numpy(np.int64), call_starts))
    ends = np.concatenate((steps["end_ns"].to_numpy(np.int64), call_starts + calls["duration_ns"].to_numpy(np.int64)))
    seen = _seen(run, starts, ends)
    of_steps = seen.iloc[: len(steps)].set_axis(pd.Index(steps["name"], dtype=object)).reindex(names)
    of_calls = seen.iloc[len(steps) :][_OF_CALLS].set_axis(calls.index).join(calls[["start_ns", "duration_ns"]])
    return of_steps, of_calls


def _seen(run: Tables, starts: Nanoseconds, ends: Nanoseconds) -> pd.DataFrame:
    """What the activity pass saw inside each window, in columns named as those of `cold_start`.

    A kind of which the whole pass holds no row was not recorded: its columns are null.
    """
    loads = rows_of(run, "loads", _TRACED, ("start_ns", "end_ns"))
    launches = rows_of(run, "launches", _TRACED, ("start_ns", "end_ns", "name"))
    allocations = launches[np.logical_or.reduce([contains(launches["name"], part) for part in _ALLOCATING])]
    device = device_work(run, _TRACED, ("start_ns", "end_ns"))
    covers = {
        "loading_ns": _union(loads) if len(loads) else None,
        "allocation_ns": _union(allocations) if len(launches) else None,
        "device_ns": _union(device) if len(device) else None,
    }
    known = [cover for cover in covers.values() if cover is not None]
    anything = union(*map(np.concatenate, zip(*known, strict=True))) if len(known) == len(covers) else None
    seen = pd.DataFrame({"traced_ns": ends - starts}, dtype="Int64")
    for name, cover in covers.items():
        seen[name] = _inside(cover, starts, ends)
    seen["other_ns"] = seen["traced_ns"] - _inside(anything, starts, ends)
    seen["work_ns"] = _inside(_union(device[~device["host_copy"]]) if len(device) else None, starts, ends)
    kernels, replays = (_count(device[device["table"] == name], starts, ends) for name in ("kernels", "graphs"))
    seen["kernels"] = pd.Series(kernels, dtype="Int64").where((replays == 0) & (len(device) > 0))
    return seen


def _union(rows: pd.DataFrame) -> Intervals:
    return union(rows["start_ns"], rows["end_ns"])


def _inside(cover: Intervals | None, starts: Nanoseconds, ends: Nanoseconds) -> pd.Series:
    """How much of each window the cover takes, Int64; null where nothing recorded it."""
    return pd.Series(pd.NA if cover is None else overlap_ns(starts, ends, cover), range(len(starts)), "Int64")


def _count(rows: pd.DataFrame, starts: Nanoseconds, ends: Nanoseconds) -> NDArray[np.int64]:
    """How many rows, which are in the order of time, begin in each window."""
    begins = rows["start_ns"].to_numpy(np.int64)
    return np.searchsorted(begins, ends) - np.searchsorted(begins, starts)
