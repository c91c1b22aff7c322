"""The levers that apply to a run, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

from workbench.diagnosis.levers import Ranked

_WIDTH: Final = 118


def lever_lines(found: Sequence[Ranked]) -> list[str]:
    """Name and title of each with its predicted ratio T'/T and the arithmetic, those for the verdict first."""
    lines: list[str] = []
    for treats in (True, False):
        group = [each for each in found if each.treats_verdict is treats]
        if group:
            lines += [*([""] if lines else []), "For the verdict:" if treats else "Others:"]
            lines += [line for each in group for line in _lines(each)]
    return lines or ["No lever applies."]


def _lines(each: Ranked) -> list[str]:
    said = each.prediction
    ratio = "" if said.ratio is None else f": T'/T {said.ratio:.2f} ({said.low:.2f} to {said.high:.2f})"
    why = said.why or f"cannot say: {said.cannot_say}"
    return [
        f"  {each.lever.name}{ratio}",
        *textwrap.wrap(f"{each.lever.title}. {why}", _WIDTH, initial_indent="    ", subsequent_indent="    "),
    ]
