"""Gather limits one by one, so that one that fails is told in a note and takes no other with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from workbench.runs.manifest import Ceilings

Progress = Callable[[str], None]
T = TypeVar("T")


class Collector:
    """Takes measured limits by the names of `Ceilings`; a name with a colon is a rate of `flops_per_s`."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.notes: list[str] = []
        self._progress = progress
        self._kept: dict[str, tuple[float, str]] = {}

    def attempt(self, what: str, measurement: Callable[[], T]) -> T | None:
        """The result of a measurement; None, and a note with the reason, if it raises."""
        if self._progress is not None:
            self._progress(what)
        try:
            return measurement()
        except Exception as error:  # ONNX Runtime, CUPTI and NumPy raise errors with no common base
            lines = str(error).splitlines()
            self.notes.append(f"Not measured: {what}: {lines[0] if lines else type(error).__name__}")
            return None

    def keep(self, name: str, value: float | None, what: str) -> None:
        """Keep a limit; of two values for one name the larger stays and both are noted. None changes nothing."""
        if value is None:
            return
        if not (math.isfinite(value) and value > 0):
            self.notes.append(f"Not kept: {what} came out as {value:g}, which noise must have caused.")
            return
        before = self._kept.get(name)
        if before is not None:
            self.notes.append(
                f"{name}: {before[0]:.4g}/s by {before[1]}, {value:.4g}/s by {what}; the larger of the two is kept."
            )
        if before is None or value > before[0]:
            self._kept[name] = (value, what)

    def measure(self, name: str, what: str, measurement: Callable[[], float]) -> float | None:
        """Attempt a measurement and keep its result under `name`; returns what was measured."""
        value = self.attempt(what, measurement)
        self.keep(name, value, what)
        return value

    def ceilings(self, key: dict[str, str]) -> Ceilings:
        """All limits kept so far, stamped with the time of now in UTC."""
        kept = {name: value for name, (value, _) in self._kept.items()}
        rates = {name: value for name, value in kept.items() if ":" in name}
        limits = {name: value for name, value in kept.items() if ":" not in name}
        return Ceilings.model_validate(
            {
                **limits,
                "flops_per_s": rates,
                "key": key,
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "notes": self.notes,
            }
        )
