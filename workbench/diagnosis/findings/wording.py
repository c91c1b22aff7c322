"""Amounts as people read them, for the sentences of findings."""

from __future__ import annotations


def milliseconds(time_ns: float) -> str:
    """Three digits at least, and never a power of ten: `0.0876 ms`, `4.14 ms`, `1,204 ms`."""
    return f"{_digits(time_ns / 1e6)} ms"


def megabytes(size_bytes: float) -> str:
    """As `milliseconds`, in units of 10⁶ bytes."""
    return f"{_digits(size_bytes / 1e6)} MB"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
