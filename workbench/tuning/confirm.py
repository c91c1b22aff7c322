"""Confirms a verdict by intervention: what must help does, by as much as the trace says, and what must not does not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Final

from workbench.analysis.thresholds import LARGE_SHARE
from workbench.capture.model import sha256
from workbench.capture.resolve import Activity
from workbench.config import RunConfig
from workbench.diagnosis.interventional import (
    EXCLUSION,
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
from workbench.errors import ConfigError, WorkbenchError
from workbench.runs.reader import RunFolder
from workbench.tuning.confirmation import ConfirmationRecord, Step, Trial
from workbench.tuning.executors import Executor
from workbench.tuning.experiment import Experiment, Trials, try_levers
from workbench.tuning.metric import latency
from workbench.tuning.rounds import Progress, Settings
from workbench.tuning.store import save_blocks

CONFIRMED: Final = "confirmed"
REFUTED: Final = "refuted"
UNDECIDED: Final = "undecided"
NOT_CONFIRMABLE: Final = "not confirmable"

FEWER_BYTES: Final = ("int8-weights", "float16")
"""Levers that must help where memory is the limit: they show it, but no share follows from them (`by_exclusion`)."""

_ON_DEVICE: Final = {"binding": "device"}


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
    or large enough to name the run (`LARGE_SHARE`) whatever the trace says, while no control helps by more than its own
    traced share and tolerance. Refuted when the whole interval lies below the traced share by more than the tolerance
    and does not name the run. What is left after the other classes confirms nothing when it lies
    above it by more: then it holds time, such as that of under-filled kernels, which none of their levers takes away.
    """
    tolerance = TOLERANCE[found.share]
    said = (
        f"{found.lever} gives {found.share} {found.value:z.2f} of T ({found.low:z.2f} to "
        f"{found.high:z.2f}), the trace {found.traced:.2f}"
    )
    large = found.low >= LARGE_SHARE
    if found.high < found.traced - tolerance and not large:
        return REFUTED, f"{said}, which is more than can be."
    if found.low <= 0 or (found.value < found.traced - tolerance and not large):
        return UNDECIDED, f"{said}: these rounds cannot tell."
    for control in must_not:
        if control.low > control.traced + TOLERANCE[control.share]:
            return UNDECIDED, f"{said}, but {control.lever}, which must not help, gives {control.value:z.2f}."
    if found.lever == EXCLUSION and found.low > found.traced + tolerance:
        return UNDECIDED, f"{said}: what is left holds more than this class, which no lever here took away."
    off = found.value - found.traced
    beside = f": {'more' if off > 0 else 'less'} than the trace says" if abs(off) > tolerance else ""
    return CONFIRMED, f"{said}{beside}."


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
) -> ConfirmationRecord:
    """Put the verdict of a run to the test on the GPU at hand: every class that it names, and when one is refuted the
    next class.

    folder: gets a folder for each class that was tried, with the runs and `blocks.parquet`, and `confirmation.json`.
    Each step records the base again, so that the traced shares are those of this machine and moment. progress: begins
    anew with each class. Raises `ConfigError` for a run that cannot be repeated: on a CPU, imported, without traced
    shares, or whose model is gone or another one; and what the base raises when it cannot run.
    """
    check_repeatable(run)
    situation = situation_of(run)
    diagnosis = situation.diagnosis
    assert diagnosis is not None
    stop = cancelled or Event()
    attempt = partial(
        try_levers, metrics=[latency()], executor=executor, settings=settings, activity=activity, cancelled=stop
    )
    steps: list[Step] = []
    named = diagnosis.verdict.pair or ()
    for share in _order(situation):
        try:
            steps.append(_step(share, situation, folder / share, attempt, progress))
        except WorkbenchError as error:
            if not steps:
                raise
            steps.append(Step(share, UNDECIDED, str(error)))  # what the steps before it said still holds
        refuted = steps[-1].outcome == REFUTED
        pair_goes_on = steps[-1].outcome == CONFIRMED and len(steps) < len(named)
        if stop.is_set() or not (refuted or pair_goes_on):
            break
    outcomes = [step.outcome for step in steps[: max(len(named), 1)]]
    record = ConfirmationRecord(
        model=run.manifest.model.name,
        model_sha256=run.manifest.model.sha256,
        device=run.manifest.device.name,
        verdict=diagnosis.verdict.label,
        shares=diagnosis.shares,
        outcome=next((outcome for outcome in outcomes if outcome != CONFIRMED), CONFIRMED),
        confirmed=[step.share for step in steps if step.outcome == CONFIRMED],
        steps=steps,
        rounds=settings.rounds,
        seed=settings.seed,
        cancelled=stop.is_set(),
        created_ns=time.time_ns(),
    )
    record.save(folder)
    return record


def _order(situation: Situation) -> list[str]:
    """The classes that the verdict names, then the others from the largest traced share on.

    Another share below the tolerance cannot be told from none. Raises `ConfigError` where there are no shares.
    """
    diagnosis = situation.diagnosis
    if diagnosis is None or diagnosis.pieces is None:
        raise ConfigError("The run has no traced shares to confirm: profile the model with its activity and nodes.")
    shares = diagnosis.pieces.shares()
    named = diagnosis.verdict.pair or ()
    largest, *others = sorted(CLASSES, key=lambda name: (name not in named, -float(shares[name])))
    return [largest, *(name for name in others if name in named or shares[name] > TOLERANCE[name])]


def _step(share: str, situation: Situation, folder: Path, attempt: Callable[..., Trials], progress: Progress) -> Step:
    """One class put to the test, or why it cannot be. attempt: `try_levers` but for the base and the levers."""
    plan = plan_for(share, situation)
    if isinstance(plan, str):
        return Step(share, NOT_CONFIRMABLE, plan)
    # a session that fell back to the CPU would answer with the times of another device
    base = _with(situation, {**plan.base, "allow_cpu": False}).config
    tried = [*([plan.test] if plan.test is not None else []), *plan.must_not]
    seen: list[Situation] = []

    def levers(measured: Situation) -> list[Lever]:
        seen.append(measured)
        return [*(each.made() for each in tried), *(lever(name) for name in plan.helpers)]

    found = attempt(base, levers, folder=folder, progress=lambda text, done: progress(f"{share}: {text}", done))
    save_blocks(folder, found.rounds.blocks)
    shutil.rmtree(folder / "blocks", ignore_errors=True)
    (measured,) = seen
    trials = [_trial(each, experiment, measured) for each, experiment in zip(tried, found.experiments, strict=False)]
    own, controls = (trials[:1], trials[1:]) if plan.test is not None else ([], trials)
    must_help = [*own, *(Trial(each) for each in found.experiments[len(tried) :])]
    value, outcome, why = _outcome(plan, own, controls, measured)
    return Step(share, outcome, why, value, must_help, controls, measured.device.name)


def _outcome(
    plan: Plan, own: Sequence[Trial], controls: Sequence[Trial], situation: Situation
) -> tuple[InterventionalShare | None, str, str]:
    """The share of the plan's class, the outcome and its reason."""
    shares = [each.share for each in controls if each.share is not None]
    if own:
        share = own[0].share
        return (None, UNDECIDED, own[0].why) if share is None else (share, *judge(share, shares))
    try:
        left = by_exclusion(plan.share, situation, shares)
    except Unpredictable as error:
        return None, UNDECIDED, " ".join([str(error), *(each.why for each in controls if each.why)])
    return left, *judge(left, shares)


def _trial(intervention: Intervention, experiment: Experiment, situation: Situation) -> Trial:
    """The share that an experiment gives; what failed, was not in force or changed the outputs gives none."""
    trial = Trial(experiment, items=intervention.items)
    if trial.counted is None or trial.ratio is None:
        return replace(trial, why=f"{intervention.lever}: {experiment.why}")
    try:
        return replace(trial, share=share_of(intervention, situation, *trial.ratio))
    except Unpredictable as error:
        return replace(trial, why=f"{intervention.lever}: {error}")


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


def check_repeatable(run: RunFolder) -> None:
    """Raise `ConfigError` for a run that says nothing of a GPU here, or whose model cannot be run again."""
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
