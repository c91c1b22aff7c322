"""Waves of real kernels, worked out by hand from the occupancy rules."""

import numpy as np
import pandas as pd
import pytest

from workbench.analysis.filling import filling

COLUMNS = ["grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "registers", "static_shared_bytes",
           "dynamic_shared_bytes"]  # fmt: skip


def kernels(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def test_a_gemm_with_one_block_per_multiprocessor_is_one_wave():
    # nvjet on an H200: 132 blocks of 384 threads, 168 registers, 213,188 bytes of shared memory
    found = filling(kernels((2, 66, 1, 384, 1, 1, 168, 0, 213188)), 132, "9.0")
    assert found.coverage[0] == 1.0
    assert found.waves[0] == 1.0  # shared memory lets one block in


def test_each_limit_binds():
    by_threads = (1000, 1, 1, 1024, 1, 1, 16, 0, 0)  # 2 blocks of 1024 threads
    by_blocks = (1000, 1, 1, 32, 1, 1, 16, 0, 0)  # 32 blocks
    by_registers = (1000, 1, 1, 256, 1, 1, 128, 0, 0)  # 65536 / (128 * 256) = 2 blocks
    by_shared = (1000, 1, 1, 64, 1, 1, 16, 40 << 10, 0)  # 228 KiB / 41 KiB = 5 blocks
    waves = filling(kernels(by_threads, by_blocks, by_registers, by_shared), 100, "9.0").waves
    assert waves == pytest.approx([1000 / 200, 1000 / 3200, 1000 / 200, 1000 / 500])


def test_an_unknown_chip_gives_coverage_and_no_waves():
    found = filling(kernels((50, 1, 1, 64, 1, 1, 16, 0, 0)), 100, "99.9")
    assert found.coverage[0] == 0.5
    assert np.isnan(found.waves[0])
    assert np.isnan(filling(kernels((50, 1, 1, 64, 1, 1, 16, 0, 0)), None, "9.0").coverage[0])
