"""A tuning: experiments on one base in one folder, written down so that others can open it, read it and repeat it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from pydantic import ConfigDict

from workbench.config import RunConfig
from workbench.config.strict import nearest
from workbench.errors import ConfigError
from workbench.runs.manifest import DeviceInfo, Manifest
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.comparison import last_of_rounds
from workbench.tuning.experiment import RUNS, Experiment, Trials
from workbench.tuning.metric import latency
from workbench.tuning.objective import Constraint, Objective, best, total_miss
from workbench.tuning.rounds import Rounds
from workbench.tuning.store import load_result, save_blocks, save_result
from workbench.version import __version__

if TYPE_CHECKING:
    import pandas as pd

RESULT: Final = "tuning.json"
SPEED_CHANGE: Final = 0.1
"""Between the profile of the base and its rounds; fresh processes of one configuration differ by 1 to 5 %."""


@dataclass(frozen=True)
class TuningRecord:
    """Experiments on one base.

    objective, constraints: as users write them. base: its options. values: arm → metric → median over the blocks that
    count, one for each round, in the metric's unit, None where not measured. best: the arm to take, and a sentence on
    it. repeated: rounds that were disturbed and measured again, with the reasons. notes: what a reader has to know of
    all of them. rounds, seed: with the base and `runs/`, what it takes to repeat it.
    """

    model: str
    model_sha256: str
    device: DeviceInfo
    software: dict[str, str]
    objective: str
    constraints: list[str]
    base: dict[str, Any]
    rounds: int
    seed: int
    experiments: list[Experiment]
    values: dict[str, dict[str, float | None]]
    best: str
    best_because: str
    repeated: dict[int, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cancelled: bool = False
    created_ns: int = 0
    workbench_version: str = __version__

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")  # an output's error may be infinite

    @classmethod
    def of(
        cls,
        trials: Trials,
        folder: Path,
        base: RunConfig,
        objective: Objective,
        constraints: Sequence[Constraint],
        *,
        rounds: int,
        seed: int,
    ) -> Self:
        """Sum up the trials whose runs lie in `folder`, and write `tuning.json` and `blocks.parquet` there."""
        manifest = RunFolder(folder / RUNS / BASE).manifest
        metrics = {metric.name: metric for metric in (objective.metric, *(limit.metric for limit in constraints))}
        values = {
            arm: {name: _median(metric.values(_counted(trials.rounds, arm))) for name, metric in metrics.items()}
            for arm in (BASE, *(each.lever for each in trials.experiments if each.comparison is not None))
        }
        arm, because = _best(trials.experiments, values, objective, constraints)
        found = cls(
            model=manifest.model.name,
            model_sha256=manifest.model.sha256,
            device=manifest.device,
            software=manifest.software,
            objective=objective.metric.name,
            constraints=[limit.text for limit in constraints],
            base=base.model_dump(mode="json", exclude_unset=True),
            rounds=rounds,
            seed=seed,
            experiments=trials.experiments,
            values=values,
            best=arm,
            best_because=because,
            repeated=trials.rounds.repeated,
            notes=_notes(manifest, _counted(trials.rounds, BASE)),
            cancelled=trials.rounds.cancelled,
            created_ns=time.time_ns(),
        )
        save_blocks(folder, trials.rounds.blocks)
        save_result(folder / RESULT, cls, found)
        return found

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `of` wrote; raises `RunFolderError`."""
        return load_result(folder / RESULT, cls)

    def config_of(self, arm: str) -> RunConfig:
        """The configuration of the base or of a lever; raises `ConfigError` for one that has none."""
        configs = {each.lever: each.config for each in self.experiments if each.config is not None}
        known = {BASE: self.base, **configs}
        if arm not in known:
            raise ConfigError(f"There is no configuration of {arm!r} here: {nearest(arm, known)}")
        return RunConfig(**known[arm])

    @property
    def feasible(self) -> bool | None:
        """Whether the medians of the best arm keep every constraint; None where its objective was not measured."""
        if self.values[self.best][self.objective] is None:
            return None
        return total_miss(self.values[self.best], [Constraint.parse(text) for text in self.constraints]) == 0

    def to_frame(self) -> pd.DataFrame:
        """One row per experiment in the metric of the objective.

        Columns: name, title, metric, unit, base, variant (medians in `unit`), ratio, low, high (variant / base with its
        interval), outcome, predicted, predicted_low, predicted_high (of the ratio), parity (`within`, `beyond` or `not
        checked`), improvement, why. NaN where not known.
        """
        import pandas as pd

        rows = [_row(each, Objective.parse(self.objective)) for each in self.experiments]
        return pd.DataFrame(rows, columns=list(_row(_NONE, Objective.parse(self.objective))))


def _notes(manifest: Manifest, blocks: Sequence[Block]) -> list[str]:
    """How far the base ran at another speed than when it was profiled, which every predicted ratio inherits."""
    profiled = manifest.latency.median_ns if manifest.latency is not None else None
    measured = _median(latency().values(blocks))
    if not profiled or not measured or abs(math.log(measured / profiled)) < math.log1p(SPEED_CHANGE):
        return []
    unit, scale_ns = ("ms", 1e6) if min(measured, profiled) >= 1e6 else ("µs", 1e3)
    return [
        f"A call of the base took {measured / scale_ns:.3g} {unit} in these rounds and {profiled / scale_ns:.3g} "
        f"{unit} when it was profiled, which is what the predictions are made from."
    ]


_NONE: Final = Experiment("", "", "", "")


def _best(
    experiments: Sequence[Experiment],
    values: Mapping[str, Mapping[str, float | None]],
    objective: Objective,
    constraints: Sequence[Constraint],
) -> tuple[str, str]:
    """The arm to take: among the base and what improves it; where none of these keeps the constraints, among all that
    keep their outputs and ran as asked."""
    sound = [each for each in experiments if each.comparison is not None and each.outcome == each.comparison.outcome]
    improved = [BASE, *(each.lever for each in sound if each.improvement)]
    known, found = improved, best([values[arm] for arm in improved], objective, constraints)
    if found is not None and not found.feasible:
        known = [BASE, *(each.lever for each in sound)]
        found = best([values[arm] for arm in known], objective, constraints)
    if found is None:
        return BASE, "Nothing was measured, so the base stays."
    if known[found.index] == BASE and found.feasible:
        return BASE, "No lever improves on the base beyond doubt, so the base stays."
    return known[found.index], found.sentence


def _counted(rounds: Rounds, arm: str) -> list[Block]:
    return list(last_of_rounds(rounds.of(arm)).values())


def _median(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _row(experiment: Experiment, objective: Objective) -> dict[str, Any]:
    found, parity = experiment.comparison, experiment.parity
    predicted = _predicted(experiment, objective)

    def number(source: object, name: str) -> float:
        value = getattr(source, name, None)
        return math.nan if value is None else float(value)

    return {
        "name": experiment.lever,
        "title": experiment.title,
        "metric": objective.metric.name,
        "unit": objective.metric.unit,
        "base": number(found, "base_value"),
        "variant": number(found, "variant_value"),
        **{name: number(found, name) for name in ("ratio", "low", "high")},
        "outcome": experiment.outcome,
        "predicted": predicted[0],
        "predicted_low": predicted[1],
        "predicted_high": predicted[2],
        "parity": "not checked" if parity is None else "within" if parity.within else "beyond",
        "improvement": experiment.improvement,
        "why": experiment.why,
    }


def _predicted(experiment: Experiment, objective: Objective) -> tuple[float, float, float]:
    """Ratio, low and high of the metric, as far as a prediction of the time of an item or call says them."""
    said = experiment.prediction
    if said is None or said.ratio is None or said.low is None or said.high is None:
        return math.nan, math.nan, math.nan
    if objective.metric.unit == "items/s":
        return 1 / said.ratio, 1 / said.high, 1 / said.low
    if objective.metric.name == "latency:p50":
        return said.ratio, said.low, said.high
    return math.nan, math.nan, math.nan
