"""How often the verdict is right, on the labelled set of a folder or on one that is recorded on the GPU at hand."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import workbench
from workbench import user_cache
from workbench.capture.machine import gpu_present
from workbench.errors import ConfigError, RunFolderError
from workbench.tuning.executors import LocalExecutor
from workbench.validation.cells import BLOCK, TRACED, groups
from workbench.validation.evaluate import evaluate
from workbench.validation.record import record_set

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from workbench.validation.evaluate import Validation as Figures

Progress = Callable[[str, float], None]

OWN_SET: Final = Path(workbench.__file__).parent.parent / "tests" / "data" / "h200-labelled"
"""The set of a checkout, which an installed package has not beside it."""
ROUNDS: Final = 3
PROCESS_SECONDS: Final = 3.5
"""Of one measuring process beside what it measures: imports, the session and its warm-up, on an H200 host."""
PASSES: Final = 4
MODELS_BYTES: Final = 3 * 10**9
"""All models of the set."""
SCRATCH_BYTES: Final = 10**10
"""The inputs of all arms, and what conversions make of the models."""
SET_BYTES: Final = 4 * 10**7


class Validation:
    """The scores of a labelled set. figures: every table behind them (`workbench.validation.evaluate.Validation`)."""

    def __init__(self, folder: Path, figures: Figures) -> None:
        self.folder, self.figures = folder, figures

    def __str__(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """All of it for a terminal."""
        from workbench.report.validated import validation_summary

        return validation_summary(self.figures)

    def to_dict(self) -> dict[str, Any]:
        """The object that `workbench validate --json` prints."""
        from workbench.report.validated_rows import validation_dict

        return validation_dict(self.figures)

    def share_figure(self) -> go.Figure:
        """Traced against interventional shares."""
        from workbench.report.validated_html import validation_figures

        return validation_figures(self.figures)["shares"]

    def reliability_figure(self) -> go.Figure:
        """Confidence against the fraction that was right."""
        from workbench.report.validated_html import validation_figures

        return validation_figures(self.figures)["reliability"]

    def report(self, path: str | Path) -> Path:
        """Write figures and scores as one HTML file that opens offline; raises `DiskFullError`."""
        from workbench.report.validated_html import write_validation_page

        return write_validation_page(self.figures, Path(path))


def validate(
    folder: str | Path | None = None, *, processes: int = 1, progress: Progress = lambda name, share: None
) -> Validation:
    """Recompute a labelled set from its raw tables, and score the verdict on it.

    folder: that `record_labelled` filled; without one the set of the checkout that this package runs from. processes:
    that share the work; more than one need a main module that can be imported. Raises `ConfigError` where there is no
    set, and `RunFolderError` for a folder that holds none or is damaged.
    """
    if folder is None and not OWN_SET.is_dir():
        raise ConfigError("No labelled set lies beside this package: give a folder, or record one with --live FOLDER.")
    chosen = OWN_SET if folder is None else Path(folder)
    if not chosen.is_dir():
        raise RunFolderError(f"{chosen} is no folder: give one that `workbench validate --live` recorded.")
    return Validation(chosen, evaluate(chosen, processes=processes, progress=progress))


def record_labelled(
    folder: str | Path, *, rounds: int = ROUNDS, progress: Progress = lambda name, share: None
) -> list[str]:
    """Record the labelled set on the GPU at hand, or go on with one, and return what failed, a sentence each.

    Models are kept in the user's cache. An interrupt loses the process that was measuring, and no more. Raises
    `ConfigError` where there is no GPU, no room or no round to record.
    """
    target = Path(folder)
    check_recordable(target, rounds)
    every = groups()
    steps = rounds * len(every)
    done = 0

    def say(text: str) -> None:
        nonlocal done
        done += 1
        progress(text, done / steps)

    with LocalExecutor("cuda") as executor:
        return record_set(target, models_folder(), every, executor, rounds=rounds, say=say)


def check_recordable(folder: Path, rounds: int) -> None:
    """Raise `ConfigError` for what can be known before anything is recorded."""
    if rounds < 1:
        raise ConfigError(f"{rounds} rounds cannot be recorded: take 1 or more.")
    if not gpu_present():
        raise ConfigError("The labelled set is of a GPU, and no NVIDIA driver answers here: record it on a GPU host.")
    scratch = Path(tempfile.gettempdir())
    for place, needed in ((models_folder(), MODELS_BYTES), (scratch, SCRATCH_BYTES), (folder, SET_BYTES)):
        free = shutil.disk_usage(_nearest(place)).free
        if free < needed:
            raise ConfigError(
                f"{place} has {free / 1e9:.1f} GB free, and the set takes {needed / 1e9:.2g} GB there: free some, or "
                "choose another folder (of the models with WORKBENCH_CACHE, of the inputs with TMPDIR)."
            )


def recording_takes(rounds: int) -> str:
    """What recording takes at most, in a sentence for people."""
    every = groups()
    cells = sum(len(group.cells) for group in every)
    blocks = sum(len(group.arms) for group in every) * rounds
    seconds = cells * PASSES * (PROCESS_SECONDS + TRACED.seconds) + blocks * (PROCESS_SECONDS + BLOCK.seconds)
    return (
        f"Recording {cells} cells and {rounds} rounds of {len(every)} groups takes about {seconds / 60:.0f} minutes, "
        f"{SET_BYTES / 1e6:.0f} MB for the set, {MODELS_BYTES / 1e9:.0f} GB for models in {models_folder()} and "
        f"{SCRATCH_BYTES / 1e9:.0f} GB in {tempfile.gettempdir()} while it lasts."
    )


def models_folder() -> Path:
    """Where the models of the set are kept."""
    return user_cache.root() / "labelled-models"


def processors() -> int:
    """How many processes can share the work of this one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _nearest(path: Path) -> Path:
    """The folder itself, or what is there of the way to it."""
    return next(each for each in (path.absolute(), *path.absolute().parents) if each.is_dir())
