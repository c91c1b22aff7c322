"""Where a lab measures: on this machine, or in the record of an experiment that was made on another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final, Protocol

from workbench.errors import ConfigError
from workbench.report.tuned_html import Tuned
from workbench.runs.reader import RunFolder
from workbench.tuning.experiment import Experiment
from workbench.tuning.objective import Constraint, Objective
from workbench.tuning.record import TuningRecord
from workbench.widgets.lab_job import Progress

ROUNDS: Final = 6
"""Three give an interval, six a good one."""


@dataclass(frozen=True)
class Choice:
    """What to try and how it is judged, in the words of `workbench tune`."""

    levers: tuple[str, ...]
    objective: str = "latency"
    constraints: tuple[str, ...] = ()
    rounds: int = ROUNDS

    def checked(self) -> Choice:
        """The same; raises `ConfigError` for what names no metric or no limit, before anything runs."""
        if not self.levers:
            raise ConfigError("No lever is chosen: tick one at least.")
        Objective.parse(self.objective)
        for limit in self.constraints:
            Constraint.parse(limit)
        return self


@dataclass(frozen=True)
class Measured:
    """Experiments, and the folder that keeps them, None where they were not made here."""

    record: TuningRecord
    folder: Path | None = None


class Bench(Protocol):
    """What a lab works on."""

    @property
    def tried(self) -> Sequence[Experiment] | None:
        """The experiments that a record holds, None where anything can be measured."""

    @property
    def rounds(self) -> int:
        """How many to begin with; of a record all that there are."""

    def base(self, progress: Progress, cancelled: Event) -> RunFolder:
        """The recorded run of the base, to be diagnosed."""

    def measure(self, choice: Choice, progress: Progress, cancelled: Event) -> Measured:
        """Try the levers; raises `WorkbenchError`."""


class KeptTuning(Tuned, Protocol):
    """Experiments with the folder that they lie in."""

    folder: Path


@dataclass(frozen=True)
class LiveBench:
    """Measures on this machine. profile: records the base; tune: tries levers on it."""

    profile: Callable[[Progress], RunFolder]
    tune: Callable[[Choice, Progress, Event], KeptTuning]
    tried: Sequence[Experiment] | None = None
    rounds: int = ROUNDS

    def base(self, progress: Progress, cancelled: Event) -> RunFolder:
        """Record the base, or open it where it was recorded before."""
        return self.profile(progress)

    def measure(self, choice: Choice, progress: Progress, cancelled: Event) -> Measured:
        """Try the levers in fresh processes."""
        found = self.tune(choice, progress, cancelled)
        return Measured(found.record, found.folder)
