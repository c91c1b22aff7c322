"""Numbers for people: three significant digits and an SI prefix."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

UNKNOWN: Final = "–"
_PREFIXES: Final = ("", "k", "M", "G", "T", "P", "E")
_TIMES: Final = ("ns", "µs", "ms", "s")


class TimeScale(NamedTuple):
    """What nanoseconds are divided by for an axis, and the unit that this gives."""

    divisor_ns: float
    unit: str


def format_ns(value_ns: float | None) -> str:
    """A duration, such as `5.43 ms`; `–` when unknown. Nothing is given in units above the second."""
    return _scaled(value_ns, _TIMES)


def format_bytes(value_bytes: float | None) -> str:
    """A size in decimal units, such as `33.6 MB`; `–` when unknown."""
    return _scaled(value_bytes, [f"{prefix}B" for prefix in _PREFIXES])


def format_bytes_per_s(value: float | None) -> str:
    """A bandwidth, such as `4.24 TB/s`; `–` when unknown."""
    return _scaled(value, [f"{prefix}B/s" for prefix in _PREFIXES])


def format_flops(flops_per_s: float | None) -> str:
    """A rate of arithmetic, such as `761 TFLOP/s`; `–` when unknown."""
    return _scaled(flops_per_s, [f"{prefix}FLOP/s" for prefix in _PREFIXES])


def format_rate(items_per_s: float | None) -> str:
    """A throughput to three significant digits, such as `12,300 items/s`; `–` when unknown."""
    if items_per_s is None or not math.isfinite(items_per_s):
        return UNKNOWN
    return f"{float(f'{items_per_s:.3g}'):,.12g} items/s"


def format_percent(fraction: float | None) -> str:
    """A fraction in per cent. What is neither none nor all never reads as 0 % or 100 %; `–` when unknown."""
    if fraction is None or not math.isfinite(fraction):
        return UNKNOWN
    percent = 100 * fraction
    if 0 < percent < 0.05:
        return "<0.1 %"
    if 99.95 <= percent < 100:
        return ">99.9 %"
    digits = 0 if percent in (0, 100) or (10 <= percent < 99.5) or percent > 100 else 1
    return f"{percent:.{digits}f} %"


def time_scale(longest_ns: float) -> TimeScale:
    """The unit in which a duration reads best on an axis: its value is 1 or more, or it is in nanoseconds."""
    step = _step(longest_ns, len(_TIMES) - 1)
    return TimeScale(1000.0**step, _TIMES[step])


def _step(value: float, last: int) -> int:
    """Power of 1000 below a value once it is rounded to three significant digits."""
    rounded = abs(float(f"{value:.2e}"))
    return 0 if rounded < 1 else min(int(math.log10(rounded)) // 3, last)


def _scaled(value: float | None, units: list[str] | tuple[str, ...]) -> str:
    if value is None or not math.isfinite(value):
        return UNKNOWN
    step = _step(value, len(units) - 1)
    scaled = value / 1000.0**step
    if step == 0 and scaled == int(scaled):
        return f"{scaled:.0f} {units[0]}"  # a count of bytes or nanoseconds is whole
    rounded = float(f"{scaled:.2e}")
    digits = 2 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(digits, 0)}f} {units[step]}"
