"""An experiment that was made elsewhere, answered from its record: any of its levers, metrics, and first rounds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from threading import Event
from typing import Any

import numpy as np

from workbench.report.arms import counted
from workbench.report.tuned_html import Tuned
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.comparison import compare
from workbench.tuning.experiment import Experiment
from workbench.tuning.metric import Metric
from workbench.tuning.objective import Constraint, Objective, best, metric_of
from workbench.tuning.record import TuningRecord
from workbench.widgets.lab_bench import Choice, Measured
from workbench.widgets.lab_job import Progress


class ReplayBench:
    """Answers from a recorded tuning what the same choice would have given there; nothing is measured."""

    def __init__(self, tuning: Tuned) -> None:
        self._tuning = tuning
        in_time = sorted(tuning.blocks, key=lambda block: block.position)
        self._rounds = [list(blocks) for _, blocks in itertools.groupby(in_time, key=lambda block: block.round)]

    @property
    def tried(self) -> Sequence[Experiment]:
        """The experiments of the record."""
        return self._tuning.record.experiments

    @property
    def rounds(self) -> int:
        """How many were measured, those that were measured again counted again."""
        return len(self._rounds)

    def base(self, progress: Progress, cancelled: Event) -> RunFolder:
        """The recorded run of the base."""
        return self._tuning.run(BASE)

    def measure(self, choice: Choice, progress: Progress, cancelled: Event) -> Measured:
        """The levers compared anew over the first `choice.rounds` rounds, in the order in which they were measured.

        What a lever does to the outputs, and whether it is in force, was found once, when it was recorded.
        """
        record = self._tuning.record
        objective = Objective.parse(choice.objective)
        limits = [Constraint.parse(text) for text in choice.constraints]
        blocks = [block for group in self._rounds[: choice.rounds] for block in group]
        experiments = [
            _compared_anew(each, blocks, _metrics(each, objective, limits), record.seed)
            for each in record.experiments
            if each.lever in choice.levers
        ]
        arms = [BASE, *(each.lever for each in experiments if each.comparison is not None)]
        values = {arm: _values(arm, blocks, [objective.metric, *(limit.metric for limit in limits)]) for arm in arms}
        whole = choice.rounds >= self.rounds
        found = replace(
            record,
            objective=objective.metric.name,
            constraints=[limit.text for limit in limits],
            rounds=min(choice.rounds, record.rounds),
            experiments=experiments,
            values=values,
            repeated=record.repeated if whole else {},
            **_best(experiments, values, objective, limits),
        )
        progress("answered from the record", 1.0)
        return Measured(found)


def _metrics(experiment: Experiment, objective: Objective, limits: Sequence[Constraint]) -> list[Metric]:
    """The objective first, then the limits, then what was recorded beside them."""
    recorded = [experiment.comparison, *experiment.others] if experiment.comparison is not None else []
    chosen = [objective.metric, *(limit.metric for limit in limits), *(metric_of(each.metric) for each in recorded)]
    return list({metric.name: metric for metric in chosen}.values())


def _compared_anew(experiment: Experiment, blocks: Sequence[Block], metrics: Sequence[Metric], seed: int) -> Experiment:
    if experiment.comparison is None:
        return experiment
    ours, theirs = ([block for block in blocks if block.arm == arm] for arm in (BASE, experiment.lever))
    main, *others = (compare(ours, theirs, metric, seed=seed) for metric in metrics)
    # failed, not in force, outputs changed: true whatever the metric
    overruled = experiment.outcome != experiment.comparison.outcome
    return replace(
        experiment,
        comparison=main,
        others=others,
        outcome=experiment.outcome if overruled else main.outcome,
        why=experiment.why if overruled else main.why,
        improvement=not overruled and main.outcome == metrics[0].better,
    )


def _values(arm: str, blocks: Sequence[Block], metrics: Sequence[Metric]) -> dict[str, float | None]:
    """Medians over the rounds that count, None where not measured."""
    mine = counted(blocks, arm)
    found = {metric.name: metric.values(mine) for metric in metrics}
    return {
        name: float(np.nanmedian(numbers)) if np.isfinite(numbers).any() else None for name, numbers in found.items()
    }


def _best(
    experiments: Sequence[Experiment],
    values: dict[str, dict[str, float | None]],
    objective: Objective,
    limits: Sequence[Constraint],
) -> dict[str, Any]:
    """The fields `best` and `best_because` of the record, by its rule.

    The base, or what improves it beyond doubt; where none keeps the limits, what kept its outputs and comes closest.
    """
    sound = [each for each in experiments if each.comparison is not None and each.outcome == each.comparison.outcome]
    arms = [BASE, *(each.lever for each in sound if each.improvement)]
    found = best([values[arm] for arm in arms], objective, limits)
    if found is not None and not found.feasible:
        arms = [BASE, *(each.lever for each in sound)]
        found = best([values[arm] for arm in arms], objective, limits)
    if found is None:
        return {"best": BASE, "best_because": "Nothing was measured, so the base stays."}
    if arms[found.index] == BASE and found.feasible:
        return {"best": BASE, "best_because": "No lever improves on the base beyond doubt, so the base stays."}
    return {"best": arms[found.index], "best_because": found.sentence}


def where_and_when(record: TuningRecord) -> str:
    """Device, day and ONNX Runtime of a record."""
    day = np.datetime64(record.created_ns, "ns").astype("datetime64[D]")
    version = record.software.get("onnxruntime")
    return f"{record.device.name}, {day}" + (f", ONNX Runtime {version}" if version else "")
