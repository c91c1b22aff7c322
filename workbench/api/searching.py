"""The best configuration of all that the levers span, found by measuring few of them."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Final

from workbench.api.base import (
    AnyLever,
    Base,
    check_measurable,
    device_of,
    levers_of,
    purpose_of,
    ready,
    worth_trying,
)
from workbench.api.display import Displayed, search_html
from workbench.api.run import Run, free_folder
from workbench.api.tuning import BEST_FILE, Tuning, tune
from workbench.capture.record import DEFAULT_TIMEOUT_S, TRACED_PASSES
from workbench.config import RunConfig
from workbench.diagnosis.levers import Lever, Ranked, Situation, custom, ranked, situation_of
from workbench.errors import ConfigError, OutputsChangedError, from_kind
from workbench.runs.reader import RunFolder
from workbench.runs.writer import refusal_is_said
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.dimensions import dimensions_of, suggestions
from workbench.tuning.executors import Executor, LocalExecutor
from workbench.tuning.experiment import VARIANT_PASSES, OutputCheck, output_parity
from workbench.tuning.measure import Job, measure_block, record_block
from workbench.tuning.objective import Constraint, Objective
from workbench.tuning.rounds import block_for, check_calls, check_seed, with_block
from workbench.tuning.space import Space
from workbench.tuning.trials import SHARED, SearchResult, Trial, alone_in, next_number

if TYPE_CHECKING:
    import plotly.graph_objects as go

MOST_SUGGESTIONS: Final = 6
RUN: Final = "run"
BEST: Final = "best"
CONFIRMATION: Final = "confirmation"


class Search(Displayed):
    """A search that has ended, or a part of it: every trial is a run that can be opened and diagnosed."""

    def __init__(self, result: SearchResult, confirmation: Tuning | None) -> None:
        self.result, self.confirmation = result, confirmation

    @property
    def folder(self) -> Path:
        """Where the search lies; the same call with this folder goes on with it."""
        return self.result.folder

    @property
    def best(self) -> Trial | None:
        """The best trial that keeps every constraint, or the closest; None when none completed."""
        return self.result.best

    def run(self, number: int | None = None) -> Run:
        """The run of a trial, by default of the best; without one that of the base. Raises `RunFolderError`."""
        chosen = self.best.number if number is None and self.best is not None else number
        return Run(self.folder / BASE if chosen is None else self.folder / f"trial_{chosen}" / RUN)

    def figure(self) -> go.Figure:
        """Latency against throughput of every trial, with the Pareto front and the best marked."""
        from workbench.report.search_rows import front

        return front(self.result)

    def report(self, path: str | Path) -> Path:
        """Write the search as one HTML file that opens offline; raises `DiskFullError`."""
        from workbench.report.tuned_html import write_search_page

        return write_search_page(self, Path(path))

    def summary(self) -> str:
        """The search for a terminal."""
        from workbench.report.searched import search_summary

        return search_summary(self.result, self.confirmation.record if self.confirmation else None)

    def _html(self) -> str:
        return search_html(self)

    def __repr__(self) -> str:
        return f"<Search of {len(self.result.trials)} trials: {self.folder}>"


def search(
    base: Base,
    *,
    objective: str = "latency",
    constraints: Iterable[str] = (),
    levers: Sequence[AnyLever] | None = None,
    max_trials: int | None = None,
    budget_s: float | None = None,
    rounds: int = 3,
    seed: int = 0,
    check: OutputCheck | None = None,
    confirm_rounds: int = 6,
    out: str | Path | None = None,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    progress: Callable[[str, float | None], None] = lambda text, share: None,
    cancelled: Event | None = None,
) -> Search:
    """Search the combinations of levers for the best configuration under the constraints.

    levers: those that span the space, by default all that apply and serve the objective; those that set the same option
    exclude one another. The diagnosis of the base says where the search begins. max_trials, budget_s: when it ends.
    rounds: most processes for a trial; a trial that is clearly worse gets fewer. check: what outputs have to keep; a
    trial that does not is failed. confirm_rounds: rounds of a last experiment of the best against the base, which
    undoes the luck of being picked; 0 leaves it out. out: folder to make, or to go on with; `best.yaml` in it is the
    best that was found, or the base where the confirmation shows no improvement.

    Raises `ConfigError` for options that cannot be, what the base raises when it cannot run, and `RunFolderError`. An
    interrupt and an error carry a note of where the finished trials are kept.
    """
    from workbench.tuning.search import check_limits
    from workbench.tuning.search import search as look

    check_limits(rounds, max_trials, budget_s)
    check_seed(seed)
    config = ready(base)
    named = None if levers is None else levers_of(levers, config)
    goal, limits = Objective.parse(objective), [Constraint.parse(text) for text in constraints]
    decisive = [goal.metric, *(limit.metric for limit in limits)]
    check_measurable(decisive, config)
    block = block_for(decisive)
    folder = Path(out) if out is not None else free_folder(f"{Path(config.model).stem}-search")
    with _held(folder), LocalExecutor(device_of(config), config.cuda.device_id) as executor:
        progress("record base", None)
        base_run = _base_run(config, folder, executor, timeout_s)
        check_calls(decisive, block, base_run.manifest)
        situation = situation_of(base_run)
        chosen = worth_trying(situation, goal.metric) if named is None else _applicable(named, situation)
        serving = [each for each in chosen if purpose_of(goal.metric) in each.lever.serves]
        space = Space(config, dimensions_of([each.lever for each in chosen], situation))

        def evaluate(variant: RunConfig, trial: Path, number: int) -> Block:
            job = Job(trial.name, with_block(variant, block), number, number, trial / SHARED, timeout_s)
            if number:
                return executor.submit(measure_block, job).result()
            found = executor.submit(record_block, job, trial / RUN, passes=VARIANT_PASSES).result()
            return found if found.error else _checked(found, base_run, RunFolder(trial / RUN), check or OutputCheck())

        result = look(
            space, evaluate, goal, limits, folder=folder, budget_s=budget_s, max_trials=max_trials, rounds=rounds,
            seed=seed, first=suggestions(serving, space, MOST_SUGGESTIONS), progress=progress,
            cancelled=cancelled, held=True,
        )  # fmt: skip
        if result.best is not None and result.best.config is not None:
            result.best.config.save(folder / BEST_FILE)
        stopped = cancelled is not None and cancelled.is_set()
        confirmed = _confirmed(
            result, config, space, 0 if stopped else confirm_rounds, seed=seed, check=check, timeout_s=timeout_s,
            progress=lambda name, share: progress(f"confirm the best: {name}", None), cancelled=cancelled,
        )  # fmt: skip
        if confirmed is not None:
            confirmed.config().save(folder / BEST_FILE)
    return Search(result, confirmed)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Make the folder and hold it; when the search ends early, say what is kept, or keep none where no trial began."""
    is_new = not folder.exists()
    with refusal_is_said(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        try:
            yield
        except BaseException as error:
            if is_new and not next_number(folder):
                shutil.rmtree(folder, ignore_errors=True)
            elif not isinstance(error, ConfigError):
                out = shlex.quote(str(folder))
                error.add_note(f"Finished trials are kept: the same command with --out {out} goes on.")
            raise


def _applicable(named: Sequence[Lever], situation: Situation) -> list[Ranked]:
    for each in named:
        reason = each.why_not(situation)
        if reason is not None:
            raise ConfigError(f"Lever {each.name!r} does not apply: {reason}")
    return ranked(situation, among=named)


def _base_run(config: RunConfig, folder: Path, executor: Executor, timeout_s: float | None) -> RunFolder:
    """The base, recorded once for all calls that go on with the search."""
    for partial in folder.glob(".*.partial"):  # of a process that was killed: the folder is held by this one
        shutil.rmtree(partial, ignore_errors=True)
    target = folder / BASE
    if not target.is_dir():
        job = Job(BASE, config, 0, 0, folder / SHARED, timeout_s)
        found = executor.submit(record_block, job, target, passes=TRACED_PASSES).result()
        if found.error is not None:
            raise from_kind(*found.error)
    run = RunFolder(target)
    if RunConfig(**run.manifest.config) != config:
        raise ConfigError(f"The search in {folder} is of another base: choose another folder.")
    return run


def _checked(block: Block, base: RunFolder, variant: RunFolder, check: OutputCheck) -> Block:
    """The block, or one with an error when the outputs moved beyond the tolerance."""
    found = output_parity(base, variant, check)
    return block if found.within else replace(block, error=(OutputsChangedError.__name__, found.why))


def _confirmed(result: SearchResult, base: RunConfig, space: Space, rounds: int, **options: Any) -> Tuning | None:
    """The best against the base, measured anew; None where the base is the best or nothing was to be confirmed.

    options: of `tune`.
    """
    best, target = result.best, result.folder / CONFIRMATION
    if target.is_dir():
        kept = Tuning(target)
        if best is not None and kept.experiments[0].config == best.options and not kept.record.cancelled:
            return kept
        shutil.rmtree(target)
    if best is None or not rounds or best.assignment == space.base_assignment:
        return None
    chosen, ours = best.options or {}, base.model_dump(mode="json", exclude_unset=True)
    changes = {name: value for name, value in chosen.items() if ours.get(name) != value}
    return tune(
        base, levers=[custom(BEST, changes)], objective=result.objective.metric.name,
        constraints=[limit.text for limit in result.constraints], rounds=rounds, out=target, **options,
    )  # fmt: skip
