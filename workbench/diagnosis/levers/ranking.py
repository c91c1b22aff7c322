"""In which order levers are worth trying."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workbench.diagnosis.levers.catalogue import levers
from workbench.diagnosis.levers.entry import Lever, Objective
from workbench.diagnosis.prediction.predict import Prediction, predict
from workbench.diagnosis.situation import Situation


class Ranked(NamedTuple):
    """A lever that applies, what it should give, and whether it treats what holds the run back."""

    lever: Lever
    prediction: Prediction
    treats_verdict: bool


def ranked(
    situation: Situation, objective: Objective | None = None, among: Sequence[Lever] | None = None
) -> list[Ranked]:
    """The levers that apply: first those for the verdict's class or sub-cause, each group by its predicted gain.

    objective: only levers that may improve it. among: levers to choose from, by default all.
    What cannot be predicted stands between what should help and what should not, in the order of the catalogue.
    """
    causes = held_back_by(situation)
    found = [
        Ranked(each, predict(each, situation), bool(causes & set(each.treats)))
        for each in (levers() if among is None else among)
        if (objective is None or objective in each.serves) and each.why_not(situation) is None
    ]
    return sorted(found, key=lambda one: (not one.treats_verdict, _expected(one.prediction)))


def held_back_by(situation: Situation) -> set[str]:
    """What the verdict names, in the words of `Lever.treats`: classes, and for `launch` its sub-cause."""
    diagnosis = situation.diagnosis
    if diagnosis is None:
        return set()
    named = diagnosis.verdict.pair or (diagnosis.verdict.name,)
    return {diagnosis.sub_cause or name if name == "launch" else name for name in named}


def _expected(prediction: Prediction) -> float:
    return 1.0 if prediction.ratio is None else prediction.ratio
