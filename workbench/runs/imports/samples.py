"""Device samples from GPU metrics: the same quantities a hundred times a second, as NVML would be sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from workbench.runs.imports.sink import small_database
from workbench.runs.writer import write_table

PERIOD_NS: Final = 10_000_000
# metric of `counters`: metric of `samples`; the GPC clock is the clock of the multiprocessors
SAMPLED: Final = {
    "gpc_clock_frequency_mhz": "sm_clock_mhz",
    "sm_active_percent": "sm_active_percent",
    "tensor_active_percent": "tensor_active_percent",
    "dram_read_bandwidth_percent": "dram_read_bandwidth_percent",
    "dram_write_bandwidth_percent": "dram_write_bandwidth_percent",
    "pcie_rx_throughput_percent": "pcie_rx_throughput_percent",
    "pcie_tx_throughput_percent": "pcie_tx_throughput_percent",
}


def write_samples(folder: Path, pass_name: str) -> None:
    """Write the means of each metric over `PERIOD_NS`, at the middle of the period.

    Raises `DiskFullError`, and `SourceError` where the little memory given is not enough.
    """
    path = str(folder / "counters.parquet").replace("'", "''")
    query = f"""SELECT time_ns // {PERIOD_NS} * {PERIOD_NS} + {PERIOD_NS // 2} AS time_ns, device,
            CAST(metric AS VARCHAR) AS metric, avg(value) AS value
        FROM read_parquet('{path}') WHERE metric IN ({", ".join(f"'{name}'" for name in SAMPLED)})
        GROUP BY ALL ORDER BY ALL"""
    with small_database("GPU metrics") as database:
        rows = database.execute(query).fetchall()
    if rows:
        time_ns, device, metric, value = zip(*rows, strict=True)
        names = [SAMPLED[name] for name in metric]
        columns = {"time_ns": time_ns, "device": device, "metric": names, "value": value}
        write_table(folder, "samples", {"pass": [pass_name] * len(rows), **columns})
