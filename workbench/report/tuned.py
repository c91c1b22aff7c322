"""What was tried and what it gave, for a terminal: a line for each lever, and the one to take."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any, Final

from workbench.figures.metrics import format_change
from workbench.figures.units import UNKNOWN
from workbench.tuning.comparison import CONFIDENCE
from workbench.tuning.experiment import Experiment
from workbench.tuning.record import TuningRecord

_WIDTH: Final = 118


def tuning_summary(record: TuningRecord) -> str:
    """Headline, a table of the levers that were measured, a sentence for each that was not, and the best."""
    rows = record.to_frame().to_dict("records")
    measured = [row for row in rows if not math.isnan(row["ratio"])]
    lines = [
        f"{record.model} on {record.device.name}: {record.objective} of {_count(len(measured), 'lever')} against the "
        f"base, {_count(record.rounds, 'round')} of fresh processes"
    ]
    if measured:
        head = ("lever", "outcome", "ratio", f"{CONFIDENCE:.0%} interval", "base → variant", "predicted", "outputs")
        lines += ["", *_table([head, *map(_cells, measured)])]
    others = [row for row in rows if math.isnan(row["ratio"])]
    if others:
        lines += ["", *(line for row in others for line in _wrapped(f"{row['name']}: {row['outcome']}", row["why"]))]
    found = [line for each in record.experiments for line in _findings(each)]
    if found:
        lines += ["", *found]
    for number, reasons in record.repeated.items():
        lines += _wrapped(f"round {number + 1} was measured again", "; ".join(reasons))
    lines += [line for note in record.notes for line in _wrapped("note", note)]
    lines += ["", *_wrapped(f"best: {record.best}", record.best_because)]
    if record.cancelled:
        lines.append("cancelled: what is shown was measured until then.")
    return "\n".join(lines)


def _cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    predicted = (_ratio(row[name], 2) for name in ("predicted", "predicted_low", "predicted_high"))
    return (
        row["name"],
        row["outcome"].removesuffix(" that these data can show"),
        _ratio(row["ratio"], 3),
        UNKNOWN if math.isnan(row["low"]) else f"{_ratio(row['low'], 3)} to {_ratio(row['high'], 3)}",
        format_change(row["base"], row["variant"], row["unit"]),
        "cannot say" if math.isnan(row["predicted"]) else "{} ({} to {})".format(*predicted),
        row["parity"],
    )


def _ratio(value: float, digits: int) -> str:
    """So many digits after the point, or significant ones where those would be zeros."""
    return f"{value:.{digits}f}" if value >= 0.1 else f"{value:.{digits}g}"


def _findings(experiment: Experiment) -> list[str]:
    parity, seen = experiment.parity, experiment.readback
    said = [] if parity is None or parity.within else [parity.why]
    said += [] if seen is None else seen.findings
    return [line for sentence in said for line in _wrapped(experiment.lever, sentence)]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name}: {text}", _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
