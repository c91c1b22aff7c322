"""The time of each kernel by name, with its family and tensor-core use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.intervals import own_time_ns
from workbench.analysis.kernel_names import kernel_rules
from workbench.analysis.tables import Tables, measured_calls

_COLUMNS: Final = ("pass", "call", "device", "start_ns", "end_ns", "name")
_PASSES: Final = ("activity", "nodes")
"""Passes that record kernels, those first that stretch the run the least."""


@dataclass(frozen=True)
class KernelTimes:
    """The kernels of the measured calls of one pass.

    kernels: one row per name, most time first: `name`, `family`, `tensor_cores` (nullable boolean) and `rule` as
    `workbench.analysis.kernel_names.kernel_rules` gives them, `count` (int64), `own_ns` (int64, the time in which no
    earlier kernel of the same device ran; over all rows the union of the kernels of each device), `median_ns`, `min_ns`
    and `max_ns` (int64, of the durations; the lower one of two medians, so that it is a duration that occurred) and
    `share` (own_ns over its sum). calls: how many calls all this is over. pass_name: the pass.
    """

    kernels: pd.DataFrame
    calls: int
    pass_name: str


def kernel_times(run: Tables) -> KernelTimes | None:
    """The time of each kernel, from the first pass that recorded any in its measured calls; None when none did."""
    recorded = run.table("kernels", _COLUMNS)
    for pass_name in _PASSES:
        calls = measured_calls(run, pass_name)["call"]
        kernels = recorded[(recorded["pass"] == pass_name) & recorded["call"].isin(calls)]
        if len(kernels):
            return KernelTimes(_by_name(kernels), len(calls), pass_name)
    return None


def _by_name(kernels: pd.DataFrame) -> pd.DataFrame:
    code, names = pd.factorize(kernels["name"], use_na_sentinel=False)
    start, end = kernels["start_ns"].to_numpy(np.int64), kernels["end_ns"].to_numpy(np.int64)
    duration = end - start
    order = np.lexsort((duration, code))
    first = np.flatnonzero(np.diff(code[order], prepend=-1))
    count = np.diff(first, append=len(order))
    ascending = duration[order]
    own = np.add.reduceat(_own_ns(kernels["device"], start, end)[order], first)
    # factorize numbers the names from 0 in the order of `names`, so the groups in `order` are in that order too
    table = kernel_rules([None if pd.isna(name) else str(name) for name in names]).assign(
        count=count,
        own_ns=own,
        median_ns=ascending[first + (count - 1) // 2],
        min_ns=ascending[first],
        max_ns=ascending[first + count - 1],
        share=own / max(int(own.sum()), 1),
    )
    return table.sort_values("own_ns", ascending=False, kind="stable", ignore_index=True)


def _own_ns(device: pd.Series, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    own = np.zeros(len(start), np.int64)
    code, devices = pd.factorize(device, use_na_sentinel=False)
    for at in range(len(devices)):
        mine = code == at
        own[mine] = own_time_ns(start[mine], end[mine])
    return own
