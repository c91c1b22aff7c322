"""Widgets for a notebook: they need the extra `lab`, and say so where it is not installed."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from workbench.api.base import Base, ready
from workbench.api.run import Run, load, profile
from workbench.api.tuning import Tuning, tune
from workbench.capture.record import DEFAULT_TIMEOUT_S
from workbench.capture.resolve import Activity
from workbench.tuning.record import RESULT
from workbench.tuning.rounds import Progress

if TYPE_CHECKING:
    import ipywidgets

AnyRun = Run | str | Path
"""A run, its folder, or the name of a sample."""


def explore(run: AnyRun, other: AnyRun | None = None) -> ipywidgets.Widget:
    """Look through a run: its verdict, timeline, nodes, kernels, roofline and counters, all linked.

    run: a run, its folder, or the name of a sample. other: a second run, to see side by side with its calls aligned.
    Raises `RunFolderError` for what is no run, `ConfigError` without the extra `lab`.
    """
    _require_lab()
    if other is None:
        from workbench.widgets.explore import Explorer

        return Explorer(_opened(run))
    from workbench.widgets.explore_pair import PairExplorer

    return PairExplorer(_opened(run), _opened(other))


def lab(
    base: Base | Tuning,
    *,
    activity: Activity = "auto",
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
) -> ipywidgets.Widget:
    """Try levers on a model and see prediction beside measurement, in the background, until the best is a file.

    base: a model (file or name of the zoo), a `RunConfig` or a mapping of its options, or a run, which is then not
    recorded again to be diagnosed. A recorded `Tuning`, or its folder, is replayed: nothing is measured. Experiments
    are kept in `runs/<model>-tuning-<time>`. activity, timeout_s: as in `profile`.

    Raises `ConfigError` without the extra `lab`, and what `tune` raises for a base that cannot be run.
    """
    _require_lab()
    from workbench.widgets.lab import Lab
    from workbench.widgets.lab_bench import Choice, LiveBench
    from workbench.widgets.lab_replay import ReplayBench, where_and_when

    tuning = _tuning(base)
    if tuning is not None:
        return Lab(ReplayBench(tuning), subject=tuning.record.model, recorded=where_and_when(tuning.record))
    config = ready(base)  # type: ignore[arg-type]  # no Tuning any more

    def profiled(progress: Progress) -> Run:
        if isinstance(base, Run):
            return base
        return profile(config=config, activity=activity, timeout_s=timeout_s, progress=progress)

    def tuned(choice: Choice, progress: Progress, cancelled: Event) -> Tuning:
        return tune(
            config, levers=choice.levers, objective=choice.objective, constraints=choice.constraints,
            rounds=choice.rounds, activity=activity, timeout_s=timeout_s, progress=progress, cancelled=cancelled,
        )  # fmt: skip

    return Lab(LiveBench(profiled, tuned), subject=Path(config.model).stem)


def quiz(*runs: AnyRun) -> ipywidgets.Widget:
    """Predict what a run waits for, then see the answer and its arithmetic.

    runs: one, or several to go through, each a run, its folder, or the name of a sample.
    Raises `RunFolderError` for what is no run, `ConfigError` without the extra `lab` or without a run.
    """
    _require_lab()
    from workbench.widgets.quiz import Case, Quiz

    opened = [_opened(run) for run in runs]
    return Quiz([Case(run, run.diagnosis) for run in opened])


def monitor(device: int = 0, *, interval_s: float = 1.0) -> ipywidgets.Widget:
    """Watch a GPU: utilisation, memory, power, clocks and PCIe traffic as NVML tells them, and GPM counters.

    device: CUDA device number. interval_s: seconds between two points of a line, each the mean of many samples. It goes
    on until it is closed, and can be paused and saved. Raises `ConfigError` without the extra `lab`.
    """
    _require_lab()
    from workbench.widgets.monitor import Monitor

    return Monitor(device, interval_s=interval_s)


def _require_lab() -> None:
    from workbench.widgets.base import require_lab

    require_lab()


def _opened(run: AnyRun) -> Run:
    return run if isinstance(run, Run) else load(run)


def _tuning(base: Base | Tuning) -> Tuning | None:
    """The recorded experiments that are meant, None for what is to be measured."""
    if isinstance(base, Tuning):
        return base
    return Tuning(base) if isinstance(base, (str, Path)) and (Path(base) / RESULT).is_file() else None
