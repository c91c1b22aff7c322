"""Metrics of tuning for people: their names, and their numbers in units that read well."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from workbench.figures.units import UNKNOWN, format_bytes, format_ns, format_rate, time_scale

_FORMATS: Final[dict[str, Callable[[float | None], str]]] = {
    "ns": format_ns,
    "bytes": format_bytes,
    "items/s": format_rate,
}
_NAMES: Final = {"memory": "peak device memory", "host-memory": "peak host memory", "cold-start": "cold start"}


class MetricScale(NamedTuple):
    """What a metric's numbers are divided by for an axis, and the unit that this gives."""

    divisor: float
    unit: str


def metric_name(name: str) -> str:
    """`P99 latency` for `latency:p99`, `peak device memory` for `memory`; other names as they are."""
    if name.startswith("latency:p"):
        return f"P{name.removeprefix('latency:p')} latency"
    return _NAMES.get(name, name.replace("cold-start:", "cold start, "))


def format_metric(value: float | None, unit: str) -> str:
    """A metric's number in its unit (`ns`, `bytes`, `items/s`); `–` when unknown."""
    return _FORMATS[unit](value)


def format_change(base: float | None, variant: float | None, unit: str) -> str:
    """`1.56 ms → 535 µs`, or `1.56 → 1.50 ms`."""
    before, after = format_metric(base, unit), format_metric(variant, unit)
    number, _, scale = before.partition(" ")
    return f"{number if scale and after.endswith(f' {scale}') else before} → {after}"


def format_ratio(ratio: float | None) -> str:
    """`0.770×`, three significant digits; `–` when unknown."""
    if ratio is None or not math.isfinite(ratio):
        return UNKNOWN
    return f"{ratio:#.3g}".rstrip(".") + "×"


def format_interval(low: float | None, high: float | None) -> str:
    """`0.750× to 0.790×`; `–` when unknown."""
    ends = format_ratio(low), format_ratio(high)
    return UNKNOWN if UNKNOWN in ends else f"{ends[0]} to {ends[1]}"


def metric_scale(largest: float, unit: str) -> MetricScale:
    """The unit in which numbers up to `largest` read best on an axis."""
    if unit == "ns":
        return MetricScale(*time_scale(largest))
    return MetricScale(1e9, "GB") if unit == "bytes" else MetricScale(1.0, unit)
