"""What the traced calls of a GPU run spent, cut where a lever cuts: at the ends of the call and beside host copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.call_windows import connected
from workbench.analysis.device_work import call_times, device_work
from workbench.analysis.filling import LAUNCH_CONFIGURATION, filling
from workbench.analysis.intervals import Intervals, difference, union
from workbench.analysis.tables import Tables, measured_calls
from workbench.diagnosis.passes import ACTIVITY_PASS, detailed_pass
from workbench.diagnosis.result import Diagnosis
from workbench.runs.reader import RunFolder

Calls = NDArray[np.float64]


@dataclass(frozen=True)
class CallTrace:
    """Nanoseconds of each traced call, float64[calls] each, on the trace's own clock and not brought into line with T.

    work: |K|. exposed_copies: |X|. outer_idle: idle time before the first and after the last work and beside copies
    between host and device. inner_idle: idle time between pieces of work that copy nothing to or from the host.

    pieces: launches per call that put work on the device, host copies left out. border_copies: one row per copy and
    call that carries an input or output of the graph, with `kind`, `bytes` and `duration_ns`. border_fraction: fraction
    of the time of all host copies that these take, None where nodes were not recorded and it is not known.
    under_filled: one row per under-filled kernel and call, with `own_ns` and `waves` (NaN where not known).
    node_calls: calls that the two tables are of.
    """

    work: Calls
    exposed_copies: Calls
    outer_idle: Calls
    inner_idle: Calls
    pieces: float
    border_copies: pd.DataFrame
    border_fraction: float | None
    under_filled: pd.DataFrame
    node_calls: int


def trace_calls(run: RunFolder, diagnosis: Diagnosis) -> CallTrace | None:
    """Cut the calls of a run; None where no pass recorded what the device did."""
    nodes = diagnosis.nodes
    pass_name = _traced_pass(run)
    if nodes is None or pass_name is None:
        return None
    times = call_times(run, pass_name)
    outer, inner, pieces = cut_idle(run, pass_name)
    host_copies = nodes.device[nodes.device["host_copy"]]
    copy_ns = (host_copies["end_ns"] - host_copies["start_ns"]).astype("int64")
    at_border = host_copies["carries"].notna().to_numpy()
    known = len(nodes.executions) > 0
    return CallTrace(
        work=times["work_ns"].to_numpy(np.float64),
        exposed_copies=times["exposed_copy_ns"].to_numpy(np.float64),
        outer_idle=outer,
        inner_idle=inner,
        pieces=pieces,
        border_copies=host_copies[["kind", "bytes"]].assign(duration_ns=copy_ns)[at_border],
        border_fraction=float(copy_ns[at_border].sum() / copy_ns.sum()) if known and copy_ns.sum() else None,
        under_filled=_under_filled(run, diagnosis),
        node_calls=max(nodes.calls, 1),
    )


def _traced_pass(run: RunFolder) -> str | None:
    """The pass with the least attached that recorded device work."""
    for name in (ACTIVITY_PASS, detailed_pass(run.manifest)):
        info = run.manifest.passes.get(name or "")
        if info is not None and info.state == "complete" and len(measured_calls(run, info.name)):
            return info.name
    return None


def cut_idle(run: Tables, pass_name: str) -> tuple[Calls, Calls, float]:
    """Outer and inner idle time of each window of calls, and launches per call, in the order of time."""
    calls = measured_calls(run, pass_name).sort_values("start_ns", kind="stable")
    begins = calls["start_ns"].to_numpy(np.int64)
    windows, window_of_call = connected(begins, begins + calls["duration_ns"].to_numpy(np.int64))
    done = device_work(run, pass_name, ("call", "start_ns", "end_ns"))
    done = done[done["call"].isin(calls["call"])]
    starts, ends = (done[edge].to_numpy(np.int64) for edge in ("start_ns", "end_ns"))
    copies = done["host_copy"].to_numpy()
    gaps = difference(Intervals(*windows), union(starts, ends))
    lengths = (gaps.ends - gaps.starts).astype(np.float64)
    outer = (
        np.isin(gaps.starts, np.concatenate((windows.starts, ends[copies])))
        | np.isin(gaps.ends, np.concatenate((windows.ends, starts[copies])))
    )  # fmt: skip
    window = np.searchsorted(windows.starts, gaps.starts, side="right") - 1
    members = np.bincount(window_of_call, minlength=len(windows.starts))
    outer_ns, inner_ns = (
        (np.bincount(window, np.where(chosen, lengths, 0.0), len(members)) / members)[window_of_call]
        for chosen in (outer, ~outer)
    )
    return outer_ns, inner_ns, float((~copies).sum() / max(len(calls), 1))


def _under_filled(run: RunFolder, diagnosis: Diagnosis) -> pd.DataFrame:
    nodes, device = diagnosis.nodes, run.manifest.device
    if nodes is None:
        return pd.DataFrame({"own_ns": [], "waves": []})
    chosen = nodes.device[(nodes.device["table"] == "kernels") & (nodes.device["limit"] == "under-filled")]
    kernels = run.table("kernels", LAUNCH_CONFIGURATION).loc[chosen["row"].to_numpy()]
    waves = filling(kernels, device.sm_count, device.compute_capability).waves
    return pd.DataFrame({"own_ns": chosen["own_ns"].to_numpy(np.float64), "waves": waves})
