"""Experiments: levers applied to a base for real, interleaved with it, and what each of them gave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any, Final

from workbench.capture.record import TRACED_PASSES
from workbench.capture.resolve import Activity
from workbench.capture.worker import OUTPUTS
from workbench.config import RunConfig
from workbench.diagnosis.levers import Lever, Situation, applied, situation_of
from workbench.diagnosis.prediction import Prediction, predict
from workbench.errors import ConfigError, RunFolderError, from_kind
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.comparison import NOT_MEASURED, Comparison, compare
from workbench.tuning.executors import Executor
from workbench.tuning.measure import Job, items_per_call, record_block
from workbench.tuning.metric import Metric
from workbench.tuning.parity import LIMIT_ALONE, Outputs, Parity, load_outputs, parity
from workbench.tuning.readback import Evidence, Readback, readback
from workbench.tuning.rounds import MOST_FAILURES, Arm, Progress, Rounds, Settings, check_calls, measure_interleaved
from workbench.tuning.tolerance import Tolerance, tolerance_of

VARIANT_PASSES: Final = ("nodes",)
"""What a variant is recorded with beside its latency: its nodes and kernels, for the read-back and a diagnosis."""

RUNS: Final = "runs"
DOES_NOT_APPLY: Final = "does not apply"
FAILED: Final = "failed"
OUTPUTS_CHANGED: Final = "outputs changed"
NOT_IN_FORCE: Final = "not in force"


@dataclass(frozen=True)
class OutputCheck:
    """What the outputs of a variant have to keep. tolerance: in the place of the one of its precision. metric: of
    (base outputs, variant outputs), with the limit that it must not pass. Raises `ConfigError` for a limit alone.
    """

    tolerance: Tolerance | None = None
    metric: Callable[[Outputs, Outputs], float] | None = None
    at_least: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if self.metric is None and (self.at_least is not None or self.at_most is not None):
            raise ConfigError(LIMIT_ALONE)


@dataclass(frozen=True)
class Experiment:
    """One lever tried on a base.

    outcome: the metric's word for better or worse, `NO_DIFFERENCE`, or why there is no such verdict: `DOES_NOT_APPLY`,
    `FAILED`, `OUTPUTS_CHANGED` (beyond the tolerance), `NOT_IN_FORCE`, `NOT_MEASURED`; `why` says it in a sentence.
    improvement: better in the metric, with the outputs kept and the option in force. config: the variant's options,
    None where there are none. others: the comparison in further metrics.
    """

    lever: str
    title: str
    outcome: str
    why: str
    improvement: bool = False
    config: dict[str, Any] | None = None
    prediction: Prediction | None = None
    comparison: Comparison | None = None
    others: list[Comparison] = field(default_factory=list)
    parity: Parity | None = None
    readback: Readback | None = None


@dataclass(frozen=True)
class Trials:
    """Experiments that share a base, and all of their blocks."""

    experiments: list[Experiment]
    rounds: Rounds


def try_levers(
    base: RunConfig,
    levers: Sequence[Lever] | Callable[[Situation], Sequence[Lever]],
    metrics: Sequence[Metric],
    folder: Path,
    executor: Executor,
    settings: Settings,
    *,
    check: OutputCheck | None = None,
    activity: Activity = "auto",
    progress: Progress = lambda name, share: None,
    cancelled: Event | None = None,
) -> Trials:
    """Record the base, then every lever that applies, then measure all of them interleaved.

    base: with the model's path. levers: or what chooses them once the base is diagnosed. metrics: the first decides.
    folder: gets `runs/<arm>`. A lever that does not apply, or whose configuration cannot run, is an experiment that
    says so; the base is never touched, so that going back is to use it. Raises what the base raises when it cannot run,
    and `ConfigError` when its calls are too slow for a metric that the block is made for.
    """
    stop = cancelled or Event()

    def recorded(arm: str, config: RunConfig, passes: Sequence[str], share: float) -> Block:
        progress(f"record {arm}", share)
        job = Job(arm, config, 0, 0, folder / "blocks" / arm, settings.timeout_s)
        return executor.submit(record_block, job, folder / RUNS / arm, passes=passes, activity=activity).result()

    first = recorded(BASE, base, TRACED_PASSES, 0.0)
    if first.error is not None:
        raise from_kind(*first.error)
    base_run = RunFolder(folder / RUNS / BASE)
    check_calls(
        [metric for metric in metrics if metric.calls_needed <= settings.block.min_calls], settings.block,
        base_run.manifest,
    )  # fmt: skip
    situation = situation_of(base_run)
    drafts, arms = [], [Arm(BASE, base)]
    chosen = levers(situation) if callable(levers) else levers
    stages = len(chosen) + 1 + settings.rounds
    for stage, lever in enumerate(chosen, start=1):
        draft = _draft(lever, situation)
        if draft.config is not None and not stop.is_set():
            variant = RunConfig(**draft.config)
            block = recorded(lever.name, variant, VARIANT_PASSES, stage / stages)
            if block.error is not None:
                draft = replace(draft, outcome=FAILED, why=block.error[1])
            else:
                variant_run = RunFolder(folder / RUNS / lever.name)
                draft = replace(
                    draft,
                    parity=output_parity(base_run, variant_run, check or OutputCheck()),
                    readback=readback(
                        lever.changes_in(situation), Evidence.of_run(base_run), Evidence.of_run(variant_run)
                    ),
                )
                arms.append(Arm(lever.name, variant))
        drafts.append(draft)
    rounds = measure_interleaved(
        arms, metrics[0], folder / "blocks", executor, settings, cancelled=stop,
        progress=lambda name, share: progress(name, (len(chosen) + 1 + share * settings.rounds) / stages),
    )  # fmt: skip
    measured = {arm.name for arm in arms}
    return Trials(
        [_judged(draft, rounds, metrics, settings.seed) if draft.lever in measured else draft for draft in drafts],
        rounds,
    )


def _draft(lever: Lever, situation: Situation) -> Experiment:
    """The lever before anything is measured: its configuration and prediction, or why it does not apply."""
    reason = lever.why_not(situation)
    if reason is None:
        try:
            config = applied(lever, situation)
        except ConfigError as error:
            reason = str(error)
        else:
            options = config.model_dump(mode="json", exclude_unset=True)
            prediction = predict(lever, situation)
            why = "It was cancelled before this lever was tried."
            return Experiment(lever.name, lever.title, NOT_MEASURED, why, config=options, prediction=prediction)
    return Experiment(lever.name, lever.title, DOES_NOT_APPLY, reason)


def output_parity(base: RunFolder, variant: RunFolder, check: OutputCheck) -> Parity:
    """The outputs that two recorded runs kept, held against each other.

    Where their batches differ, the items that both saw. Raises `RunFolderError` where a run kept none.
    """
    ours, theirs = (_outputs(run) for run in (base, variant))
    configs = [RunConfig(**run.manifest.config) for run in (variant, base)]
    items = {items_per_call(config, run.manifest.model) for config, run in zip(configs, (variant, base), strict=True)}
    if len(items) > 1:
        ours, theirs = _first_items(ours, theirs), _first_items(theirs, ours)
    return parity(
        ours,
        theirs,
        tolerance=check.tolerance or tolerance_of(*configs),
        metric=check.metric,
        at_least=check.at_least,
        at_most=check.at_most,
    )


def _outputs(run: RunFolder) -> Outputs:
    file = run.folder / OUTPUTS
    if not file.is_file():
        raise RunFolderError(f"The run {run.folder} kept no outputs to compare: record it anew.")
    return load_outputs(file)


def _first_items(outputs: Outputs, other: Outputs) -> Outputs:
    """Of a larger batch the items that the smaller one has too: made inputs begin with the same values."""
    return {
        name: array[: other[name].shape[0]]
        if name in other and array.ndim and other[name].ndim == array.ndim
        else array
        for name, array in outputs.items()
    }


def _judged(draft: Experiment, rounds: Rounds, metrics: Sequence[Metric], seed: int) -> Experiment:
    ours, theirs = rounds.of(BASE), rounds.of(draft.lever)
    main, *others = (compare(ours, theirs, metric, seed=seed) for metric in metrics)
    better = main.outcome == metrics[0].better
    outcome, why = main.outcome, main.why
    assert draft.parity is not None
    assert draft.readback is not None
    failures = rounds.failures(draft.lever)
    if len(failures) >= MOST_FAILURES or (failures and main.outcome == NOT_MEASURED):
        outcome, why = FAILED, failures[-1]
    elif not draft.parity.within:
        outcome, why = OUTPUTS_CHANGED, f"{draft.parity.why} {main.why}"
    elif missed := [change.sentence for change in draft.readback.changes if change.state == "not in force"]:
        outcome, why = NOT_IN_FORCE, f"{' '.join(missed)} {main.why}"
    return replace(
        draft, outcome=outcome, why=why, improvement=better and outcome == main.outcome, comparison=main, others=others
    )
