"""What the NVTX ranges of a pass hold: their own length, and the kernels that were launched inside them."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.device_work import Tables, rows_of
from workbench.analysis.intervals import own_time_ns
from workbench.analysis.pairing import launch_rows
from workbench.analysis.spans import NO_SPAN, innermost

NO_NAME: Final = "(no text)"
"""Stands for the text of a range that was pushed without one."""


def range_times(run: Tables, pass_name: str) -> pd.DataFrame:
    """One row per name of a range, by falling device time.

    Columns: `name`; `count` of ranges; `wall_ns`, the sum of their lengths (ranges of one name that nest or run on
    several threads each count in full); `kernels` launched directly in them, which is in no range further in; and
    `device_ns`, the own time of those kernels (`workbench.analysis.intervals.own_time_ns`). int64 but for the name.

    A kernel belongs to the innermost range that holds the middle of its launching call, on the thread that made the
    call and opened the range. Kernels in no range stand in a last row without a name, so that `kernels` and
    `device_ns` sum to those of the pass.
    """
    ranges = rows_of(run, "ranges", pass_name, ("process", "thread", "start_ns", "end_ns", "name"))
    kernels = rows_of(run, "kernels", pass_name, ("process", "start_ns", "end_ns", "correlation"))
    code, names = pd.factorize(ranges["name"].astype("category"), use_na_sentinel=False)
    owner = np.append(code, len(names))[_ranges_of(kernels, run, pass_name, ranges)]
    size = len(names) + 1
    table = pd.DataFrame(
        {
            "name": [*(NO_NAME if pd.isna(name) else name for name in names), None],
            "count": np.bincount(code, minlength=size),
            "wall_ns": _sums((ranges["end_ns"] - ranges["start_ns"]).to_numpy(np.int64), code, size),
            "kernels": np.bincount(owner, minlength=size),
            "device_ns": _sums(own_time_ns(kernels["start_ns"], kernels["end_ns"]), owner, size),
        }
    )
    named, rest = table.iloc[:-1].sort_values("device_ns", ascending=False, kind="stable"), table.iloc[-1:]
    return pd.concat([named, rest[rest["kernels"] > 0]], ignore_index=True)


def ranged_fraction(times: pd.DataFrame) -> float | None:
    """Fraction of the kernels of `range_times` that were launched in some range, 0..1; None without kernels."""
    total = times["kernels"].sum()
    return float(times.loc[times["name"].notna(), "kernels"].sum() / total) if total else None


def _sums(values: NDArray[np.int64], at: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    sums = np.zeros(size, np.int64)
    np.add.at(sums, at, values)
    return sums


def _ranges_of(kernels: pd.DataFrame, run: Tables, pass_name: str, ranges: pd.DataFrame) -> NDArray[np.int64]:
    """Row position in `ranges` of the innermost one that each kernel was launched in, `NO_SPAN` for none: int64[n]."""
    launches = rows_of(run, "launches", pass_name, ("process", "thread", "start_ns", "end_ns", "correlation"))
    rows = launch_rows(kernels, launches)
    starts, ends = launches["start_ns"].to_numpy(np.int64), launches["end_ns"].to_numpy(np.int64)
    paired = np.flatnonzero(rows >= 0)
    called, opened = _lanes(launches, ranges)
    launch = rows[paired]
    found = np.full(len(kernels), NO_SPAN, np.int64)
    found[paired] = innermost(
        starts[launch] + (ends[launch] - starts[launch]) // 2,
        called[launch],
        ranges["start_ns"].to_numpy(np.int64),
        ranges["end_ns"].to_numpy(np.int64),
        opened,
    )
    return found


def _lanes(launches: pd.DataFrame, ranges: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for the (process, thread) of each host call and of each range; thread numbers repeat between processes.

    Where one of the two tables knows no process, threads alone are compared.
    """
    codes, _ = pd.factorize(pd.concat([launches["thread"], ranges["thread"]]), use_na_sentinel=False)
    if launches["process"].notna().any() and ranges["process"].notna().any():
        both = pd.concat([launches["process"], ranges["process"]])
        processes, distinct = pd.factorize(both, use_na_sentinel=False)
        codes = codes * len(distinct) + processes
    return codes[: len(launches)], codes[len(launches) :]
