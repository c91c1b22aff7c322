"""What limits each node: its time against the times that its flops and its bytes need at the measured ceilings.

On a GPU the time of a node is the device time of its kernels that no earlier kernel covers; on a CPU it is the node's
own duration.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.filling import Filling
from workbench.analysis.thresholds import (
    SHORT_KERNEL_FACTOR,
    UNDERFILLED_COVERAGE,
    UNDERFILLED_EFFICIENCY,
    UNDERFILLED_WAVES,
)
from workbench.runs.manifest import Ceilings

LIMITS: Final = ("compute", "memory", "under-filled", "unknown")
# Without a measured peak of its own, a dtype is held against the nearest unit that executes it.
_TENSOR_PEAKS: Final = {
    "float16": ("tensor:float16", "tensor:bfloat16"),
    "bfloat16": ("tensor:bfloat16", "tensor:float16"),
    "float32": ("tensor:tf32", "tensor:float32", "fp:float32"),
    "int8": ("tensor:int8",),
    "uint8": ("tensor:int8",),
}


def bound_times(work: pd.DataFrame, ceilings: Ceilings, *, tf32: bool) -> pd.DataFrame:
    """Columns `compute_ns` and `memory_ns`: float64[n], NaN where work or ceiling is unknown.

    work: as `workbench.analysis.work.count_work` gives it. compute_ns = max over units of flops / peak, because the
    units run side by side; memory_ns = (read + written) / bandwidth (roofline model; Williams, Waterman, Patterson,
    Communications of the ACM 52(4), 2009). tf32: whether float32 matrix work may use the TF32 tensor cores.
    """
    peaks = ceilings.flops_per_s
    of_dtype = {dtype: _tensor_peak(str(dtype), peaks, tf32=tf32) for dtype in work["dtype"].dropna().unique()}
    tensor = work["dtype"].map(of_dtype).to_numpy(np.float64)
    times = [
        _seconds(work["tensor_flops"], tensor),
        _seconds(work["fp_flops"], peaks.get("fp:float32", np.nan)),
        _seconds(work["special_flops"], peaks.get("special:float32", np.nan)),
    ]
    moved = work["read_bytes"].to_numpy(np.float64, na_value=np.nan) + work["written_bytes"].to_numpy(
        np.float64, na_value=np.nan
    )
    return pd.DataFrame(
        {
            "compute_ns": np.maximum.reduce(times) * 1e9,
            "memory_ns": _seconds(moved, ceilings.memory_bytes_per_s or np.nan) * 1e9,
        },
        index=work.index,
    )


def _tensor_peak(dtype: str, peaks: dict[str, float], *, tf32: bool) -> float:
    names = _TENSOR_PEAKS.get(dtype, ())
    if dtype == "float32" and not tf32:
        names = ("tensor:float32", "fp:float32")
    return next((peaks[name] for name in names if name in peaks), np.nan)


def _seconds(amount: pd.Series | NDArray[np.float64], per_second: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """amount / rate, and 0 where there is nothing to do whatever the rate."""
    values = (
        amount.to_numpy(np.float64, na_value=np.nan)
        if isinstance(amount, pd.Series)
        else np.asarray(amount, np.float64)
    )
    with np.errstate(invalid="ignore"):
        return np.where(values == 0, 0.0, values / per_second)


def classify_kernels(
    duration_ns: NDArray[np.int64],
    fill: Filling,
    node_bounds: pd.DataFrame | None,
    shortest_kernel_ns: float | None,
) -> NDArray[np.int8]:
    """The limit of each kernel as a position in `LIMITS`: int8[n].

    node_bounds: per kernel, of the node execution that launched it: `compute_ns`, `memory_ns` and `kernel_ns` (all
    device time of that execution), NaN where unknown; None for kernels that lead to no node, whose own grid and length
    are all there is to judge by. The rules and their order stand in the design of the verdict: a short or
    under-filling kernel first, then the larger of the two bounds.
    """
    with np.errstate(invalid="ignore"):
        under = fill.coverage < UNDERFILLED_COVERAGE
    if shortest_kernel_ns:
        under |= duration_ns < SHORT_KERNEL_FACTOR * shortest_kernel_ns
    limits = np.full(len(under), LIMITS.index("unknown"), np.int8)
    if node_bounds is not None:
        compute = node_bounds["compute_ns"].to_numpy(np.float64)
        memory = node_bounds["memory_ns"].to_numpy(np.float64)
        best = np.fmax(compute, memory)
        with np.errstate(divide="ignore", invalid="ignore"):
            efficiency = best / node_bounds["kernel_ns"].to_numpy(np.float64)
            under |= (fill.waves < UNDERFILLED_WAVES) & (efficiency < UNDERFILLED_EFFICIENCY)
            known = ~np.isnan(compute) & ~np.isnan(memory) & (best > 0)
            larger = np.where(compute > memory, LIMITS.index("compute"), LIMITS.index("memory"))
        limits[known] = larger[known]
    limits[under] = LIMITS.index("under-filled")
    return limits
