"""How often the verdict is right, how often it says nothing, and how far its confidence can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from workbench.diagnosis.diagnosis import diagnose
from workbench.diagnosis.levers import ranked
from workbench.diagnosis.levers.catalogue import lever
from workbench.diagnosis.levers.entry import Lever, laid_over
from workbench.diagnosis.result import Diagnosis
from workbench.diagnosis.shares import CLASSES
from workbench.diagnosis.verdict import INCONCLUSIVE
from workbench.validation.ablation import ABLATIONS, EVERYTHING, Without
from workbench.validation.cells import ARMS
from workbench.validation.labelled import Cell

BINS: Final = 10
"""Of the calibration error, as wide as each other (Guo et al., "On Calibration of Modern Neural Networks", 2017)."""

LEVER_OF: Final[Mapping[str, str]] = {
    "device": "io-binding-device",
    "pinned": "io-binding-pinned",
    "graph": "cuda-graph",
    "float16": "float16",
    "int8-weights": "int8-weights",
    "tf32-off": "tf32-off",
}
"""Arm → lever that may make it of another arm; whether it does is seen case by case, as most leave the binding."""


JUDGED: Final = [
    "cell", "family", "scored", "real", "how", "label", "sources", "verdict", "sub_cause", "confidence", "right",
    "inconclusive",
]  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Of some cells, with some sources. Fractions, NaN where there is nothing to take them of.

    accuracy: of all, an inconclusive verdict is not right. macro_f1: over the classes that the labels hold, of cells
    with one class. inconclusive: verdicts that name neither a class nor, on a border, the pair. calibration_error:
    expected difference of confidence and accuracy. confidence: mean.
    """

    cells: int
    accuracy: float
    macro_f1: float
    inconclusive: float
    calibration_error: float
    confidence: float


def judged(cells: Sequence[Cell]) -> pd.DataFrame:
    """One row per accepted cell and ablation.

    Columns: `JUDGED`; label is `a+b` on a border, sources one of `ABLATIONS`, confidence 0..1, right and inconclusive
    bool.
    """
    rows = []
    for cell in cells:
        if not cell.label.accepted:
            continue
        for sources, taken in ABLATIONS.items():
            found = _diagnosis(cell, taken)
            verdict = found.verdict.label
            rows.append(
                {
                    "cell": cell.name,
                    "family": cell.group.family,
                    "scored": cell.group.scored,
                    "real": cell.group.real,
                    "how": cell.label.how,
                    "label": "+".join(sorted(cell.label.classes)),
                    "sources": sources,
                    "verdict": verdict,
                    "sub_cause": found.sub_cause,
                    "confidence": found.confidence,
                    "right": is_right(verdict, cell.label.classes),
                    "inconclusive": is_inconclusive(verdict, cell.label.classes),
                }
            )
    return pd.DataFrame(rows, columns=JUDGED)


def is_right(verdict: str, classes: Sequence[str]) -> bool:
    """A cell of one class is right when it is named alone; on a border, the pair or either of the two is."""
    return verdict in classes or verdict == "+".join(sorted(classes))


def is_inconclusive(verdict: str, classes: Sequence[str]) -> bool:
    """Neither a class is named nor the pair of a border: a pair says nothing where the label is one class."""
    return verdict == INCONCLUSIVE or ("+" in verdict and not is_right(verdict, classes))


def scores(rows: pd.DataFrame) -> Scores:
    """Scores of rows of `judged`, one for each cell."""
    if not len(rows):
        return Scores(0, *(math.nan,) * 5)
    single = rows[~rows["label"].str.contains("+", regex=False)]
    return Scores(
        cells=len(rows),
        accuracy=float(rows["right"].mean()),
        macro_f1=macro_f1(single["label"].tolist(), single["verdict"].tolist()),
        inconclusive=float(rows["inconclusive"].mean()),
        calibration_error=calibration_error(
            rows["confidence"].to_numpy(np.float64), rows["right"].to_numpy(np.float64)
        ),
        confidence=float(rows["confidence"].mean()),
    )


def macro_f1(labels: Sequence[str], verdicts: Sequence[str]) -> float:
    """Mean over the classes among the labels of 2·hits / (cells of the class + verdicts for it); NaN without cells."""
    pairs = list(zip(labels, verdicts, strict=True))
    found = [
        2 * sum(label == verdict == name for label, verdict in pairs) / (labels.count(name) + verdicts.count(name))
        for name in sorted(set(labels))
    ]
    return float(np.mean(found)) if found else math.nan


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: over `BINS` bins of confidence, the mean of |accuracy - mean confidence|, each bin
    weighted by its cells. confidence, right: float64[n].
    """
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    gap = np.abs(np.bincount(bins, right - confidence, minlength=BINS))
    return float(gap.sum() / count.sum())


def confusion(rows: pd.DataFrame) -> pd.DataFrame:
    """Cells by label (rows) and verdict (columns), classes first."""
    table = pd.crosstab(rows["label"], rows["verdict"])
    order = [*CLASSES, *sorted({*table.index, *table.columns} - set(CLASSES))]
    return table.reindex(
        index=[name for name in order if name in table.index], columns=[name for name in order if name in table.columns]
    )


def regret(cell: Cell) -> tuple[str, str, float] | None:
    """The best lever that was measured, the one recommended first, and how much more of T the best one saves.

    Recommended is the first in the order of the diagnosis among those that were measured; where none is predicted to
    help, leaving all as it is. None where no lever was measured.
    """
    gains = {}
    for arm, name in LEVER_OF.items():
        ratio = cell.timed.ratio(arm, cell.arm) if _makes(lever(name), arm, cell) else None
        if ratio is not None:
            gains[name] = 1 - ratio.value
    if not gains:
        return None
    order = ranked(cell.situation, "latency", [lever(name) for name in gains])
    first = next((each.lever.name for each in order if (each.prediction.gain or 0.0) > 0), "none")
    best = max(gains, key=lambda name: gains[name])
    best, most = (best, gains[best]) if gains[best] > 0 else ("none", 0.0)
    return best, first, most - gains.get(first, 0.0)


def regrets(cells: Sequence[Cell]) -> pd.DataFrame:
    """`regret` of each cell on which a lever was measured.

    Columns: cell, scored, best, first (names of levers, or `none`), regret (of T).
    """
    found = [(cell.name, cell.group.scored, each) for cell in cells if (each := regret(cell)) is not None]
    rows = [(name, scored, *each) for name, scored, each in found]
    return pd.DataFrame(rows, columns=["cell", "scored", "best", "first", "regret"])


def _makes(made: Lever, arm: str, cell: Cell) -> bool:
    """Whether a lever applies to a cell and turns its options into those of an arm, no more and no less."""
    if arm == cell.arm or made.why_not(cell.situation) is not None:
        return False
    return laid_over(ARMS[cell.arm], made.changes_in(cell.situation)) == ARMS[arm]


def _diagnosis(cell: Cell, taken: Sequence[str]) -> Diagnosis:
    whole = cell.situation.diagnosis
    if taken == ABLATIONS[EVERYTHING] and whole is not None:
        return whole
    return diagnose(Without(cell.run, taken))
