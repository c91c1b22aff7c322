"""Traced shares beside interventional ones over the labelled set, and the verdicts that interventions confirm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd

from workbench.diagnosis.interventional import (
    MORE_ITEMS,
    TOLERANCE,
    Intervention,
    InterventionalShare,
    by_exclusion,
    interventions,
    share_of,
)
from workbench.diagnosis.prediction.formula import Unpredictable
from workbench.diagnosis.shares import CLASSES
from workbench.tuning.confirm import CONFIRMED, NOT_CONFIRMABLE, judge, plan_for
from workbench.validation.labelled import Cell

ARM_OF: Final[Mapping[str, str]] = {
    "io-binding-device": "device",
    "cuda-graph": "graph",
    "tf32-off": "tf32-off",
    f"batch-x{MORE_ITEMS}": "more",
}
"""Lever of an intervention → the arm that has it and nothing else, over the arm `device`."""

COMPARED: Final = [
    "cell", "family", "scored", "share", "lever", "traced", "interventional", "low", "high", "rounds", "within",
    "consistent",
]  # fmt: skip
CONFIRMED_COLUMNS: Final = ["cell", "label", "verdict", "lever", "outcome", "agrees", "why"]


def measured(cell: Cell, intervention: Intervention) -> InterventionalShare | None:
    """The share that an intervention gave on one cell; None where its arm was not measured against this cell's own.

    Levers other than the binding are measured on the device, so that they say nothing of a cell bound otherwise.
    """
    base = cell.arm
    if base != "device" and not (intervention.lever == "io-binding-device" and base in ("numpy", "pinned")):
        return None
    ratio = cell.timed.ratio(ARM_OF[intervention.lever], base) if ARM_OF[intervention.lever] != base else None
    if ratio is None:
        return None
    try:
        return share_of(intervention, cell.situation, *(each / intervention.items for each in ratio[:3]))
    except Unpredictable:
        return None


def compared(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per cell and intervention that was measured on it.

    Columns: `COMPARED`; shares are fractions of T, `low` and `high` the interval of the interventional one. within:
    the two differ by no more than the tolerance of the class. consistent: some value of the interval does.
    """
    rows = []
    for cell in cells:
        for name in CLASSES:
            for each in interventions(name, cell.situation):
                found = measured(cell, each)
                if found is not None:
                    ratio = cell.timed.ratio(ARM_OF[each.lever], cell.arm)
                    rows.append(
                        {
                            "cell": cell.name,
                            "family": cell.group.family,
                            "scored": cell.group.scored,
                            "share": name,
                            "lever": each.lever,
                            "traced": found.traced,
                            "interventional": found.value,
                            "low": found.low,
                            "high": found.high,
                            "rounds": ratio.rounds if ratio is not None else 0,
                            "within": abs(found.traced - found.value) <= TOLERANCE[name],
                            "consistent": found.agrees,
                        }
                    )
    return pd.DataFrame(rows, columns=COMPARED)


def confirmed(cells: Sequence[Cell]) -> pd.DataFrame:
    """What `confirm` says of each accepted cell of one class, from the recorded rounds.

    Columns: `CONFIRMED_COLUMNS`. outcome: of `workbench.tuning.confirm`. agrees: confirmed where the verdict is the
    label, and not where it is another; it means nothing where the cell is not confirmable.
    """
    rows = []
    for cell in cells:
        if not cell.label.accepted or len(cell.label.classes) > 1 or cell.verdict not in CLASSES:
            continue
        found, outcome, why = _confirmed(cell)
        rows.append(
            {
                "cell": cell.name,
                "label": cell.label.classes[0],
                "verdict": cell.verdict,
                "lever": found.lever if found is not None else "",
                "outcome": outcome,
                "agrees": (outcome == CONFIRMED) == (cell.verdict == cell.label.classes[0]),
                "why": why,
            }
        )
    return pd.DataFrame(rows, columns=CONFIRMED_COLUMNS)


def _confirmed(cell: Cell) -> tuple[InterventionalShare | None, str, str]:
    """The share of the verdict's class, the outcome and its reason."""
    plan = plan_for(cell.verdict, cell.situation)
    if isinstance(plan, str):
        return None, NOT_CONFIRMABLE, plan
    controls = [share for each in plan.must_not if (share := measured(cell, each)) is not None]
    try:
        alone = plan.test is None and cell.arm == "device"
        found = by_exclusion(cell.verdict, cell.situation, controls) if alone else None
        found = measured(cell, plan.test) if plan.test is not None else found
    except Unpredictable as error:
        return None, NOT_CONFIRMABLE, str(error)
    if found is None:
        return None, NOT_CONFIRMABLE, "Its intervention was not measured on this cell."
    return found, *judge(found, controls)
