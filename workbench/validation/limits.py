"""What a verdict that deserves trust has to reach on the labelled set, beside what it reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd

from workbench.diagnosis.interventional import TOLERANCE
from workbench.tuning.confirm import NOT_CONFIRMABLE
from workbench.validation.ablation import EVERYTHING, LATENCY_AND_NVML
from workbench.validation.evaluate import Validation
from workbench.validation.score import Scores, scores

RIGHT: Final = 0.95
MACRO_F1: Final = 0.90
MOST_INCONCLUSIVE: Final = 0.10
MOST_CALIBRATION_ERROR: Final = 0.05
RIGHT_UNTRACED: Final = 0.80
CONFIRMED: Final = 0.90
WHOLE: Final = 1.0

TESTED: Final = (("pcie", "io-binding-device"), ("launch", "cuda-graph"), ("compute", "tf32-off"))
"""Class and lever of the shares that are held to the tolerance, one intervention for each class."""


@dataclass(frozen=True)
class Limit:
    """One wanted figure. value: a fraction, None where there is nothing to take it of. of: rows that it is taken of."""

    name: str
    wanted: float
    at: Literal["least", "most"]
    value: float | None
    of: int

    @property
    def met(self) -> bool | None:
        """Whether it is kept; None where it is not known."""
        if self.value is None:
            return None
        return self.value >= self.wanted if self.at == "least" else self.value <= self.wanted


@dataclass(frozen=True)
class PartScores:
    """Scores of some cells with some sources: of those labelled by construction, of the real graphs, and of both."""

    constructed: Scores
    real: Scores
    both: Scores


def part_scores(rows: pd.DataFrame, sources: str, *, scored: bool) -> PartScores:
    """Scores of one part of the set. rows: of `workbench.validation.score.judged`."""
    chosen = rows[(rows["sources"] == sources) & (rows["scored"] == scored)]
    real = chosen["real"].astype(bool)
    return PartScores(scores(chosen[~real]), scores(chosen[real]), scores(chosen))


def confirmable(confirmed: pd.DataFrame) -> pd.DataFrame:
    """The cells whose verdict an intervention could be held against."""
    return confirmed[confirmed["outcome"] != NOT_CONFIRMABLE]


def limits(found: Validation) -> list[Limit]:
    """Every wanted figure: the verdict's on the scored part, interventions' over the whole set."""
    whole = part_scores(found.judged, EVERYTHING, scored=True)
    bare = part_scores(found.judged, LATENCY_AND_NVML, scored=True)
    tested = confirmable(found.confirmed)
    return [
        _limit("right by construction", RIGHT, "least", whole.constructed.accuracy, whole.constructed.cells),
        _limit("macro-F1 on the real graphs", MACRO_F1, "least", whole.real.macro_f1, whole.real.cells),
        _limit("inconclusive", MOST_INCONCLUSIVE, "most", whole.both.inconclusive, whole.both.cells),
        _limit("calibration error", MOST_CALIBRATION_ERROR, "most", whole.both.calibration_error, whole.both.cells),
        _limit(f"right with {LATENCY_AND_NVML} alone", RIGHT_UNTRACED, "least", bare.both.accuracy, bare.both.cells),
        _limit("verdict confirmed", CONFIRMED, "least", _mean(tested["agrees"]), len(tested)),
        *(_of_share(found.shares, name, lever) for name, lever in TESTED),
    ]


def _of_share(shares: pd.DataFrame, name: str, lever: str) -> Limit:
    rows = shares[(shares["share"] == name) & (shares["lever"] == lever)]
    return _limit(f"{name} share within {TOLERANCE[name]:g}", WHOLE, "least", _mean(rows["within"]), len(rows))


def _limit(name: str, wanted: float, at: Literal["least", "most"], value: float, of: int) -> Limit:
    return Limit(name, wanted, at, None if math.isnan(value) else value, of)


def _mean(column: pd.Series) -> float:
    return float(column.mean()) if len(column) else math.nan
