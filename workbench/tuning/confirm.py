"""Confirms a verdict by intervention: what must help does, by as much as the trace says, and what must not does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Final

from workbench.capture.model import sha256
from workbench.capture.resolve import Activity
from workbench.config import RunConfig
from workbench.diagnosis.interventional import (
    TOLERANCE,
    Intervention,
    InterventionalShare,
    interventions,
    share_of,
)
from workbench.diagnosis.levers import Lever, Situation, situation_of
from workbench.diagnosis.levers.entry import laid_over
from workbench.diagnosis.prediction.formula import Unpredictable
from workbench.diagnosis.shares import CLASSES
from workbench.errors import ConfigError
from workbench.runs.reader import RunFolder
from workbench.tuning.executors import Executor
from workbench.tuning.experiment import Experiment, try_levers
from workbench.tuning.metric import latency
from workbench.tuning.rounds import Progress, Settings

CONFIRMED: Final = "confirmed"
REFUTED: Final = "refuted"
UNDECIDED: Final = "undecided"
NOT_CONFIRMABLE: Final = "not confirmable"


@dataclass(frozen=True)
class Trial:
    """A lever tried as an intervention: what was predicted and measured, and the share that follows, if any."""

    experiment: Experiment
    share: InterventionalShare | None = None


@dataclass(frozen=True)
class Step:
    """One class put to the test. must_help, must_not: None where no lever could be tried; `why` says all of it."""

    share: str
    outcome: str
    why: str
    must_help: Trial | None = None
    must_not: Trial | None = None


@dataclass(frozen=True)
class Confirmation:
    """A verdict and what the interventions say of it.

    verdict: as diagnosed. outcome: that of the verdict's class, or of the first of its pair. confirmed: the class that
    the interventions confirm, which after a refutation is another one; None where there is none. steps: in their order.
    """

    verdict: str
    outcome: str
    confirmed: str | None
    steps: list[Step] = field(default_factory=list)


def judge(must_help: InterventionalShare, must_not: InterventionalShare | None) -> tuple[str, str]:
    """An outcome and its reason, from two shares.

    Confirmed when the lever has an effect beyond doubt that gives the class at least what the trace gives it, less the
    class's tolerance, while the control does not help by more than its own traced share and tolerance. Refuted when the
    whole interval lies below the traced share by more than the tolerance.
    """
    tolerance = TOLERANCE[must_help.share]
    said = (
        f"{must_help.lever} gives {must_help.share} {must_help.value:.2f} of T ({must_help.low:.2f} to "
        f"{must_help.high:.2f}), the trace {must_help.traced:.2f}"
    )
    if must_help.high < must_help.traced - tolerance:
        return REFUTED, f"{said}, which is more than can be."
    if must_help.low <= 0 or must_help.value < must_help.traced - tolerance:
        return UNDECIDED, f"{said}: these rounds cannot tell."
    if must_not is not None and must_not.low > must_not.traced + TOLERANCE[must_not.share]:
        return UNDECIDED, f"{said}, but {must_not.lever}, which must not help, gives {must_not.value:.2f}."
    more = ": more than the trace says" if not must_help.agrees else ""
    return CONFIRMED, f"{said}{more}."


def control_of(share: str, situation: Situation) -> Intervention | None:
    """An intervention on another class, which must not help: of those that apply that with the least traced share."""
    found = []
    for other in CLASSES:
        if other == share or (other == "memory" and share == "compute"):  # fewer bytes come with other arithmetic
            continue
        for each in interventions(other, situation):
            if each.items > 1 or not _holds(situation.config, each) or each.made().why_not(situation) is not None:
                continue
            try:
                each.factor(situation)
                found.append((each.traced(situation), each))
            except Unpredictable:
                continue
    return min(found, key=lambda pair: pair[0], default=(0.0, None))[1]


def usable(share: str, situation: Situation) -> tuple[Intervention | None, str]:
    """The intervention on a class that applies in a situation, or None and why there is none.

    situation: may lack what the intervention is held against, which is a matter of the base that is then recorded.
    """
    reasons = []
    for each in interventions(share, situation):
        config = RunConfig(**laid_over(situation.config.model_dump(exclude_unset=True), each.against))
        reason = each.made().why_not(replace(situation, config=config))
        try:
            each.factor(situation)
        except Unpredictable as error:
            reason = reason or str(error)
        if reason is None:
            return each, ""
        reasons.append(f"{each.lever}: {reason}")
    return None, " ".join(reasons) or f"No lever changes {share} alone."


def confirm(
    run: RunFolder,
    folder: Path,
    executor: Executor,
    settings: Settings,
    *,
    activity: Activity = "auto",
    progress: Progress = lambda name, share: None,
    cancelled: Event | None = None,
) -> Confirmation:
    """Put the verdict of a run to the test on the GPU at hand, and when it is refuted the next class.

    folder: gets a folder for each class that was tried, with the runs. Each step records the base again, so that the
    traced shares are those of this machine and moment. Raises `ConfigError` for a run that cannot be repeated: on a
    CPU, imported, or whose model is gone or another one.
    """
    _check_repeatable(run)
    situation = situation_of(run)
    stop = cancelled or Event()
    steps: list[Step] = []
    order = _order(situation)
    for share in order:
        if stop.is_set():
            break
        chosen, reason = usable(share, situation)
        if chosen is None:
            steps.append(Step(share, NOT_CONFIRMABLE, reason))
        else:
            base = RunConfig(**laid_over(situation.config.model_dump(exclude_unset=True), chosen.against))
            steps.append(_step(chosen, base, folder / share, executor, settings, activity, progress, stop))
        if steps[-1].outcome in (CONFIRMED, UNDECIDED):
            break
    confirmed = next((step.share for step in steps if step.outcome == CONFIRMED), None)
    diagnosis = situation.diagnosis
    assert diagnosis is not None
    verdict = "+".join(diagnosis.verdict.pair) if diagnosis.verdict.pair else diagnosis.verdict.name
    return Confirmation(verdict, steps[0].outcome if steps else UNDECIDED, confirmed, steps)


def _order(situation: Situation) -> Sequence[str]:
    """The classes from the largest traced share on; a share below the tolerance cannot be told from none."""
    diagnosis = situation.diagnosis
    if diagnosis is None or diagnosis.pieces is None:
        raise ConfigError("The run has no shares to confirm: profile the model with its activity and nodes.")
    shares = {name: float(value) for name, value in diagnosis.pieces.shares().items() if name in CLASSES}
    return sorted((name for name in CLASSES if shares[name] > TOLERANCE[name]), key=lambda name: -shares[name])


def _step(
    chosen: Intervention,
    base: RunConfig,
    folder: Path,
    executor: Executor,
    settings: Settings,
    activity: Activity,
    progress: Progress,
    stop: Event,
) -> Step:
    seen: list[tuple[Situation, Intervention | None]] = []

    def levers(situation: Situation) -> list[Lever]:
        control = control_of(chosen.share, situation)
        seen.append((situation, control))
        return [chosen.made(), *([control.made()] if control is not None else [])]

    trials = try_levers(
        base, levers, [latency()], folder, executor, settings, activity=activity, progress=progress, cancelled=stop
    )
    situation, control = seen[0]
    helped, *controlled = (
        _trial(each, experiment, situation)
        for each, experiment in zip((chosen, control), trials.experiments, strict=False)
        if each is not None
    )
    must_not = controlled[0] if controlled else None
    if helped.share is None:
        return Step(chosen.share, UNDECIDED, f"{chosen.lever}: {helped.experiment.why}", helped, must_not)
    outcome, why = judge(helped.share, must_not.share if must_not is not None else None)
    return Step(chosen.share, outcome, why, helped, must_not)


def _trial(intervention: Intervention, experiment: Experiment, situation: Situation) -> Trial:
    found = experiment.comparison
    if found is None or found.ratio is None or found.low is None or found.high is None:
        return Trial(experiment)
    try:
        ratios = (each / intervention.items for each in (found.ratio, found.low, found.high))
        return Trial(experiment, share_of(intervention, situation, *ratios))
    except Unpredictable:
        return Trial(experiment)


def _holds(config: RunConfig, intervention: Intervention) -> bool:
    """Whether a configuration has what an intervention is held against."""
    return RunConfig(**laid_over(config.model_dump(exclude_unset=True), intervention.against)) == config


def _check_repeatable(run: RunFolder) -> None:
    manifest = run.manifest
    if manifest.imported is not None:
        raise ConfigError("An imported capture says nothing of its model and options: profile the model here first.")
    if manifest.device.kind != "cuda":
        raise ConfigError("The run is on a CPU, and the interventions are levers of a GPU: confirm a run of a GPU.")
    model = Path(RunConfig(**manifest.config).model)
    if not model.is_file():
        raise ConfigError(f"The model {model} of the run is not there: run this where its path leads to it.")
    if sha256(model) != manifest.model.sha256:
        raise ConfigError(f"The model {model} is another one than the run was made with: profile it again.")
