"""What a search found, for a terminal."""

from __future__ import annotations

from collections import Counter
from typing import Final

from workbench.figures.metrics import format_metric, metric_name
from workbench.report.search_rows import words_of
from workbench.report.tuned import tuning_summary
from workbench.tuning.record import TuningRecord
from workbench.tuning.trials import SearchResult, Trial

_SHOWN: Final = 8


def search_summary(result: SearchResult, confirmation: TuningRecord | None) -> str:
    """How many trials of which kind, the best few with their choices, and the confirmation of the first."""
    metric = result.objective.metric
    counts = Counter(trial.state for trial in result.trials)
    seconds = sum(trial.seconds for trial in result.trials)
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    name = metric_name(metric.name)
    lines = [f"{name}: {len(result.trials)} trials in {seconds:.0f} s ({told}); {result.stopped}", ""]
    for trial in _by_value(result)[:_SHOWN]:
        value = trial.metrics.get(metric.name)
        mark = "→" if result.best is not None and trial.number == result.best.number else " "
        kept = "" if trial.feasible is not False else "  misses a constraint"
        shown = format_metric(value, metric.unit)
        lines.append(f"{mark} {trial.number:>4}  {shown:>10}  {words_of(trial, result)}{kept}")
    for trial in result.trials:
        if trial.error is not None:
            lines.append(f"  {trial.number:>4}  {words_of(trial, result)}: {trial.error[1]}")
    lines += ["", result.sentence]
    if confirmation is not None:
        lines += ["", "Measured anew against the base:", tuning_summary(confirmation)]
    return "\n".join(lines)


def _by_value(result: SearchResult) -> list[Trial]:
    """Complete trials, the best first, those that keep every constraint before the others."""
    metric = result.objective.metric
    sign = 1 if metric.smaller_is_better else -1
    complete = [trial for trial in result.trials if trial.state == "complete"]

    def place(trial: Trial) -> tuple[bool, float]:
        value = trial.metrics.get(metric.name)
        return trial.feasible is False, float("inf") if value is None else sign * value

    return sorted(complete, key=place)
