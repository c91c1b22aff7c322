"""How often the verdict is right, for a terminal: every figure, the wanted ones, and each cell that fails."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Final

from workbench.diagnosis.interventional import TOLERANCE
from workbench.figures.units import UNKNOWN, format_percent
from workbench.report.tables import utc
from workbench.report.validated_rows import PARTS, Part, part_of, regret_of, share_rows
from workbench.validation.ablation import ABLATIONS, EVERYTHING
from workbench.validation.evaluate import Recorded, Validation
from workbench.validation.failures import failures
from workbench.validation.limits import Limit, confirmable, limits, part_scores
from workbench.validation.score import Scores, confusion

if TYPE_CHECKING:
    import pandas as pd

_SCORES_HEAD: Final = (
    "what is left", "right by construction", "macro-F1, real graphs", "inconclusive", "calibration error", "confidence",
)  # fmt: skip
_WIDTH: Final = 118
_INDENT: Final = "    "
_MET: Final = {True: "met", False: "not met", None: "not known"}


def validation_summary(found: Validation) -> str:
    """The whole result in plain text."""
    lines = [*_recorded_lines(found.recorded), ""]
    for part in PARTS:
        lines += [*_part_lines(found, part), ""]
    lines += [*_confirmation_lines(found.confirmed), ""]
    lines += ["Traced against interventional shares, all cells:", *_share_lines(found.shares), ""]
    lines += ["Wanted:", *_limit_lines(limits(found)), ""]
    lines += _failure_lines(found)
    return "\n".join(
        fill(line, _WIDTH, subsequent_indent=_INDENT, break_on_hyphens=False) if len(line) > _WIDTH else line
        for line in lines
    )


def _recorded_lines(recorded: Recorded) -> list[str]:
    fewest, most = recorded.rounds
    rounds = f"{most}" if fewest == most else f"{fewest} to {most}"
    lines = [
        f"Recorded on {', '.join(recorded.devices)}; driver {', '.join(recorded.drivers)}; ONNX Runtime "
        f"{', '.join(recorded.runtimes)}; {utc(recorded.first_ns)} to {utc(recorded.last_ns)}.",
        f"{recorded.cells} of {recorded.cells + len(recorded.lacking)} cells, {rounds} round{'s' * (most != 1)} of "
        "each group.",
    ]
    if recorded.lacking:
        lines.append(f"Not recorded: {', '.join(recorded.lacking)}.")
    if recorded.spread is None:
        lines.append("Too few rounds to know what a ratio of times varies by: intervals take what it usually is.")
    return lines


def _part_lines(found: Validation, part: Part) -> list[str]:
    mine = part_of(found.judged, part)
    whole = mine[mine["sources"] == EVERYTHING]
    lines = [f"{part.title} ({len(whole)} cells):"]
    if not len(whole):
        return [*lines, "  No cell of it was recorded and accepted."]
    table = confusion(whole)
    counts = [(str(label), *map(str, row)) for label, row in zip(table.index, table.to_numpy(), strict=True)]
    lines += _table(("label \\ verdict", *map(str, table.columns)), counts)
    lines += ["", *_table(_SCORES_HEAD, [_score_row(mine, sources, part) for sources in ABLATIONS])]
    regret = regret_of(found.regrets, part)
    if regret is not None:
        lines.append(
            f"  Regret: the best lever gives {format_percent(regret.mean)} of T more than the one recommended first "
            f"(mean of {regret.cells} cells); at most {format_percent(regret.largest)}, on {regret.cell}."
        )
    return lines


def _score_row(judged: pd.DataFrame, sources: str, part: Part) -> tuple[str, ...]:
    each = part_scores(judged, sources, scored=part.scored)
    return (
        sources,
        _counted(format_percent(each.constructed.accuracy), each.constructed),
        _counted(_number(each.real.macro_f1), each.real),
        format_percent(each.both.inconclusive),
        _number(each.both.calibration_error, 3),
        _number(each.both.confidence),
    )


def _counted(figure: str, scores: Scores) -> str:
    return f"{figure} of {scores.cells}" if scores.cells else UNKNOWN


def _confirmation_lines(confirmed: pd.DataFrame) -> list[str]:
    tested = confirmable(confirmed)
    agree = int(tested["agrees"].sum())
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in confirmed["outcome"].value_counts().items())
    return [
        f"Interventions agree with the label on {agree} of the {len(tested)} cells that they can be held against "
        f"({outcomes})."
    ]


def _share_lines(shares: pd.DataFrame) -> list[str]:
    head = ("share", "intervention", "tolerance", "within", "largest difference", "on")
    rows = [
        (
            row.share, row.lever, f"{TOLERANCE[row.share]:g}", f"{row.within} of {row.cells}",
            _number(row.largest), row.cell,
        )
        for row in share_rows(shares)
    ]  # fmt: skip
    return _table(head, rows)


def _limit_lines(found: Sequence[Limit]) -> list[str]:
    rows = [
        (
            limit.name,
            f"{'≥' if limit.at == 'least' else '≤'} {limit.wanted:.2f}",
            _number(limit.value, 3),
            f"of {limit.of}",
            _MET[limit.met],
        )
        for limit in found
    ]
    return _table(("", "wanted", "found", "cells", ""), rows)


def _failure_lines(found: Validation) -> list[str]:
    failed = failures(found)
    lines = ["Cells that fail anything:" if failed else "No cell fails anything."]
    lines += [f"  {each.cell}, {each.what}: {each.why}" for each in failed]
    refused = found.cells[~found.cells["accepted"].astype(bool)]
    if len(refused):
        lines += ["", "Cells whose label was not accepted, so that they count nowhere:"]
        lines += [f"  {cell}: {why}" for cell, why in zip(refused["cell"], refused["why"], strict=True)]
    return lines


def _number(value: float | None, digits: int = 2) -> str:
    return UNKNOWN if value is None or math.isnan(value) else f"{value:.{digits}f}"


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right, indented by two."""
    every = [tuple(head), *map(tuple, rows)]
    widths = [max(len(row[at]) for row in every) for at in range(len(every[0]))]
    return ["  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in every]
