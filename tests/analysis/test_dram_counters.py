"""Counted bytes against the DRAM counters of the hardware, on every recorded run that has them.

The counter gives the DRAM traffic as a percentage of the theoretical bandwidth (NVML, `NVML_GPM_METRIC_DRAM_BW_UTIL`).
Bytes per call are that fraction times the bandwidth times the time from one call's start to the next, in the pass that
recorded the counters. Counted are the compulsory bytes of the nodes and those of the copies between host and device,
which the device memory serves as well. The two need not be equal: caches keep data on the chip, and the tiles of a
matrix product read their operands more than once. `python tests/analysis/test_dram_counters.py` prints the ratios.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
import pytest
from onnx import helper

from workbench.analysis.tables import measured_calls
from workbench.api import load
from workbench.diagnosis.counters import steady_counters
from workbench.runs.reader import RunFolder

DATA = Path(__file__).parents[1] / "data"
RUNS = sorted(file.parent.relative_to(DATA).as_posix() for file in DATA.glob("h200*/**/counters.parquet"))

# What the driver of that H200 tells (`TARGET_INFO_GPU` of captures/nsight_h200_four_classes_gpu_metrics.sqlite.xz):
# 3,201 MHz · 2 transfers per clock · 6,016 bits, and the size of the last-level cache.
DRAM_BYTES_PER_S = 3_201_000_000 * 2 * 6_016 // 8
L2_BYTES = 60 << 20

# Where every node streams at least this many times the cache, and computes no product, nothing of it can stay there …
STREAMED_SIZE = 4
STREAMED_BAND = (0.93, 1.05)
# … but a row normalisation reads its input twice, for the statistics and for the result: 3 bytes for every 2 counted,
NORMALISED_BAND = (1.35, 1.55)
# and the tiles of products read their operands again, and convolutions change the layout of theirs
MOST_RE_READ = 4.0
# … and where all that a call touches fits the cache many times over, nothing has to leave it.
RESIDENT_SIZE = 0.1
RESIDENT_MOST = 0.10

# made so that they must be the one or the other
STREAMED = "h200/memory_device h200/memory_numpy h200/pcie_device h200/pcie_numpy h200/pcie_pinned".split()
RESIDENT = "h200/launch_device h200/launch_device_graph h200/launch_numpy".split()


@dataclass(frozen=True)
class Traffic:
    """Bytes per call: seen by the counters, counted, and of the weights that every call reads whole.

    smallest_node_bytes: of the node that moves least; 0 where a node computes a product, whose tiles are read again.
    normalised: every node is a row normalisation.
    """

    dram_bytes: float
    counted_bytes: float
    weight_bytes: int
    smallest_node_bytes: float
    normalised: bool

    @property
    def ratio(self) -> float:
        return self.dram_bytes / self.counted_bytes

    @property
    def streamed(self) -> bool:
        return self.smallest_node_bytes >= STREAMED_SIZE * L2_BYTES

    @property
    def resident(self) -> bool:
        return self.counted_bytes <= RESIDENT_SIZE * L2_BYTES


@cache
def traffic(name: str) -> Traffic | None:
    """None where the pass of the counters holds no window inside its calls."""
    run = load(DATA / name)
    percent = steady_counters(run).get("dram_active_percent", math.nan)
    starts_ns = measured_calls(run, str(run.counters["pass"].iloc[0]))["start_ns"]
    if math.isnan(percent) or run.diagnosis.nodes is None:
        return None
    between_starts_s = (starts_ns.max() - starts_ns.min()) / (len(starts_ns) - 1) / 1e9
    nodes = run.diagnosis.nodes
    copied = float(nodes.device.loc[nodes.device["host_copy"], "bytes"].sum()) / nodes.calls
    moved = nodes.nodes[["read_bytes", "written_bytes"]].sum(axis=1)
    return Traffic(
        percent / 100 * DRAM_BYTES_PER_S * between_starts_s,
        float(moved.sum()) + copied,
        weights_read_whole(run),
        0.0 if nodes.nodes["tensor_flops"].any() else float(moved.min()),
        bool((nodes.nodes["op_type"] == "LayerNormalization").all()),
    )


def weights_read_whole(run: RunFolder) -> int:
    """Bytes of the weights, each once, that a product or a convolution reads: of a table, Gather reads some rows."""
    assert run.graph is not None
    graph = run.graph.graph
    fed = {given.name for given in run.manifest.model.inputs}
    used = {name for each in graph.node if "Gather" not in each.op_type for name in each.input} - fed
    return sum(size_bytes(value) for value in graph.input if value.name in used)


def size_bytes(value: onnx.ValueInfoProto) -> int:
    kind = value.type.tensor_type
    return math.prod(d.dim_value for d in kind.shape.dim) * helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize


def known(name: str) -> Traffic:
    found = traffic(name)
    if found is None:
        pytest.skip("the counters saw no steady calls")
    return found


@pytest.mark.parametrize("name", STREAMED)
def test_where_nothing_can_stay_in_a_cache_the_counters_see_what_is_counted(name: str) -> None:
    assert known(name).streamed
    assert STREAMED_BAND[0] <= known(name).ratio <= STREAMED_BAND[1]


@pytest.mark.parametrize("name", RESIDENT)
def test_what_fits_the_cache_does_not_reach_the_dram(name: str) -> None:
    assert known(name).resident
    assert known(name).ratio < RESIDENT_MOST


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_the_traffic_of_every_run_is_one_that_its_sizes_allow(name: str) -> None:
    found = known(name)
    assert found.dram_bytes >= found.weight_bytes - L2_BYTES  # what the cache cannot keep is read anew by each call
    if found.streamed:
        low, high = NORMALISED_BAND if found.normalised else STREAMED_BAND
        assert low <= found.ratio <= high
    elif found.resident:
        assert found.ratio < RESIDENT_MOST
    else:
        assert found.ratio <= MOST_RE_READ


if __name__ == "__main__":
    for each in RUNS:
        if (row := traffic(each)) is not None:
            print(f"{each:45} {row.dram_bytes / 1e6:9.1f} {row.counted_bytes / 1e6:9.1f} MB {row.ratio:6.3f}")
