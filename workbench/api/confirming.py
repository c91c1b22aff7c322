"""Whether a verdict holds: the lever that must change T and one that must not, tried for real on the GPU at hand."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any, Final

from workbench.api.run import Run, free_folder, load
from workbench.capture.machine import gpu_present
from workbench.capture.record import DEFAULT_TIMEOUT_S
from workbench.capture.resolve import Activity
from workbench.config import RunConfig
from workbench.errors import ConfigError, NoDriverError, RunFolderError
from workbench.runs.reader import RunFolder
from workbench.runs.writer import new_run_folder
from workbench.tuning.blocks import BASE
from workbench.tuning.comparison import FEWEST_ROUNDS
from workbench.tuning.confirm import check_repeatable
from workbench.tuning.confirm import confirm as confirm_run
from workbench.tuning.confirmation import ConfirmationRecord, Step
from workbench.tuning.executors import LocalExecutor
from workbench.tuning.experiment import RUNS
from workbench.tuning.metric import latency
from workbench.tuning.rounds import Progress, Settings, block_for

_NO_PROGRESS: Final[Progress] = lambda name, share: None  # noqa: E731


class Confirmation:
    """A verdict that was put to the test, opened from its folder; read only."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = ConfirmationRecord.load(self.folder)

    @property
    def outcome(self) -> str:
        """`confirmed`, `refuted`, `undecided` or `not confirmable`."""
        return self.record.outcome

    @property
    def confirmed(self) -> list[str]:
        """The classes that the interventions confirm, which after a refutation are others than the verdict's."""
        return self.record.confirmed

    @property
    def steps(self) -> list[Step]:
        """One for each class that was put to the test, in their order."""
        return self.record.steps

    def run(self, share: str, arm: str = BASE) -> Run:
        """The recorded run of the base of a class or of a lever tried for it; raises `RunFolderError`."""
        folder = self.folder / share / RUNS / arm
        if not folder.is_dir():
            known = sorted(f"{path.parts[-3]} {path.name}" for path in self.folder.glob(f"*/{RUNS}/*"))
            raise RunFolderError(
                f"{self.folder} holds no run of {share} {arm}: there are {', '.join(known) or 'none'}."
            )
        return Run(folder)

    def to_dict(self) -> dict[str, Any]:
        """The object that `workbench confirm --json` prints, but for the folder."""
        from workbench.report.confirmed import confirmation_dict

        return confirmation_dict(self.record)

    def summary(self) -> str:
        """The confirmation for a terminal."""
        from workbench.report.confirmed import confirmation_summary

        return confirmation_summary(self.record)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<Confirmation of {self.record.verdict} for {self.record.model}, {self.outcome}: {self.folder}>"


def confirm(
    run: str | Path | RunFolder,
    *,
    out: str | Path | None = None,
    rounds: int = 6,
    seed: int = 0,
    activity: Activity = "auto",
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    progress: Progress = _NO_PROGRESS,
    cancelled: Event | None = None,
) -> Confirmation:
    """Put the verdict of a run to the test by interventions, and when it is refuted the next class.

    run: a run of a GPU, whose model is where it was. out: folder to make, by default
    `runs/<model>-confirmation-<time>`. rounds: processes of each configuration. timeout_s: for each process.
    progress: called with what goes on and its share of the class at hand. cancelled: set it from another thread to end
    after the running round; what was measured until then is kept.

    Raises `ConfigError` for a run that cannot be repeated (on a CPU, imported, without traced shares, its model gone or
    another one), `NoDriverError` without a GPU, and what the run raises when it cannot be made again.
    """
    if rounds < FEWEST_ROUNDS:
        raise ConfigError(f"Option 'rounds' cannot be {rounds}: an interval takes {FEWEST_ROUNDS}, and six tell more.")
    if activity == "none":
        raise ConfigError("Traced shares are what is put to the test: take 'activity' auto, cupti or nsys.")
    opened = run if isinstance(run, RunFolder) else load(run)
    check_repeatable(opened)
    if not gpu_present():
        raise NoDriverError(
            "To confirm a verdict is to run the model again on a GPU, and no NVIDIA driver answers here: copy the run "
            "and its model to a host that has one."
        )
    device_id = RunConfig(**opened.manifest.config).cuda.device_id
    target = Path(out) if out is not None else free_folder(f"{opened.manifest.model.name}-confirmation")
    settings = Settings(rounds=rounds, block=block_for([latency()]), seed=seed, timeout_s=timeout_s)
    with new_run_folder(target) as folder, LocalExecutor("cuda", device_id) as executor:
        confirm_run(opened, folder, executor, settings, activity=activity, progress=progress, cancelled=cancelled)
    return Confirmation(target)
