"""How much of the GPU a kernel's grid can fill: waves, from the launch configuration and the chip's limits."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class SmLimits(NamedTuple):
    """Per multiprocessor: resident threads, resident blocks, 32-bit registers, bytes of shared memory."""

    threads: int
    blocks: int
    registers: int
    shared_bytes: int


# CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability".
SM_LIMITS: Final = {
    "7.0": SmLimits(2048, 32, 65536, 96 << 10),
    "7.5": SmLimits(1024, 16, 65536, 64 << 10),
    "8.0": SmLimits(2048, 32, 65536, 164 << 10),
    "8.6": SmLimits(1536, 16, 65536, 100 << 10),
    "8.7": SmLimits(1536, 16, 65536, 164 << 10),
    "8.9": SmLimits(1536, 24, 65536, 100 << 10),
    "9.0": SmLimits(2048, 32, 65536, 228 << 10),
    "10.0": SmLimits(2048, 32, 65536, 228 << 10),
    "12.0": SmLimits(1536, 24, 65536, 100 << 10),
}
REGISTER_UNIT: Final = 256  # registers are handed out per warp in units of 256 (CUDA occupancy calculator)
SHARED_PER_BLOCK_BYTES: Final = 1024  # reserved by the system in each block, compute capability 8.0 and newer
WARP: Final = 32


class Filling(NamedTuple):
    """Both float64[n]: `coverage` is blocks over multiprocessors, `waves` is blocks over blocks resident at once."""

    coverage: NDArray[np.float64]
    waves: NDArray[np.float64]


GRID: Final = ("grid_x", "grid_y", "grid_z")
LAUNCH_CONFIGURATION: Final = (
    *GRID, "block_x", "block_y", "block_z", "registers", "static_shared_bytes", "dynamic_shared_bytes",
)  # fmt: skip


def filling(kernels: pd.DataFrame, sm_count: int | None, compute_capability: str | None) -> Filling:
    """Coverage and waves of each kernel; NaN where the chip, its limits or the launch configuration is unknown.

    kernels: columns `LAUNCH_CONFIGURATION`, or `GRID` alone, which gives coverage and no waves.
    Formula: resident blocks = min over threads, blocks, registers and shared memory of limit / need, at least 1
    (CUDA occupancy calculator); waves = grid / (resident blocks * multiprocessors).
    """

    def column(name: str) -> NDArray[np.float64]:
        return kernels[name].to_numpy(np.float64, na_value=np.nan)

    grid = column("grid_x") * column("grid_y") * column("grid_z")
    unknown = np.full(len(grid), np.nan)
    if not sm_count:
        return Filling(unknown, unknown)
    limits = SM_LIMITS.get(compute_capability or "")
    if limits is None or not {*LAUNCH_CONFIGURATION}.issubset(kernels.columns):
        return Filling(grid / sm_count, unknown)
    threads = column("block_x") * column("block_y") * column("block_z")
    warps = np.ceil(threads / WARP)
    registers = np.ceil(column("registers") * WARP / REGISTER_UNIT) * REGISTER_UNIT * warps
    shared = column("static_shared_bytes") + column("dynamic_shared_bytes") + SHARED_PER_BLOCK_BYTES
    with np.errstate(divide="ignore", invalid="ignore"):
        resident = np.minimum.reduce(
            [
                limits.threads // (warps * WARP),
                np.full(len(grid), float(limits.blocks)),
                limits.registers // registers,
                limits.shared_bytes // shared,
            ]
        )
    return Filling(grid / sm_count, grid / (np.maximum(resident, 1) * sm_count))
