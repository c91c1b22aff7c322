"""What the page of a tuning says of its experiments: rows and sentences, made from the record alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from workbench.diagnosis.levers import lever
from workbench.errors import ConfigError
from workbench.figures.experiments import OUTCOMES
from workbench.figures.metrics import format_change, format_interval, format_ratio, metric_name
from workbench.figures.units import format_percent
from workbench.report.options import as_yaml, changed
from workbench.report.redact import without_folders
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.comparison import CONFIDENCE, SMALLEST_EFFECT, Comparison
from workbench.tuning.experiment import OUTPUTS_CHANGED, Experiment
from workbench.tuning.record import TuningRecord

BASE_FILE: Final = "base.yaml"
LEVEL: Final = format_percent(CONFIDENCE)
SMALLEST: Final = format_percent(SMALLEST_EFFECT)


class Headline(NamedTuple):
    """The arm to take: its name for people, its colour, what it gave, and what is to be said with it."""

    name: str
    colour: str
    gain: str
    sentences: list[str]


class Compared(NamedTuple):
    """One comparison as cells."""

    metric: str
    outcome: str
    ratio: str
    interval: str
    change: str


class Tried(NamedTuple):
    """One experiment. main: None where nothing was measured; others: the further metrics; changes: YAML."""

    name: str
    title: str
    colour: str
    outcome: str
    why: str
    main: Compared | None
    predicted: str
    predicted_why: str
    outputs: str
    outputs_why: str
    findings: list[str]
    readback: list[str]
    others: list[Compared]
    changes: str


def headline(record: TuningRecord) -> Headline:
    """What to take, and how sure that is."""
    measured = [each for each in record.experiments if each.comparison is not None]
    sentences = []
    if record.best == BASE or record.constraints:
        sentences.append(record.best_because)
    best = next((each for each in measured if each.lever == record.best), None)
    if best is None or best.comparison is None:
        return Headline("The base stays", OUTCOMES["no difference"].colour, "", sentences)
    found = best.comparison
    gain = f"{metric_name(found.metric)} {format_change(found.base_value, found.variant_value, found.unit)}"
    gain += f": {format_ratio(found.ratio)} the base"
    if found.low is not None:
        gain += f", {LEVEL} interval {format_interval(found.low, found.high)}, {_count(len(found.ratios), 'round')}"
    if not best.improvement:
        sentences.append(f"It is no improvement in {metric_name(found.metric)}: {found.outcome}.")
    if len(measured) > 1:
        sentences.append(
            f"It was picked as the best of {len(measured)}, which flatters it a little. Each lever was tried alone: "
            "what several do together was not measured."
        )
    return Headline(best.title, _colour(best), f"{gain}.", sentences)


def subject(record: TuningRecord) -> str:
    """What was tried, for the label above the best."""
    levers = _count(sum(each.comparison is not None for each in record.experiments), "lever")
    limits = f" with {' and '.join(record.constraints)}" if record.constraints else ""
    return f"Best of {levers} against the base, for {metric_name(record.objective)}{limits}"


def tried(record: TuningRecord) -> list[Tried]:
    """Every experiment, in the order in which they were tried."""
    rows = record.to_frame().to_dict("records")
    return [_tried(each, row, record) for each, row in zip(record.experiments, rows, strict=True)]


def round_notes(record: TuningRecord) -> list[str]:
    """Rounds that were measured again, left out, or are disturbed and count all the same."""
    again = [f"Round {number + 1} was measured again: {'; '.join(why)}" for number, why in record.repeated.items()]
    main = [each.comparison for each in record.experiments if each.comparison is not None]
    return [_sentence(text) for text in dict.fromkeys([*again, *(note for found in main for note in found.notes)])]


def repeat_command(record: TuningRecord) -> tuple[str, list[str]]:
    """The command that measures the same again from the base's options, and the levers that it cannot name."""
    named = [each.lever for each in record.experiments if _is_known(each.lever)]
    words = ["workbench", "tune", "--config", BASE_FILE]
    words += [word for name in named for word in ("--lever", name)]
    words += ["--objective", record.objective]
    words += [word for text in record.constraints for word in ("--constraint", text)]
    words += ["--rounds", str(record.rounds), "--order-seed", str(record.seed)]
    return shlex.join(words), [each.lever for each in record.experiments if each.lever not in named]


def condition_rows(record: TuningRecord, blocks: Sequence[Block]) -> list[tuple[str, str]]:
    """How it was measured: rounds, blocks, calls."""
    timed = [block for block in blocks if not block.error and block.durations_ns.size]
    rows = [
        ("rounds", str(record.rounds)),
        ("blocks, each a fresh process", f"{len(blocks):,}"),
        ("blocks that failed", f"{sum(block.error is not None for block in blocks):,}"),
        ("order of the arms in a round", f"random, seed {record.seed}"),
    ]
    if timed:
        calls = [block.durations_ns.size for block in timed]
        spans_s = [(block.starts_ns[-1] + block.durations_ns[-1] - block.starts_ns[0]) / 1e9 for block in timed]
        rows += [
            ("measured calls in a block", f"{min(calls):,} to {max(calls):,}"),
            ("measured time of a block", f"{min(spans_s):.3g} to {max(spans_s):.3g} s"),
        ]
    return [*rows, ("SHA-256 of the model", record.model_sha256)]


def _tried(experiment: Experiment, row: dict[Any, Any], record: TuningRecord) -> Tried:
    parity, seen, said = experiment.parity, experiment.readback, experiment.prediction
    findings, sentences = ([], []) if seen is None else (seen.findings, seen.sentences)
    known = row["predicted"] > 0
    predicted = f"{format_ratio(row['predicted'])} ({format_interval(row['predicted_low'], row['predicted_high'])})"
    why = "" if said is None else said.cannot_say or said.why
    if said is not None and said.ratio is not None and not known:
        why = f"Predicted is the time of a call alone, not {metric_name(record.objective)}."
    return Tried(
        name=experiment.lever,
        title=experiment.title,
        colour=_colour(experiment),
        outcome=experiment.outcome,
        why=_sentence(experiment.why),
        main=None if experiment.comparison is None else _compared(experiment.comparison),
        predicted=predicted if known else "cannot say",
        predicted_why=without_folders(why),
        outputs="not checked" if parity is None else "kept" if parity.within else "changed",
        outputs_why="" if parity is None else " ".join(map(without_folders, [parity.why, *parity.notes])),
        findings=[without_folders(text) for text in findings],
        readback=[without_folders(text) for text in sentences if text not in findings],
        others=[_compared(each) for each in experiment.others],
        changes="" if experiment.config is None else as_yaml(changed(experiment.config, record.base)),
    )


def _compared(found: Comparison) -> Compared:
    return Compared(
        metric=metric_name(found.metric),
        outcome=found.outcome,
        ratio=format_ratio(found.ratio),
        interval=format_interval(found.low, found.high),
        change=format_change(found.base_value, found.variant_value, found.unit),
    )


def _colour(experiment: Experiment) -> str:
    """As in the figure of the experiments; empty where nothing was measured."""
    if experiment.comparison is None or experiment.comparison.ratio is None:
        return ""
    if experiment.outcome == OUTPUTS_CHANGED:
        return OUTCOMES["outputs changed"].colour
    meanings = (name for name, look in OUTCOMES.items() if experiment.outcome.startswith(look.words))
    return OUTCOMES[next(meanings, "no verdict")].colour


def _is_known(name: str) -> bool:
    try:
        lever(name)
    except ConfigError:
        return False
    return True


def _sentence(text: str) -> str:
    """Without folders, and with its full stop."""
    plain = without_folders(text)
    return plain if plain.endswith((".", "!", "?")) else f"{plain}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
