"""What helps a run: levers tried on it for real, in a folder that others can open."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

from workbench.api.base import AnyLever, Base, check_measurable, device_of, levers_of, ready, worth_trying
from workbench.api.display import Displayed, tuning_html
from workbench.api.run import Run, free_folder
from workbench.capture.record import DEFAULT_TIMEOUT_S
from workbench.capture.resolve import Activity
from workbench.config import RunConfig
from workbench.diagnosis.levers import Lever, Situation
from workbench.errors import ConfigError, RunFolderError
from workbench.runs.writer import new_run_folder
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.executors import LocalExecutor
from workbench.tuning.experiment import RUNS, Experiment, OutputCheck, try_levers
from workbench.tuning.metric import cold_start, latency, memory, throughput
from workbench.tuning.objective import Constraint, Objective
from workbench.tuning.record import RESULT, TuningRecord
from workbench.tuning.rounds import Progress, Settings, block_for
from workbench.tuning.store import load_blocks

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_RECORDED: Final = Path(__file__).parents[1] / "samples" / "experiments"
BEST_FILE: Final = "best.yaml"
"""The best configuration, as `workbench profile --config` takes it."""
_NO_PROGRESS: Final[Progress] = lambda name, share: None  # noqa: E731


class Tuning(Displayed):
    """Experiments on one base, opened from their folder; read only."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record = TuningRecord.load(self.folder)

    @property
    def experiments(self) -> list[Experiment]:
        """One for each lever, in the order in which they were tried."""
        return self.record.experiments

    @cached_property
    def blocks(self) -> list[Block]:
        """Every measuring process with every call."""
        return load_blocks(self.folder)

    def run(self, arm: str = BASE) -> Run:
        """The recorded run of the base or of a lever, to be diagnosed; raises `RunFolderError`."""
        folder = self.folder / RUNS / arm
        if not folder.is_dir():
            known = sorted(path.name for path in (self.folder / RUNS).glob("*"))
            raise RunFolderError(f"{self.folder} holds no run of {arm!r}: there are {', '.join(known)}.")
        return Run(folder)

    def config(self, arm: str | None = None) -> RunConfig:
        """The configuration of a lever, of the base, or without a name the best one."""
        return self.record.config_of(self.record.best if arm is None else arm)

    def to_frame(self) -> pd.DataFrame:
        """One row per experiment, in the metric of the objective."""
        return self.record.to_frame()

    def figure(self) -> go.Figure:
        """Before and after: the measured ratio of each lever with its interval, over the predicted one."""
        from workbench.figures.experiments import before_after

        return before_after(self.to_frame())

    def summary(self) -> str:
        """The experiments for a terminal."""
        from workbench.report.tuned import tuning_summary

        return tuning_summary(self.record)

    def report(self, path: str | Path) -> Path:
        """Write the tuning as one HTML file that opens offline; raises `DiskFullError`."""
        from workbench.report.tuned_html import write_tuning_page

        return write_tuning_page(self, Path(path))

    def __repr__(self) -> str:
        return f"<Tuning of {self.record.model} on {self.record.device.name}: {self.folder}>"

    def _html(self) -> str:
        return tuning_html(self.record)


def recorded() -> dict[str, Tuning]:
    """The experiments recorded on a real GPU that ship with the package, by name; few of their runs are kept."""
    return {path.name: Tuning(path) for path in sorted(_RECORDED.iterdir()) if (path / RESULT).is_file()}


def experiment(
    base: Base,
    lever: AnyLever | Sequence[AnyLever],
    *,
    metric: str = "latency",
    rounds: int = 6,
    seed: int = 0,
    check: OutputCheck | None = None,
    out: str | Path | None = None,
    activity: Activity = "auto",
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    progress: Progress = _NO_PROGRESS,
    cancelled: Event | None = None,
) -> Tuning:
    """Apply a lever, or several, to a base for real, and say what each did, with the certainty that the data give.

    base: a model (file or name of the zoo), a `RunConfig` or a mapping of its options, or a run, whose configuration is
    taken. lever: a name (`cuda-graph`), a `Lever`, or a mapping of options laid over the base. metric: what decides,
    `latency` (P50), `latency:p99`, `throughput`, `memory`, `cold-start`. rounds: processes of each configuration, in
    seeded random order. check: what the outputs have to keep. out: folder to make. cancelled: set it from another
    thread to end after the running round; what was measured until then is kept.

    Raises `ConfigError` for an unknown lever or metric, and what the base raises when it cannot run.
    """
    given = [lever] if isinstance(lever, (str, Lever, Mapping)) else list(lever)
    config = ready(base)
    return _try(
        config, levers_of(given, config), Objective.parse(metric), [],
        Settings(rounds=rounds, seed=seed, timeout_s=timeout_s), out=out, check=check, activity=activity,
        progress=progress, cancelled=cancelled,
    )  # fmt: skip


def tune(
    base: Base,
    *,
    levers: Sequence[AnyLever] | None = None,
    objective: str = "latency",
    constraints: Iterable[str] = (),
    most: int = 8,
    rounds: int = 6,
    seed: int = 0,
    check: OutputCheck | None = None,
    out: str | Path | None = None,
    activity: Activity = "auto",
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    progress: Progress = _NO_PROGRESS,
    cancelled: Event | None = None,
) -> Tuning:
    """Diagnose a base and try the levers that serve the objective, those for the verdict's class first.

    levers: those to try instead. constraints: as `p99<10ms`, `memory<4GB`, `throughput>500`. most: levers to try when
    none are named. The rest is as in `experiment`.
    """
    goal = Objective.parse(objective)
    if most < 1:
        raise ConfigError(f"Option 'most' cannot be {most}: try one lever at least.")
    config = ready(base)
    named = None if levers is None else levers_of(levers, config)

    def choose(situation: Situation) -> list[Lever]:
        return [each.lever for each in worth_trying(situation, goal.metric)][:most]

    return _try(
        config, choose if named is None else named, goal, [Constraint.parse(text) for text in constraints],
        Settings(rounds=rounds, seed=seed, timeout_s=timeout_s), out=out, check=check, activity=activity,
        progress=progress, cancelled=cancelled,
    )  # fmt: skip


def _try(
    config: RunConfig,
    levers: Sequence[Lever] | Callable[[Situation], Sequence[Lever]],
    objective: Objective,
    constraints: Sequence[Constraint],
    settings: Settings,
    *,
    check: OutputCheck | None,
    out: str | Path | None,
    activity: Activity,
    progress: Progress,
    cancelled: Event | None,
) -> Tuning:
    device = device_of(config)
    decisive = [objective.metric, *(limit.metric for limit in constraints)]
    check_measurable(decisive, config)
    standard = [latency(50), latency(99), throughput(), memory("device" if device == "cuda" else "host"), cold_start()]
    metrics = list({metric.name: metric for metric in (*decisive, *standard)}.values())
    settings = replace(settings, block=block_for(decisive))
    target = Path(out) if out is not None else free_folder(f"{Path(config.model).stem}-tuning")
    with (
        new_run_folder(target) as folder,
        LocalExecutor(device, config.cuda.device_id) as executor,
    ):
        trials = try_levers(
            config, levers, metrics, folder, executor, settings,
            check=check, activity=activity, progress=progress, cancelled=cancelled,
        )  # fmt: skip
        found = TuningRecord.of(
            trials, folder, config, objective, constraints, rounds=settings.rounds, seed=settings.seed
        )
        found.config_of(found.best).save(folder / BEST_FILE)
        shutil.rmtree(folder / "blocks", ignore_errors=True)
    return Tuning(target)
