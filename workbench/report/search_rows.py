"""What the page of a search says of its trials: rows, made from the search alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import pandas as pd

from workbench.figures.metrics import format_metric, metric_name
from workbench.figures.pareto import pareto
from workbench.report.redact import without_folders
from workbench.tuning.blocks import BASE
from workbench.tuning.objective import metric_of
from workbench.tuning.record import TuningRecord
from workbench.tuning.trials import SearchResult, Trial

if TYPE_CHECKING:
    import plotly.graph_objects as go

_LAST: Final = {"complete": 0, "pruned": 2, "failed": 3, "lost": 4, "impossible": 5, "running": 6}
_STATES: Final = {"pruned": "given up early", "impossible": "cannot be configured"}


class TrialRow(NamedTuple):
    """One trial as cells; values in the order of `metrics_of`."""

    number: int
    words: str
    state: str
    values: list[str]
    rounds: int
    why: str


def words_of(trial: Trial, result: SearchResult) -> str:
    """What differs from the base, which every search measures first; the name of a lever says of what it is."""
    base = result.trials[0].assignment
    chosen = [(name, choice) for name, choice in trial.assignment.items() if base.get(name) != choice]
    return " + ".join(choice if base.get(name) == BASE else f"{name} {choice}" for name, choice in chosen) or BASE


def metrics_of(result: SearchResult) -> list[str]:
    """The metrics that any trial has, that of the objective first."""
    known = {name for trial in result.trials for name, value in trial.metrics.items() if value is not None}
    names = dict.fromkeys([result.objective.metric.name, *(name for trial in result.trials for name in trial.metrics)])
    return [name for name in names if name in known]


def trial_rows(result: SearchResult) -> list[TrialRow]:
    """Every trial: the best first, then those that miss a constraint, then those without all their rounds."""
    metric = result.objective.metric
    sign = 1 if metric.smaller_is_better else -1

    def place(trial: Trial) -> tuple[int, float]:
        value = trial.metrics.get(metric.name)
        missed = trial.state == "complete" and not trial.feasible
        return _LAST[trial.state] + missed, float("inf") if value is None else sign * value

    return [_row(trial, result) for trial in sorted(result.trials, key=place)]


def history(result: SearchResult) -> pd.DataFrame:
    """The table that `workbench.figures.history.search_history` draws."""
    metric = result.objective.metric.name
    rows = [
        (trial.number, words_of(trial, result), trial.state, trial.feasible, trial.metrics.get(metric))
        for trial in result.trials
    ]
    names = ["number", "words", "state", "feasible", "value"]
    return pd.DataFrame(rows, columns=names).astype({"value": "float64"})


def candidates(result: SearchResult) -> pd.DataFrame:
    """Every trial that was measured, by its number: the columns that `workbench.figures.pareto.pareto` draws.

    Latency is that of the objective or else P50, memory that of the device or, where no trial has it, of the host.
    """
    memory = "memory" if "memory" in metrics_of(result) else "host-memory"
    metrics = {"latency_ns": latency_of(result), "items_per_s": "throughput", "memory_bytes": memory}
    rows = [
        (str(trial.number), *(trial.metrics.get(metric) for metric in metrics.values()), bool(trial.feasible), None)
        for trial in result.trials
        if trial.state in ("complete", "pruned")
    ]
    table = pd.DataFrame(rows, columns=["name", *metrics, "feasible", "error"])
    return table.astype(dict.fromkeys(metrics, "float64"))


def front(result: SearchResult) -> go.Figure:
    """The figure of what can be had at once, with the best trial marked."""
    best = None if result.best is None else str(result.best.number)
    return pareto(candidates(result), best=best, latency_name=metric_name(latency_of(result)))


def latency_of(result: SearchResult) -> str:
    """The metric that stands for latency in the front."""
    name = result.objective.metric.name
    return name if name.startswith("latency:") else "latency:p50"


def best_sentences(result: SearchResult, confirmation: TuningRecord | None) -> list[str]:
    """What the best trial gave, and how that is to be taken."""
    best = result.best
    if best is None:
        return [result.sentence]
    found = [f"{_value(result, best)} (rounds: {len(best.rounds)})."]
    if result.constraints:
        found.append(result.sentence)
    if best.assignment == result.trials[0].assignment:
        found.append("No trial is better than the base.")
    elif confirmation is None:
        found.append(
            "It was picked for its measured value, which flatters it: an experiment against the base tells more."
        )
    else:
        outcome = confirmation.experiments[0].outcome
        stays = " So the base stays." if confirmation.best == BASE else ""
        found.append(f"Measured anew against the base: {outcome}.{stays}")
    return found


def counts(result: SearchResult) -> str:
    """How many trials of which state, and why the search ended."""
    states = Counter(_STATES.get(trial.state, trial.state) for trial in result.trials)
    told = ", ".join(f"{number:,} {state}" for state, number in states.items())
    seconds = sum(trial.seconds for trial in result.trials)
    return f"{told}; {seconds:,.0f} s of measuring; ended: {result.stopped}"


def _row(trial: Trial, result: SearchResult) -> TrialRow:
    state = _STATES.get(trial.state, trial.state)
    if trial.state == "complete" and not trial.feasible:
        state = "misses a constraint"
    values = [format_metric(trial.metrics.get(name), metric_of(name).unit) for name in metrics_of(result)]
    why = without_folders(trial.reason or (trial.error[1] if trial.error else ""))
    return TrialRow(trial.number, words_of(trial, result), state, values, len(trial.rounds), why)


def _value(result: SearchResult, trial: Trial) -> str:
    """The objective of a trial in words, such as `P50 latency 837 µs`."""
    metric = result.objective.metric
    return f"{metric_name(metric.name)} {format_metric(trial.metrics.get(metric.name), metric.unit)}"
