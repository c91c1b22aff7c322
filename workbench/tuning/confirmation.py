"""What interventions said of a verdict, written down so that others can open it and follow it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from pydantic import ConfigDict

from workbench.diagnosis.interventional import InterventionalShare
from workbench.tuning.comparison import Comparison
from workbench.tuning.experiment import Experiment
from workbench.tuning.store import load_result, save_result
from workbench.version import __version__

RESULT: Final = "confirmation.json"


@dataclass(frozen=True)
class Trial:
    """A lever that was tried, and the share that follows from it, None where none does; `why` says why none.

    items: of a call with the lever, for every one of a call without.
    """

    experiment: Experiment
    share: InterventionalShare | None = None
    items: int = 1
    why: str = ""

    @property
    def counted(self) -> Comparison | None:
        """The comparison where it counts: the lever ran, was in force and left the outputs as they were."""
        found = self.experiment.comparison
        return found if found is not None and found.outcome == self.experiment.outcome else None

    @property
    def ratio(self) -> tuple[float, float, float] | None:
        """T' / T of an item with the ends of its interval; None where too little was measured for one."""
        found = self.experiment.comparison
        if found is None or found.ratio is None or found.low is None or found.high is None:
            return None
        return found.ratio / self.items, found.low / self.items, found.high / self.items


@dataclass(frozen=True)
class Step:
    """One class put to the test. share: the class. found: its share by intervention, None where it could not be had;
    `why` says all of it.

    must_help, must_not: the levers that were tried. device: on which, None where nothing was tried.
    """

    share: str
    outcome: str
    why: str
    found: InterventionalShare | None = None
    must_help: list[Trial] = field(default_factory=list)
    must_not: list[Trial] = field(default_factory=list)
    device: str | None = None


@dataclass(frozen=True)
class ConfirmationRecord:
    """A verdict and what the interventions say of it.

    verdict: as diagnosed, a class, `a+b` or `inconclusive`; shares: traced in that run, fractions of T. outcome: that
    of the classes which the verdict names, or of the largest where it names none. confirmed: the classes that the
    interventions confirm, which after a refutation are others. steps: in their order. rounds, seed: with the runs, what
    it takes to repeat it.
    """

    model: str
    model_sha256: str
    device: str
    verdict: str
    shares: dict[str, float | None]
    outcome: str
    confirmed: list[str]
    steps: list[Step]
    rounds: int
    seed: int
    cancelled: bool = False
    created_ns: int = 0
    workbench_version: str = __version__

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")  # an output's error may be infinite

    @property
    def why(self) -> str:
        """The sentence behind the outcome."""
        return next(step.why for step in self.steps if step.outcome == self.outcome)

    def save(self, folder: Path) -> None:
        """Write `confirmation.json`; raises `DiskFullError`."""
        save_result(folder / RESULT, type(self), self)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote; raises `RunFolderError`."""
        return load_result(folder / RESULT, cls)
