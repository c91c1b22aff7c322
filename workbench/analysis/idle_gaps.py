"""Every gap between device work inside the measured calls of a pass, with what it was waited for."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from workbench.analysis.call_windows import connected
from workbench.analysis.device_work import contains, device_work
from workbench.analysis.gaps import UNKNOWN_LAUNCH, split_idle
from workbench.analysis.intervals import difference, union
from workbench.analysis.pairing import launch_rows, taken
from workbench.analysis.tables import Tables, measured_calls, rows_of

_WORK: Final = ("call", "process", "start_ns", "end_ns", "correlation")
_COLUMNS: Final = ["start_ns", "duration_ns", "host_ns", "launch_latency_ns", "sync_ns"]


def idle_gaps(run: Tables, pass_name: str) -> pd.DataFrame:
    """One row per gap, ascending: start_ns, duration_ns, and host_ns, launch_latency_ns, sync_ns, which sum to it.

    All int64 nanoseconds; the causes are those of `workbench.analysis.gaps`, and their sums over all gaps are those of
    `workbench.analysis.device_work.call_times` over all calls. Calls that overlap are one window. Empty when the pass
    recorded no device work.
    """
    calls = measured_calls(run, pass_name).sort_values("start_ns", kind="stable")
    work = device_work(run, pass_name, _WORK)
    work = work[work["call"].isin(calls["call"])]
    if not len(work):
        return pd.DataFrame(columns=_COLUMNS, dtype=np.int64)
    begins = calls["start_ns"].to_numpy(np.int64)
    windows, window_of_call = connected(begins, begins + calls["duration_ns"].to_numpy(np.int64))
    window = pd.Series(window_of_call, index=calls["call"]).loc[work["call"]].to_numpy(np.int64)
    starts, ends = work["start_ns"].to_numpy(np.int64), work["end_ns"].to_numpy(np.int64)
    low, high = windows.starts[window], windows.ends[window]
    busy = union(np.maximum(starts, low), np.minimum(ends, high))
    made = rows_of(run, "launches", pass_name, ("process", "start_ns", "end_ns", "correlation", "name"))
    launches = taken(made["start_ns"].to_numpy(np.int64), launch_rows(work, made), UNKNOWN_LAUNCH)
    waits = made[contains(made["name"], "Synchronize")]
    syncs = union(waits["start_ns"].to_numpy(np.int64), waits["end_ns"].to_numpy(np.int64))
    inside = (starts >= low) & (starts < high)
    gaps = difference(windows, busy)
    # Each gap is a window of its own, with the first nanosecond of the work that ends it; at a call's end none does.
    followed = ~np.isin(gaps.ends, windows.ends)
    causes = split_idle((gaps.starts, gaps.ends + followed), busy, starts[inside], launches[inside], syncs)
    lengths = gaps.ends - gaps.starts
    columns = (gaps.starts, lengths, causes.host_ns, causes.launch_latency_ns, causes.sync_ns)
    return pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True)))
