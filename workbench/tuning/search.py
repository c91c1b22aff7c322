"""Search: cells of a space measured one after the other, each where the last ones say that it pays most.

The trials' own files are the storage. Each is renamed into place when a trial begins and when it ends, so a process
killed at any moment leaves every finished trial whole and the running one marked as running; the Optuna study lives in
memory and is built again from the files. Optuna's storages would be a second record that a kill could leave in
disagreement with the files; moreover, its journal stays locked for half a minute after a kill, and a line cut short
makes it unreadable from the next line on.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.capture.model import sha256
from workbench.config import RunConfig
from workbench.errors import ConfigError, DiskFullError, NoDriverError, WorkbenchError, from_kind
from workbench.runs.writer import full_disk_is_said
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.judgement import incumbent_of, judged
from workbench.tuning.objective import Constraint, Objective, best
from workbench.tuning.space import Assignment, Space, key_of
from workbench.tuning.trials import SearchResult, Trial, alone_in, claim, next_number, read_trials, standard_metrics

if TYPE_CHECKING:
    import optuna

Evaluate = Callable[[RunConfig, Path, int], Block]
"""Measures one round: configuration, folder of the trial, round from 0."""

_RATIOS: Final = 1e3
"""A metric further from its limit than this factor, such as no bytes at all, is as good as at this factor."""


def search(
    space: Space,
    evaluate: Evaluate,
    objective: Objective,
    constraints: Sequence[Constraint] = (),
    *,
    folder: Path,
    budget_s: float | None = None,
    max_trials: int | None = None,
    rounds: int = 3,
    seed: int = 0,
    first: Sequence[Assignment] = (),
    progress: Callable[[str, float | None], None] = lambda text, share: None,
    cancelled: threading.Event | None = None,
    held: bool = False,
) -> SearchResult:
    """Look for the best configuration of the space under the constraints.

    The base is measured first, then the assignments of `first` (dimensions left out are as in the base), then what the
    sampler proposes. A configuration is measured once, in up to `rounds` rounds; its metrics are medians over them. The
    search ends when the space is exhausted, when `max_trials` have been measured, after the trial during which
    `budget_s` seconds of measuring have passed, or after the round during which `cancelled` is set. Called again with
    the same folder it goes on: trials and seconds of earlier calls count, and a trial that was running is repeated.

    progress: gets the trial in words and the share of trials or budget spent, None when neither is limited. held:
    whether the caller holds the folder already (`alone_in`). Raises `ConfigError` for a folder of another search or one
    in use, and for unknown names in `first`; `RunFolderError` for a damaged folder; `DiskFullError` and
    `NoDriverError`, which no other configuration would change.
    """
    check_limits(rounds, max_trials, budget_s)
    wanted = [space.base_assignment | dict(each) for each in ({}, *first)]
    for each in wanted:
        space.choices_of(each)
    with full_disk_is_said(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with nullcontext() if held else alone_in(folder), _quiet_optuna():
            claim(folder, _identity(space, objective, constraints, rounds))
            state = _Search(space, evaluate, objective, tuple(constraints), folder, rounds, seed)
            state.queue.extend(wanted)
            stopped = state.run(budget_s or math.inf, max_trials or math.inf, progress, cancelled or threading.Event())
            return state.result(stopped)


def check_limits(rounds: int, max_trials: int | None, budget_s: float | None) -> None:
    """Raise `ConfigError` for limits under which nothing could be measured."""
    if rounds < 1 or (max_trials is not None and max_trials < 1) or (budget_s is not None and not budget_s > 0):
        raise ConfigError("A search needs at least one round, one trial and some seconds: raise what is below.")


class _Search:
    """The trials so far, and the Optuna study that mirrors the finished ones."""

    def __init__(
        self,
        space: Space,
        evaluate: Evaluate,
        objective: Objective,
        constraints: tuple[Constraint, ...],
        folder: Path,
        rounds: int,
        seed: int,
    ) -> None:
        import optuna

        from workbench.tuning.sampler import SurrogateSampler

        self.space, self.evaluate, self.objective, self.constraints = space, evaluate, objective, constraints
        self.folder, self.rounds = folder, rounds
        self.metrics = standard_metrics(objective, constraints)
        self.queue: deque[dict[str, str]] = deque()
        self.tried: set[str] = set()
        self.trials: list[Trial] = []
        self.distributions = {
            name: optuna.distributions.CategoricalDistribution([choice.name for choice in choices])
            for name, choices in space.dimensions.items()
        }
        direction = "minimize" if objective.metric.smaller_is_better else "maximize"
        self.study = optuna.create_study(direction=direction, sampler=SurrogateSampler(space, self._usable, seed))
        for trial in read_trials(folder):
            if trial.state == "running":
                trial.tidy(folder)
                self._keep(replace(trial, state="lost", reason="Killed while it ran, and queued again."))
            else:
                self._keep(trial, write=False)
        self.queue.extend(trial.assignment for trial in self.trials if trial.state == "lost")

    def run(
        self,
        budget_s: float,
        max_trials: float,
        progress: Callable[[str, float | None], None],
        cancelled: threading.Event,
    ) -> str:
        """Measure until something ends the search; returns what it was."""
        while True:
            count = sum(trial.state in ("complete", "pruned", "failed") for trial in self.trials)
            spent_s = sum(trial.seconds for trial in self.trials)
            if cancelled.is_set():
                return "cancelled"
            if count >= max_trials:
                return f"{count} trials measured"
            if spent_s >= budget_s:
                return f"budget of {budget_s:g} s spent"
            assignment = self._next()
            if assignment is None:
                return "no configuration left to measure"
            limited = min(max_trials, budget_s) < math.inf
            share = max(count / max_trials, spent_s / budget_s) if limited else None
            progress(f"trial {count + 1}: {self._words(assignment)}", share)
            self._measure(assignment, cancelled)

    def _words(self, assignment: Assignment) -> str:
        """What differs from the base."""
        base = self.space.base_assignment
        return ", ".join(f"{name} {choice}" for name, choice in assignment.items() if choice != base[name]) or BASE

    def _next(self) -> dict[str, str] | None:
        """The next assignment to measure: from the queue, else from the sampler; None when the space is exhausted."""
        from workbench.tuning.sampler import ExhaustedError

        while self.queue:
            assignment = self.queue.popleft()
            try:
                key = key_of(self.space.config_of(assignment))
            except ConfigError as error:
                self._refuse(assignment, error)
                continue
            if key not in self.tried:
                return assignment
        try:
            trial = self.study.ask(self.distributions)
        except ExhaustedError:
            return None
        # a trial that is only asked for stays unfinished in the study, which the sampler leaves out of account
        return dict(trial.params)

    def _usable(self, cell: tuple[int, ...]) -> bool:
        """Whether a cell can be configured, and its configuration was not tried."""
        choices = zip(self.space.dimensions.items(), cell, strict=True)
        try:
            config = self.space.config_of({name: among[index].name for (name, among), index in choices})
        except ConfigError:
            return False
        return key_of(config) not in self.tried

    def _refuse(self, assignment: dict[str, str], error: ConfigError) -> None:
        """Keep why an assignment cannot be configured, once."""
        if all(trial.assignment != assignment for trial in self.trials):
            number, kind = next_number(self.folder), type(error).__name__
            self._keep(Trial(number, assignment, "impossible", error=(kind, str(error)), reason=str(error)))

    def _measure(self, assignment: dict[str, str], cancelled: threading.Event) -> None:
        config = self.space.config_of(assignment)
        options = config.model_dump(mode="json", exclude_unset=True)
        trial = Trial(next_number(self.folder), assignment, "running", options)
        trial.save(self.folder)
        began = time.monotonic()
        incumbent = incumbent_of(self.trials, self.objective, self.constraints)
        try:
            while trial.state == "running":
                trial = judged(
                    trial, self._block(config, trial), metrics=self.metrics, rounds=self.rounds,
                    objective=self.objective, constraints=self.constraints, incumbent=incumbent,
                )  # fmt: skip
                if cancelled.is_set() and trial.state == "running":
                    trial = replace(trial, state="lost", reason="Cancelled while it ran.")
        finally:
            trial.tidy(self.folder)
        self._keep(replace(trial, seconds=time.monotonic() - began))

    def _block(self, config: RunConfig, trial: Trial) -> Block:
        """Measure one round; an error is the block's own, unless no other configuration could be measured either."""
        index = len(trial.rounds)
        try:
            block = self.evaluate(config, trial.folder_in(self.folder), index)
            error = from_kind(*block.error) if block.error else None
        except WorkbenchError as raised:
            error = raised
            block = Block(f"trial_{trial.number}", index, index, error=(type(raised).__name__, str(raised)))
        if isinstance(error, DiskFullError | NoDriverError):
            raise error
        return block

    def _keep(self, trial: Trial, write: bool = True) -> None:
        """Add a trial that ended to the record and to the study."""
        if write:
            trial.save(self.folder)
        self.trials.append(trial)
        if trial.state in ("complete", "pruned", "failed"):
            assert trial.config is not None
            self.tried.add(key_of(trial.config))
            self.study.add_trial(self._as_optuna(trial))

    def _as_optuna(self, trial: Trial) -> optuna.trial.FrozenTrial:
        """A measured trial as Optuna knows it; constraints are logarithms of value over limit, or its inverse.

        A pruned trial is complete to Optuna, with the medians of the rounds it had, from which the sampler learns.
        """
        import optuna

        params = {"params": trial.assignment, "distributions": self.distributions}
        value = trial.metrics.get(self.objective.metric.name)
        if trial.state == "failed" or value is None:
            return optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, **params)
        signed = {each.text: _signed(each, trial.metrics[each.metric.name]) for each in self.constraints}
        return optuna.trial.create_trial(value=value, constraints=signed, **params)

    def result(self, stopped: str) -> SearchResult:
        """Everything found so far."""
        complete = [trial for trial in self.trials if trial.state == "complete"]
        found = best([trial.metrics for trial in complete], self.objective, self.constraints)
        chosen = complete[found.index] if found else None
        sentence = found.sentence if found else "No configuration could be measured: the trials say why."
        return SearchResult(self.folder, self.objective, self.constraints, self.trials, chosen, sentence, stopped)


def _signed(constraint: Constraint, value: float | None) -> float:
    """Log of value over limit for an upper limit, of its inverse for a lower one: above 0 when the limit is missed."""
    if value is None:
        return math.inf
    ratio = min(max(value / constraint.limit, 1 / _RATIOS), _RATIOS)
    return math.log(ratio) if constraint.metric.smaller_is_better else -math.log(ratio)


def _identity(space: Space, objective: Objective, constraints: Sequence[Constraint], rounds: int) -> dict[str, Any]:
    """What makes trials comparable with each other, as plain data."""
    model = Path(space.base.model)
    return {
        **space.to_json(),
        "model": sha256(model) if model.is_file() else space.base.model,
        "objective": objective.metric.name,
        "constraints": [[each.metric.name, each.limit] for each in constraints],
        "rounds": rounds,
    }


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Leave out Optuna's line per study and trial, and give the user's own setting back."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)
