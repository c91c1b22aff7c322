"""What the monitor shows of NVML's samples: lines in units for people, and the mean of each over a stretch of time."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workbench.diagnosis.device_load import COUNTER_WRAP_BYTES

_GB: Final = 1e9


class Line(NamedTuple):
    """One line: the metric of table `samples`, its name, and what its numbers are divided by."""

    metric: str
    name: str
    divisor: float = 1.0


class Panel(NamedTuple):
    """Lines that share an axis. top: the axis' upper end, None where it follows the data."""

    title: str
    lines: tuple[Line, ...]
    top: float | None = None


# Of a bus that counts bytes up to 2**32; NVML names the directions as the GPU sees them.
RATES: Final = {"pcie_rx_bytes_total": "pcie_rx_rate", "pcie_tx_bytes_total": "pcie_tx_rate"}

PANELS: Final = (
    Panel(
        "utilisation<br>(% of time)",
        (Line("gpu_kernel_running_percent", "some kernel ran"), Line("memory_accessed_percent", "memory accessed")),
        100,
    ),
    Panel(
        "counters<br>(% active)",
        (
            Line("sm_active_percent", "multiprocessors"),
            Line("tensor_active_percent", "tensor cores"),
            Line("dram_active_percent", "DRAM"),
        ),
        100,
    ),
    Panel("memory<br>(GB)", (Line("memory_used_bytes", "in use", _GB),)),
    Panel("power<br>(W)", (Line("power_w", "power"),)),
    Panel("clocks<br>(MHz)", (Line("sm_clock_mhz", "SM"), Line("memory_clock_mhz", "memory"))),
    Panel(
        "PCIe<br>(GB/s)",
        (Line("pcie_rx_rate", "to the GPU", _GB), Line("pcie_tx_rate", "from the GPU", _GB)),
    ),
)


def means(samples: pa.Table) -> dict[str, float]:
    """Mean of each metric over some rows of table `samples`, and bytes per second over PCIe from its counters.

    The counters wrap at 2**32, so that samples must lie closer than the link can carry as much; at 20 ms they do.
    """
    if not len(samples):
        return {}
    words = samples["metric"].cast(pa.string())  # its parts come from two tables, with words of their own
    plain = pa.table({"metric": words, "time_ns": samples["time_ns"], "value": samples["value"]})
    table = plain.group_by("metric").aggregate([("value", "mean")])
    found = dict(zip(table["metric"].to_pylist(), table["value_mean"].to_pylist(), strict=True))
    for counter, rate in RATES.items():
        rows = plain.filter(pc.equal(plain["metric"], counter)).sort_by("time_ns")
        times_ns, totals = rows["time_ns"].to_numpy(), rows["value"].to_numpy()
        if len(totals) > 1 and times_ns[-1] > times_ns[0]:
            moved = np.mod(np.diff(totals), COUNTER_WRAP_BYTES).sum()
            found[rate] = float(moved) / float(times_ns[-1] - times_ns[0]) * 1e9
    return found
