"""How busy the GPU was while the latency was measured, as far as NVML says, whose readings lag behind."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.tables import Tables, rows_of
from workbench.runs.manifest import Ceilings

PASS: Final = "latency"
SHORTEST_PERIOD_NS: Final = 166_666_667
LONGEST_PERIOD_NS: Final = 1_000_000_000
"""NVML's utilisation is that of "the past sample period", 1/6 s to 1 s by product (nvmlUtilization_t)."""
READING_LAG: Final = 0.5
"""Of a period: how much older a reading may be than it looks. On an H200, whose period is 0.2 s, the first reading
after a steady load began told of up to 0.08 s less of it than had passed."""
COUNTER_WRAP_BYTES: Final = 1 << 32
POWER_CAPPED: Final = 0x4 | 0x80
"""Bits of the clock event reasons: software power cap, hardware power brake (nvml.h)."""
_STEADY: Final = ["gpu_kernel_running_percent", "memory_accessed_percent", "power_w"]


class DeviceLoad(NamedTuple):
    """What NVML says of the steady calls; None is "not known".

    running, accessed: fractions of the time in which some kernel or copy ran, in which device memory was accessed.
    spread: standard deviation of `running` over readings. periods: NVML periods that lie wholly in the steady calls; at
    0 `running` and `accessed` mix with what was before, so that they are lower bounds. power_w: under load; idle_w: of
    the idle GPU at the same clock. capped: fraction of the readings in which the power limit held the clocks down.
    """

    running: float
    accessed: float | None
    spread: float
    periods: float
    power_w: float | None
    idle_w: float | None
    capped: float | None


class LinkBytes(NamedTuple):
    """Bytes over PCIe in one call, to the device and from it: copies, and all that the driver sends to start work."""

    received: float
    sent: float


def device_load(run: Tables) -> DeviceLoad | None:
    """The load while the latency pass called the model after its first call; None where NVML said nothing of it.

    A reading counts when the whole period that it is about lies in those calls: it became visible at least one period
    and the lag after they began, or is read a period later than that. Where none does, the largest that became visible
    while they ran, or in the period after, is a lower bound.
    """
    samples = _by_time(run)
    calls = rows_of(run, "latency", PASS)
    steady = calls[calls["phase"] != "cold"]
    if samples is None or not len(steady) or _STEADY[0] not in samples:
        return None
    begin, end = int(steady["start_ns"].min()), int((steady["start_ns"] + steady["duration_ns"]).max())
    at = samples.index.to_numpy(np.int64)
    columns = [name for name in _STEADY[:2] if name in samples]
    values = samples[columns].to_numpy(np.float64)
    changed = np.flatnonzero((values[1:] != values[:-1]).any(axis=1)) + 1
    period = _period_ns(at[changed])
    since = np.full(len(at), np.iinfo(np.int64).min, np.int64)
    since[changed] = at[changed]
    visible = np.maximum.accumulate(since)
    settled = begin + round((1 + READING_LAG) * period)
    whole = (at <= end) & ((visible >= settled) | (at >= settled + period))
    touching = (visible >= begin) & (at <= end + period)
    if not touching.any():
        return None
    seen = samples[whole] if whole.any() else samples[touching]
    running = seen[_STEADY[0]].dropna() / 100
    if not len(running):
        return None
    how = "mean" if whole.any() else "max"
    accessed = _of(seen, _STEADY[1], how)
    power = samples.loc[(at >= begin + SHORTEST_PERIOD_NS) & (at <= end)]
    return DeviceLoad(
        running=min(float(running.agg(how)), 1.0),
        accessed=None if accessed is None else min(accessed / 100, 1.0),
        spread=float(running.std(ddof=0)) if whole.any() else 0.0,
        periods=max(1.0, float(np.ptp(at[whole])) / period) if whole.any() else 0.0,
        power_w=_of(power, "power_w", "median"),
        idle_w=_idle_power(samples.loc[at < begin], power),
        capped=_capped(power),
    )


def link_bytes(run: Tables, latency_ns: float, ceilings: Ceilings) -> LinkBytes | None:
    """PCIe traffic of one call that takes `latency_ns`, from the byte counters; None where they say nothing for sure.

    The counters wrap at 2³², so that samples must lie closer than the link can carry as much.
    """
    samples = _by_time(run)
    names = ["pcie_rx_bytes_total", "pcie_tx_bytes_total"]
    calls = rows_of(run, "latency", PASS)
    measured = calls[calls["phase"] == "measured"]
    fastest = max(ceilings.h2d_pinned_bytes_per_s or 0.0, ceilings.d2h_pinned_bytes_per_s or 0.0)
    if samples is None or not {*names}.issubset(samples) or not len(measured) or not fastest:
        return None
    begin, end = measured["start_ns"].min(), (measured["start_ns"] + measured["duration_ns"]).max()
    inside = samples.loc[(samples.index >= begin) & (samples.index <= end), names].dropna()
    if len(inside) < 3:
        return None
    apart = np.diff(inside.index.to_numpy(np.int64))
    if apart.max() / 1e9 * fastest >= COUNTER_WRAP_BYTES:
        return None
    moved = np.mod(np.diff(inside.to_numpy(np.float64), axis=0), COUNTER_WRAP_BYTES).sum(axis=0)
    per_call = moved / float(apart.sum()) * latency_ns
    return LinkBytes(float(per_call[0]), float(per_call[1]))


def _by_time(run: Tables) -> pd.DataFrame | None:
    """Samples of the latency pass, one row a time (Unix ns) and one column a metric."""
    rows = rows_of(run, "samples", PASS, ["time_ns", "metric", "value"])
    if not len(rows):
        return None
    plain = rows.assign(metric=rows["metric"].astype(str))
    return plain.pivot_table(index="time_ns", columns="metric", values="value", aggfunc="last").sort_index()


def _period_ns(changed_ns: NDArray[np.int64]) -> int:
    """How often NVML renews its readings, which change at most once a period; the longest that it may be if unseen."""
    if len(changed_ns) < 2:
        return LONGEST_PERIOD_NS
    return int(np.clip(np.diff(changed_ns).min(), SHORTEST_PERIOD_NS, LONGEST_PERIOD_NS))


def _of(samples: pd.DataFrame, metric: str, how: str) -> float | None:
    if metric not in samples or not samples[metric].notna().any():
        return None
    return float(samples[metric].agg(how))


def _idle_power(before: pd.DataFrame, loaded: pd.DataFrame) -> float | None:
    """Median power before the calls while nothing ran and the SM clock was that of the load or above."""
    if not {"power_w", "sm_clock_mhz"}.issubset(before) or not len(loaded):
        return None
    clock = loaded["sm_clock_mhz"].median()
    still = before[(before[_STEADY[0]] == 0) & (before["sm_clock_mhz"] >= clock)]
    return _of(still, "power_w", "median")


def _capped(loaded: pd.DataFrame) -> float | None:
    if "clock_event_reasons_mask" not in loaded or not len(loaded):
        return None
    masks = loaded["clock_event_reasons_mask"].fillna(0).astype("int64")
    return float(((masks & POWER_CAPPED) > 0).mean())
