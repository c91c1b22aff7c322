"""Confirms a verdict by intervention: what must help does, by as much as the trace says, and what must not does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any, Final

from workbench.capture.model import sha256
from workbench.capture.resolve import Activity
from workbench.config import RunConfig
from workbench.diagnosis.interventional import (
    TOLERANCE,
    Intervention,
    InterventionalShare,
    by_exclusion,
    interventions,
    share_of,
)
from workbench.diagnosis.levers import Lever, Situation, lever, situation_of
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

FEWER_BYTES: Final = ("int8-weights", "float16")
"""Levers that must help where memory is the limit: they show it, but no share follows from them (`by_exclusion`)."""

_ON_DEVICE: Final = {"binding": "device"}


@dataclass(frozen=True)
class Trial:
    """A lever that was tried, and the share that follows from it, if any."""

    experiment: Experiment
    share: InterventionalShare | None = None


@dataclass(frozen=True)
class Step:
    """One class put to the test. share: of the class, None where it could not be had; `why` says all of it.

    must_help, must_not: the levers that were tried.
    """

    share: str
    outcome: str
    why: str
    found: InterventionalShare | None = None
    must_help: list[Trial] = field(default_factory=list)
    must_not: list[Trial] = field(default_factory=list)


@dataclass(frozen=True)
class Confirmation:
    """A verdict and what the interventions say of it.

    verdict: as diagnosed. outcome: that of the class that holds most of T. confirmed: the class that the interventions
    confirm, which after a refutation is another one; None where there is none. steps: in their order.
    """

    verdict: str
    outcome: str
    confirmed: str | None
    steps: list[Step] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How a class is put to the test. base: options laid over the run's own.

    test: the intervention on the class itself, None where what the others leave has to do. must_not: interventions on
    other classes. helpers: names of levers that must help and give no share.
    """

    share: str
    base: dict[str, Any]
    test: Intervention | None
    must_not: list[Intervention]
    helpers: list[str]


def judge(found: InterventionalShare, must_not: Sequence[InterventionalShare]) -> tuple[str, str]:
    """An outcome and its reason, from shares.

    Confirmed when the class has a share beyond doubt, of at least what the trace gives it, less the class's tolerance,
    while no control helps by more than its own traced share and tolerance. Refuted when the whole interval lies below
    the traced share by more than the tolerance.
    """
    tolerance = TOLERANCE[found.share]
    said = (
        f"{found.lever} gives {found.share} {found.value:.2f} of T ({found.low:.2f} to {found.high:.2f}), "
        f"the trace {found.traced:.2f}"
    )
    if found.high < found.traced - tolerance:
        return REFUTED, f"{said}, which is more than can be."
    if found.low <= 0 or found.value < found.traced - tolerance:
        return UNDECIDED, f"{said}: these rounds cannot tell."
    for control in must_not:
        if control.low > control.traced + TOLERANCE[control.share]:
            return UNDECIDED, f"{said}, but {control.lever}, which must not help, gives {control.value:.2f}."
    more = ": more than the trace says" if found.value > found.traced + tolerance else ""
    return CONFIRMED, f"{said}{more}."


def plan_for(share: str, situation: Situation) -> Plan | str:
    """How to put a class to the test in a situation, or why it cannot be."""
    reasons = []
    for each in interventions(share, situation):
        reason = _why_not(each, _with(situation, each.against))
        if reason is None:
            control = control_of(share, _with(situation, each.against))
            return Plan(share, dict(each.against), each, [control] if control is not None else [], [])
        reasons.append(f"{each.lever}: {reason}")
    if share not in ("memory", "compute"):
        return " ".join(reasons)
    bound = _with(situation, _ON_DEVICE)
    others = [
        next((each for each in interventions(name, bound) if each.items == 1 and _why_not(each, bound) is None), None)
        for name in CLASSES
        if name not in (share, "pcie")
    ]
    helpers = [name for name in FEWER_BYTES if share == "memory" and lever(name).why_not(bound) is None]
    return Plan(share, dict(_ON_DEVICE), None, [each for each in others if each is not None], helpers[:1])


def control_of(share: str, situation: Situation) -> Intervention | None:
    """An intervention on another class, which must not help: of those that apply that with the least traced share."""
    found = [
        each
        for other in CLASSES
        if other != share
        for each in interventions(other, situation)
        if each.items == 1 and _has(situation.config, each) and _why_not(each, situation) is None
    ]
    return min(found, key=lambda each: each.traced(situation), default=None)


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
    diagnosis = situation.diagnosis
    assert diagnosis is not None
    stop = cancelled or Event()
    steps: list[Step] = []
    for share in _order(situation):
        plan = plan_for(share, situation)
        if isinstance(plan, str):
            steps.append(Step(share, NOT_CONFIRMABLE, plan))
            continue
        base = RunConfig(**laid_over(situation.config.model_dump(exclude_unset=True), plan.base))
        steps.append(_step(plan, base, folder / share, executor, settings, activity, progress, stop))
        if steps[-1].outcome in (CONFIRMED, UNDECIDED) or stop.is_set():
            break
    confirmed = next((step.share for step in steps if step.outcome == CONFIRMED), None)
    return Confirmation(diagnosis.verdict.label, steps[0].outcome, confirmed, steps)


def _order(situation: Situation) -> list[str]:
    """The classes from the largest traced share on; a share below the tolerance cannot be told from none."""
    diagnosis = situation.diagnosis
    if diagnosis is None or diagnosis.pieces is None:
        raise ConfigError("The run has no traced shares to confirm: profile the model with its activity and nodes.")
    shares = diagnosis.pieces.shares()
    return sorted((name for name in CLASSES if shares[name] > TOLERANCE[name]), key=lambda name: -float(shares[name]))


def _step(
    plan: Plan,
    base: RunConfig,
    folder: Path,
    executor: Executor,
    settings: Settings,
    activity: Activity,
    progress: Progress,
    stop: Event,
) -> Step:
    seen: list[Situation] = []
    tried = [*([plan.test] if plan.test is not None else []), *plan.must_not]

    def levers(situation: Situation) -> list[Lever]:
        seen.append(situation)
        return [*(each.made() for each in tried), *(lever(name) for name in plan.helpers)]

    found = try_levers(
        base, levers, [latency()], folder, executor, settings, activity=activity, progress=progress, cancelled=stop
    )
    situation = seen[0]
    trials = [_trial(each, experiment, situation) for each, experiment in zip(tried, found.experiments, strict=False)]
    own, controls = (trials[:1], trials[1:]) if plan.test is not None else ([], trials)
    helped = [Trial(each) for each in found.experiments[len(tried) :]]
    shares = [each.share for each in controls if each.share is not None]
    try:
        share = own[0].share if own else by_exclusion(plan.share, situation, shares)
    except Unpredictable as error:
        return Step(plan.share, UNDECIDED, str(error), None, helped, controls)
    if share is None:
        return Step(plan.share, UNDECIDED, own[0].experiment.why, None, own, controls)
    outcome, why = judge(share, shares)
    return Step(plan.share, outcome, why, share, [*own, *helped], controls)


def _trial(intervention: Intervention, experiment: Experiment, situation: Situation) -> Trial:
    found = experiment.comparison
    if found is None or found.ratio is None or found.low is None or found.high is None:
        return Trial(experiment)
    try:
        ratios = (each / intervention.items for each in (found.ratio, found.low, found.high))
        return Trial(experiment, share_of(intervention, situation, *ratios))
    except Unpredictable:
        return Trial(experiment)


def _why_not(intervention: Intervention, situation: Situation) -> str | None:
    """Why an intervention cannot be made or read in a situation, None where it can."""
    reason = intervention.made().why_not(situation)
    if reason is not None:
        return reason
    try:
        intervention.factor(situation)
        intervention.traced(situation)
    except Unpredictable as error:
        return str(error)
    return None


def _with(situation: Situation, options: Mapping[str, Any]) -> Situation:
    """The situation with other options; its diagnosis stays that of the run as it was."""
    config = RunConfig(**laid_over(situation.config.model_dump(exclude_unset=True), options))
    return replace(situation, config=config)


def _has(config: RunConfig, intervention: Intervention) -> bool:
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
