"""Findings as the page and the terminal show them: what is so, what to do, and the rows that show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import pandas as pd

from workbench.diagnosis.findings import Finding
from workbench.figures.kernels import short_name
from workbench.figures.theme import shorten
from workbench.figures.units import UNKNOWN, format_bytes, format_ns, format_percent
from workbench.report.redact import without_folders

MOST_IN_TEXT: Final = 3
MOST_ROWS: Final = 8
_LONGEST: Final = 60  # letters of a name
_KERNELS: Final = ("kernel", "longest_kernel")
_UNITS: Final = {"_ns": format_ns, "_bytes": format_bytes, "_fraction": format_percent}


class Shown(NamedTuple):
    """One finding: its texts, what it saves at most (time and share of T), and its evidence as a table of texts."""

    rule: str
    said: str
    remedy: str
    lever: str
    saves: str
    columns: list[str]
    rows: list[list[str]]
    left_out: int


def shown(found: Sequence[Finding], latency_ns: float) -> list[Shown]:
    """Every finding for the page, in its order."""
    return [
        Shown(
            rule=each.rule,
            said=without_folders(each.said),
            remedy=without_folders(each.remedy),
            lever=each.lever or "",
            saves=_saves(each, latency_ns),
            columns=[_heading(str(name)) for name in each.evidence.columns],
            rows=[[_cell(str(name), value) for name, value in row.items()] for row in _first(each.evidence)],
            left_out=each.counted - min(len(each.evidence), MOST_ROWS),
        )
        for each in found
    ]


def finding_lines(found: Sequence[Finding], latency_ns: float) -> list[str]:
    """The first findings for a terminal, a line each."""
    if not found:
        return []
    lines = ["", f"Findings, {len(found)} in all:" if len(found) > MOST_IN_TEXT else "Findings:"]
    width = max(len(each.rule) for each in found[:MOST_IN_TEXT])
    for each in found[:MOST_IN_TEXT]:
        lines.append(f"  {_saves(each, latency_ns):>15}  {each.rule:<{width}}  {without_folders(each.said)}")
    return lines


def _first(evidence: pd.DataFrame) -> list[dict[Any, Any]]:
    return evidence.head(MOST_ROWS).to_dict("records")


def _saves(finding: Finding, latency_ns: float) -> str:
    if finding.saves_ns is None:
        return UNKNOWN
    return f"{format_ns(finding.saves_ns)} ({format_percent(finding.saves_ns / latency_ns)})"


def _heading(column: str) -> str:
    suffix = next((unit for unit in _UNITS if column.endswith(unit)), "")
    return column.removesuffix(suffix).replace("_", " ")


def _cell(column: str, value: Any) -> str:
    if value is None or (not isinstance(value, (list, tuple)) and pd.isna(value)):
        return UNKNOWN
    shown_as = next((shown_as for unit, shown_as in _UNITS.items() if column.endswith(unit)), None)
    if shown_as is not None:
        return shown_as(float(value))
    if isinstance(value, float):
        return f"{value:,.4g}"
    text = short_name(str(value)) if column in _KERNELS else without_folders(str(value))
    return shorten(text, _LONGEST)
