"""The figures of a validation by part, as the terminal and the JSON object tell them."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from workbench.diagnosis.interventional import TOLERANCE
from workbench.validation.ablation import ABLATIONS, EVERYTHING
from workbench.validation.evaluate import Validation
from workbench.validation.failures import failures
from workbench.validation.limits import confirmable, limits, part_scores
from workbench.validation.score import confusion


class Part(NamedTuple):
    """A part of the set. scored: whether it is only scored."""

    name: str
    scored: bool
    title: str


PARTS: Final = (
    Part("scored", True, "Scored part, which no threshold was chosen on"),
    Part("chosen_on", False, "Part that thresholds were chosen on"),
)


class Regret(NamedTuple):
    """Of T, over the cells on which a lever was measured; cell: that of the largest."""

    cells: int
    mean: float
    largest: float
    cell: str


class ShareRow(NamedTuple):
    """How traced and interventional shares of one class compare. largest: difference, on `cell`."""

    share: str
    lever: str
    cells: int
    within: int
    largest: float
    cell: str


def part_of(judged: pd.DataFrame, part: Part) -> pd.DataFrame:
    """The rows of one part."""
    return judged[judged["scored"] == part.scored]


def regret_of(regrets: pd.DataFrame, part: Part) -> Regret | None:
    """The regret over one part; None where no lever was measured in it."""
    mine = regrets[regrets["scored"] == part.scored]
    if not len(mine):
        return None
    amounts = mine["regret"].to_numpy(np.float64)
    worst = int(amounts.argmax())
    return Regret(len(mine), float(amounts.mean()), float(amounts[worst]), str(mine["cell"].iloc[worst]))


def share_rows(shares: pd.DataFrame) -> list[ShareRow]:
    """One row for each class and intervention, in the order of the table."""
    found = []
    for (name, lever), rows in shares.groupby(["share", "lever"], sort=False):
        difference = np.abs((rows["traced"] - rows["interventional"]).to_numpy(np.float64))
        worst = int(difference.argmax())
        found.append(
            ShareRow(
                str(name), str(lever), len(rows), int(rows["within"].sum()), float(difference[worst]),
                str(rows["cell"].iloc[worst]),
            )
        )  # fmt: skip
    return found


def validation_dict(found: Validation) -> dict[str, Any]:
    """All figures and rows as plain data; what is not known is None."""
    tested = confirmable(found.confirmed)
    recorded = asdict(found.recorded)
    told: dict[str, Any] = _plain(
        {
            "recorded": recorded,
            "parts": {part.name: _part(found, part) for part in PARTS},
            "confirmation": {"confirmable": len(tested), "agree": int(tested["agrees"].sum())},
            "shares": [{**row._asdict(), "tolerance": TOLERANCE[row.share]} for row in share_rows(found.shares)],
            "limits": [{**asdict(each), "met": each.met} for each in limits(found)],
            "failures": [each._asdict() for each in failures(found)],
            "rows": {
                name: getattr(found, name).to_dict("records")
                for name in ("cells", "judged", "regrets", "shares", "confirmed")
            },
        }
    )
    return told


def _part(found: Validation, part: Part) -> dict[str, Any]:
    mine = part_of(found.judged, part)
    whole = mine[mine["sources"] == EVERYTHING]
    regret = regret_of(found.regrets, part)
    table = confusion(whole) if len(whole) else pd.DataFrame()
    return {
        "confusion": {str(label): dict(counts) for label, counts in table.to_dict("index").items()},
        "sources": {name: asdict(part_scores(mine, name, scored=part.scored)) for name in ABLATIONS},
        "regret": None if regret is None else regret._asdict(),
    }


def _plain(value: Any) -> Any:
    """Plain data without NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if hasattr(value, "item"):  # NumPy's scalars
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
