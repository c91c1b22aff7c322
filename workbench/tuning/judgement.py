"""A trial after each of its rounds: measured on, given up, failed or complete."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from workbench.tuning.blocks import Block
from workbench.tuning.metric import Metric
from workbench.tuning.objective import Constraint, Objective, Values, best, total_miss
from workbench.tuning.trials import Trial

PRUNE_MARGIN: Final = 0.10
"""A trial is given up when each of its rounds is worse than the same round of the best by more than this share.

Processes that run the same differ by 1 to 3 %, the ratio of two of them by 1.4 to 4.2 % (one standard deviation), so
that a margin of 10 % gives up an equal in about one trial of a hundred, and a better one hardly ever. The Wilcoxon test
that Optuna prunes with is silent up to the third round: the smallest p-value of n pairs is 2^-n.
"""


def judged(
    trial: Trial,
    block: Block,
    *,
    metrics: Sequence[Metric],
    rounds: int,
    objective: Objective,
    constraints: Sequence[Constraint],
    incumbent: Trial | None,
) -> Trial:
    """The trial with one block more, and its state after it.

    incumbent: the best complete trial that keeps every constraint; without one, and in a disturbed block, nothing is
    given up.
    """
    if block.error:
        return replace(trial, state="failed", error=block.error, reason=block.error[1])
    measured = [*trial.rounds, {metric.name: _known(metric.of(block)) for metric in metrics}]
    medians = {metric.name: _median([values[metric.name] for values in measured]) for metric in metrics}
    feasible = total_miss(medians, constraints) == 0
    trial = replace(trial, rounds=measured, metrics=medians, feasible=feasible)
    if len(measured) == rounds:
        if medians[objective.metric.name] is None:
            return replace(trial, state="failed", reason=f"No round measured {objective.metric.name}.")
        return replace(trial, state="complete")
    if incumbent and not block.disturbances and (reason := _hopeless(measured, incumbent, objective, constraints)):
        return replace(trial, state="pruned", reason=reason)
    return trial


def incumbent_of(trials: Sequence[Trial], objective: Objective, constraints: Sequence[Constraint]) -> Trial | None:
    """The best complete trial that keeps every constraint, None when there is none."""
    complete = [trial for trial in trials if trial.state == "complete" and trial.feasible]
    found = best([trial.metrics for trial in complete], objective, constraints)
    return complete[found.index] if found else None


def _hopeless(
    measured: Sequence[Values], incumbent: Trial, objective: Objective, constraints: Sequence[Constraint]
) -> str:
    """Why a trial is not going to be the best, as each of its rounds says; empty when they do not."""
    name = objective.metric.name
    pairs = zip(measured, incumbent.rounds, strict=False)
    if all(_clearly_worse(mine[name], other[name], objective) for mine, other in pairs):
        return f"{name} is more than {PRUNE_MARGIN:.0%} worse than that of trial {incumbent.number} in each round."
    for constraint in constraints:
        misses = [constraint.miss(values[constraint.metric.name]) for values in measured]
        if all(PRUNE_MARGIN < miss < math.inf for miss in misses):
            return f"{constraint.text} is missed by more than {PRUNE_MARGIN:.0%} in each round."
    return ""


def _clearly_worse(mine: float | None, other: float | None, objective: Objective) -> bool:
    if mine is None or other is None:
        return False
    larger, smaller = (mine, other) if objective.metric.smaller_is_better else (other, mine)
    return larger > smaller * (1 + PRUNE_MARGIN)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
