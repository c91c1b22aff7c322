"""Hardware counters held against what the shares predict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from workbench.analysis.node_times import NodeTimes
from workbench.analysis.tables import Tables, measured_calls
from workbench.analysis.thresholds import COUNTER_FACTOR, COUNTER_FLOOR
from workbench.runs.manifest import Manifest


@dataclass(frozen=True)
class Corroboration:
    """One counter: what the run's own arithmetic predicts, what the hardware measured, both as fractions of a ceiling.

    `agrees` is None when both are too small to say anything.
    """

    counter: str
    predicted: float
    measured: float
    agrees: bool | None
    supports: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def steady_counters(run: Tables) -> dict[str, float]:
    """Mean of each metric over the windows that lie wholly inside the measured calls of the pass that has counters.

    Where DRAM reads and writes are counted apart, `dram_active_percent` is their sum.
    """
    counters = run.table("counters", ["pass", "time_ns", "window_ns", "metric", "value"])
    if not len(counters):
        return {}
    calls = measured_calls(run, str(counters["pass"].iloc[0]))
    if not len(calls):
        return {}
    begin, end = calls["start_ns"].min(), (calls["start_ns"] + calls["duration_ns"]).max()
    inside = (counters["time_ns"] - counters["window_ns"] >= begin) & (counters["time_ns"] <= end)
    means = counters[inside].groupby("metric", observed=True)["value"].mean()
    found = {str(name): float(value) for name, value in means.items()}
    if {"dram_read_bandwidth_percent", "dram_write_bandwidth_percent"} <= set(found):
        found["dram_active_percent"] = found["dram_read_bandwidth_percent"] + found["dram_write_bandwidth_percent"]
    return found


def corroborate(run: Tables, manifest: Manifest, nodes: NodeTimes | None) -> list[Corroboration]:
    """Predictions against counters, for tensor cores, DRAM and PCIe; empty without counters.

    Tensor: flops over their own peak and T. DRAM: compulsory bytes of nodes and host copies over the measured
    bandwidth and T; caches make the measured traffic smaller, re-reads make it larger, and the counter is a
    fraction of the theoretical bandwidth, of which copies reach 0.89 (H200). PCIe: bytes of the copies in a call
    over T and pinned bandwidth.
    """
    measured = steady_counters(run)
    if not measured or nodes is None or manifest.latency is None or not nodes.calls:
        return []
    seconds = manifest.latency.median_ns / 1e9
    ceilings, found = manifest.ceilings, []

    def add(name: str, predicted: float, fraction: float, supports: str) -> None:
        large = max(predicted, fraction) >= COUNTER_FLOOR
        agrees = predicted <= COUNTER_FACTOR * fraction and fraction <= COUNTER_FACTOR * predicted if large else None
        found.append(Corroboration(name, predicted, fraction, agrees, supports))

    table = nodes.nodes
    copied = float(nodes.device.loc[nodes.device["host_copy"], "bytes"].sum()) / nodes.calls
    counted = bool(table["tensor_flops"].notna().any())  # without it a prediction of 0 would only mean "unknown"
    if "tensor_active_percent" in measured and counted:
        rates = table["dtype"].map(_tensor_core_peaks(manifest)).astype(float)
        add(
            "tensor cores active",
            float((table["tensor_flops"] / rates).sum()) / seconds,
            measured["tensor_active_percent"] / 100,
            "compute",
        )
    if "dram_active_percent" in measured and ceilings.memory_bytes_per_s and counted:
        moved = float(table[["read_bytes", "written_bytes"]].sum().sum()) + copied
        add(
            "DRAM bandwidth",
            moved / ceilings.memory_bytes_per_s / seconds,
            measured["dram_active_percent"] / 100,
            "memory",
        )
    if ceilings.h2d_pinned_bytes_per_s:
        link = ceilings.h2d_pinned_bytes_per_s
        if "pcie_rx_bytes_per_s" in measured:
            seen = (measured["pcie_rx_bytes_per_s"] + measured.get("pcie_tx_bytes_per_s", 0.0)) / link
            add("PCIe traffic", copied / seconds / link, seen, "pcie")
        elif "pcie_rx_throughput_percent" in measured:
            seen = (measured["pcie_rx_throughput_percent"] + measured.get("pcie_tx_throughput_percent", 0.0)) / 100
            add("PCIe traffic", copied / seconds / link, seen, "pcie")
    return found


def _tensor_core_peaks(manifest: Manifest) -> dict[str, float]:
    """Measured flops per second by dtype, of those that run on tensor cores; float32 only where TF32 is allowed."""
    names = {"float16": "tensor:float16", "bfloat16": "tensor:bfloat16"}
    if manifest.uses_tf32:
        names["float32"] = "tensor:tf32"
    peaks = manifest.ceilings.flops_per_s
    return {dtype: peaks[name] for dtype, name in names.items() if name in peaks}
