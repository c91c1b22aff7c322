"""What a search keeps of each trial: one JSON file in the trial's folder, and all of them as a table."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from workbench.config import RunConfig
from workbench.errors import ConfigError, RunFolderError
from workbench.tuning.metric import Metric
from workbench.tuning.objective import Constraint, Objective, metric_of
from workbench.tuning.store import load_result, save_result

if TYPE_CHECKING:
    import pandas as pd

TRIAL: Final = "trial.json"
SEARCH: Final = "search.json"
SHARED: Final = "blocks"
"""Folder of a trial for what its rounds share, such as a model whose batch was changed; it goes when the trial ends."""

LOCK: Final = "search.lock"
_FOLDER: Final = re.compile(r"trial_(\d+)")
_COLUMNS: Final = {
    "throughput": "items_per_s",
    "memory": "peak_device_bytes",
    "host-memory": "peak_host_bytes",
    "cold-start": "cold_start_ns",
}


@dataclass(frozen=True)
class Trial:
    """One cell of the space and what came of it.

    number: of the trial's folder, from 0. options: of the `RunConfig`; None when the choices contradict one another.
    state: `running`; `complete`, measured in every round; `pruned`, clearly worse than the best after fewer rounds;
    `failed`, with its error; `impossible`, refused as a configuration; `lost`, killed or cancelled and so queued again.
    metrics: name → median over the rounds in the metric's unit, None when not measured. rounds: the same of each
    round. feasible: whether the medians keep every constraint; None while that is not known. seconds: wall time.
    """

    number: int
    assignment: dict[str, str]
    state: Literal["running", "complete", "pruned", "failed", "impossible", "lost"]
    options: dict[str, Any] | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    rounds: list[dict[str, float | None]] = field(default_factory=list)
    feasible: bool | None = None
    error: tuple[str, str] | None = None
    reason: str = ""
    seconds: float = 0.0

    @property
    def config(self) -> RunConfig | None:
        """What was run; None when the choices contradict one another."""
        return None if self.options is None else RunConfig(**self.options)

    def folder_in(self, folder: Path) -> Path:
        """The trial's own folder below the folder of the search."""
        return folder / f"trial_{self.number}"

    def tidy(self, folder: Path) -> None:
        """Remove what the rounds shared, and what a process that was killed did not finish to write."""
        for path in (self.folder_in(folder) / SHARED, *self.folder_in(folder).glob(".*.partial")):
            shutil.rmtree(path, ignore_errors=True)

    def save(self, folder: Path) -> None:
        """Write `trial.json`, whole or not at all; raises `DiskFullError`."""
        self.folder_in(folder).mkdir(parents=True, exist_ok=True)
        save_result(self.folder_in(folder) / TRIAL, Trial, self)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    trials: in the order in which they ran. best: the best complete trial that keeps every constraint, or the closest
    one, None when none completed; it was picked for its measured value, which flatters it a little: confirm it by an
    experiment against the base. sentence: how good it is. stopped: why the search ended.
    """

    folder: Path
    objective: Objective
    constraints: tuple[Constraint, ...]
    trials: list[Trial]
    best: Trial | None
    sentence: str
    stopped: str

    def to_frame(self) -> pd.DataFrame:
        """One row per trial: number, state, feasible, error, reason, seconds, folder, dimensions, then metrics.

        Metrics are float64 in columns that name their unit (`column_of`), NaN where not measured.
        """
        return to_frame(self.trials, self.folder)


def column_of(metric: str) -> str:
    """The column of a metric, with its unit: `latency:p99` → `p99_ns`, `throughput` → `items_per_s`."""
    if metric.startswith("latency:"):
        return f"{metric.removeprefix('latency:')}_ns"
    return _COLUMNS.get(metric) or f"{metric.replace('-', '_').replace(':', '_')}_ns"


def to_frame(trials: Sequence[Trial], folder: Path) -> pd.DataFrame:
    """Trials as a table, see `SearchResult.to_frame`."""
    import pandas as pd

    names = dict.fromkeys(name for trial in trials for name in trial.metrics)
    rows = [
        {
            "number": trial.number,
            "state": trial.state,
            "feasible": trial.feasible,
            "error": ": ".join(trial.error) if trial.error else None,
            "reason": trial.reason,
            "seconds": trial.seconds,
            "folder": str(trial.folder_in(folder)),
            **trial.assignment,
            **{column_of(name): trial.metrics.get(name) for name in names},
        }
        for trial in trials
    ]
    return pd.DataFrame(rows).astype({column_of(name): "float64" for name in names})


def read_trials(folder: Path) -> list[Trial]:
    """The trials whose `trial.json` is in the folder of a search, by number; raises `RunFolderError`."""
    numbers = (int(found[1]) for each in folder.glob("trial_*") if (found := _FOLDER.fullmatch(each.name)))
    files = ((number, folder / f"trial_{number}" / TRIAL) for number in sorted(numbers))
    trials = []
    for number, file in files:
        if not file.is_file():  # killed before the first word
            continue
        trial = load_result(file, Trial)
        if trial.number != number:
            raise RunFolderError(f"{file} is of trial {trial.number}: give the folder back its name.")
        trials.append(trial)
    return trials


def next_number(folder: Path) -> int:
    """One more than the highest number of a trial folder, empty ones included."""
    numbers = [int(found[1]) for each in folder.glob("trial_*") if (found := _FOLDER.fullmatch(each.name))]
    return max(numbers, default=-1) + 1


def standard_metrics(objective: Objective, constraints: Sequence[Constraint]) -> list[Metric]:
    """What is kept of every trial: the axes of the usual figures, and what the search is after."""
    words = ("latency", "latency:p99", "throughput", "memory", "host-memory", "cold-start")
    metrics = [*map(metric_of, words), objective.metric, *(constraint.metric for constraint in constraints)]
    return list({metric.name: metric for metric in metrics}.values())


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Say in `search.json` what the folder's trials have in common, or check that it is said already.

    Raises `ConfigError` for a folder of another search, `RunFolderError` for a damaged one.
    """
    file = folder / SEARCH
    if not file.exists():
        if next_number(folder):
            raise RunFolderError(f"{folder} holds trials but no {SEARCH}: choose another folder.")
        save_result(file, dict[str, Any], identity)
        return
    known = load_result(file, dict[str, Any])
    other = [name for name, value in identity.items() if known.get(name) != value]
    if other:
        raise ConfigError(
            f"{folder} holds a search with another {' and another '.join(other)}: choose another folder."
        )


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder of a search, or raise `ConfigError`; the system frees it when its holder is killed."""
    import filelock

    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ConfigError(f"Another search is running in {folder}: wait for it or choose another folder.") from None
    except OSError as error:
        raise ConfigError(
            f"The folder {folder} cannot be written ({error.strerror}): choose another one with --out."
        ) from None
    try:
        yield
    finally:
        lock.release()
