"""A verdict put to the test, for a terminal and for programs: each class, its levers, and both kinds of share."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any, Final

from workbench.diagnosis.interventional import EXCLUSION
from workbench.figures.units import UNKNOWN, format_percent
from workbench.tuning.confirmation import ConfirmationRecord, Step, Trial

_WIDTH: Final = 118
_HEAD: Final = ("lever", "role", "predicted T'/T", "measured T'/T", "traced share", "by intervention")
_TEST: Final = "test"
_CONTROL: Final = "control"


def confirmation_summary(record: ConfirmationRecord) -> str:
    """Headline, traced shares, and for each class that was tried the levers in a table with the sentence on them."""
    lines = [
        f"{record.model} on {record.device}: the verdict {record.verdict} is {record.outcome}, "
        f"{record.rounds} rounds of fresh processes",
        "  traced: " + ", ".join(f"{name} {format_percent(share)}" for name, share in record.shares.items()),
    ]
    for step in record.steps:
        lines += ["", f"{step.share}: {step.outcome}"]
        rows = _rows(step)
        if rows:
            lines += _table([_HEAD, *rows])
        lines += _wrapped(step.why)
        if step.device not in (None, record.device):
            lines += _wrapped(f"It was tested on {step.device}, the run is of {record.device}.")
        lines += [line for text in _doubts(step) for line in _wrapped(text)]
    others = [name for name in record.confirmed if name not in record.verdict.split("+")]
    if others:
        lines += ["", f"What holds the run back, by intervention: {' and '.join(others)}."]
    if record.cancelled:
        lines += ["", "cancelled: what is shown was measured until then."]
    return "\n".join(lines)


def confirmation_dict(record: ConfirmationRecord) -> dict[str, Any]:
    """The same as plain data; shares are fractions of T, ratios are T' / T of an item, intervals are pairs.

    role: a `test` has to change T by the share of its step's class; a `control` works on another class and may change T
    by no more than that one's traced share.
    """
    return {
        "model": record.model,
        "device": record.device,
        "verdict": record.verdict,
        "shares": record.shares,
        "outcome": record.outcome,
        "why": record.why,
        "confirmed": record.confirmed,
        "rounds": record.rounds,
        "cancelled": record.cancelled,
        "steps": [
            {
                "class": step.share,
                "outcome": step.outcome,
                "why": step.why,
                "device": step.device,
                "traced": step.found and step.found.traced,
                "interventional": step.found and step.found.value,
                "interval": step.found and [step.found.low, step.found.high],
                "arithmetic": step.found and step.found.why,
                "levers": [_trial_dict(trial, role) for trial, role in _trials(step)],
            }
            for step in record.steps
        ],
    }


def _trials(step: Step) -> Iterator[tuple[Trial, str]]:
    yield from ((trial, _TEST) for trial in step.must_help)
    yield from ((trial, _CONTROL) for trial in step.must_not)


def _trial_dict(trial: Trial, role: str) -> dict[str, Any]:
    said, measured, share = trial.experiment.prediction, trial.ratio, trial.share
    known = said is not None and said.ratio is not None
    return {
        "lever": trial.experiment.lever,
        "role": role,
        "predicted": said.ratio if said is not None and known else None,
        "predicted_interval": [said.low, said.high] if said is not None and known else None,
        "measured": measured and measured[0],
        "measured_interval": measured and list(measured[1:]),
        "outcome": trial.experiment.outcome,
        "class": share and share.share,
        "traced": share and share.traced,
        "interventional": share and share.value,
        "interval": share and [share.low, share.high],
        "why": trial.why or trial.experiment.why,
    }


def _rows(step: Step) -> list[tuple[str, ...]]:
    rows = [_cells(trial, role) for trial, role in _trials(step)]
    if step.found is not None and step.found.lever == EXCLUSION:
        found = step.found
        rows.append(
            (EXCLUSION, "", "", "", _share(step.share, found.traced), _interval(found.value, found.low, found.high))
        )
    return rows


def _cells(trial: Trial, role: str) -> tuple[str, ...]:
    said, measured, share = trial.experiment.prediction, trial.ratio, trial.share
    predicted = (said.ratio, said.low, said.high) if said is not None else (None, None, None)
    return (
        trial.experiment.lever,
        role,
        _interval(*predicted) if predicted[0] is not None else "cannot say",
        _interval(*measured) if measured is not None else trial.experiment.outcome,
        _share(share.share, share.traced) if share is not None else UNKNOWN,
        _interval(share.value, share.low, share.high) if share is not None else UNKNOWN,
    )


def _doubts(step: Step) -> list[str]:
    """Levers that told nothing, with the reason; of the class's own lever the step has said it already."""
    return [trial.why for trial, _ in _trials(step) if trial.why and trial.why not in step.why]


def _share(name: str, value: float) -> str:
    return f"{name} {value:.2f}"


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return UNKNOWN
    return f"{value:z.2f} ({low:z.2f} to {high:z.2f})"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")
