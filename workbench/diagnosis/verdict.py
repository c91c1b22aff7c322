"""From shares to a headline: the class that holds the run back, or the pair, or why none can be named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.thresholds import CLEAR_LEAD, LARGE_PAIR, LARGE_SHARE
from workbench.diagnosis.shares import CLASSES

INCONCLUSIVE: Final = "inconclusive"
_AND: Final = "+"


@dataclass(frozen=True)
class Verdict:
    """`name` is a class or `inconclusive`; `pair` is set when two classes hold the run back together."""

    name: str
    runner_up: str | None
    pair: tuple[str, str] | None
    reason: str

    @property
    def label(self) -> str:
        """In one word: a class, `a+b` for a pair in alphabetical order, or `inconclusive`."""
        return _AND.join(sorted(self.pair)) if self.pair is not None else self.name

    def __str__(self) -> str:
        return f"{self.label}: {self.reason}"


def labels(shares: dict[str, Any]) -> NDArray[np.str_]:
    """The rule, for one set of shares or for many draws: str[draws], a class, `a+b` for a pair, or `inconclusive`.

    A class that is large and clear of the second; else the two together when they are large; else inconclusive. The
    two of a pair stand in alphabetical order.
    """
    table = np.stack([np.atleast_1d(np.asarray(shares[name], np.float64)) for name in CLASSES])
    order = np.argsort(-table, axis=0, kind="stable")
    top, second = np.take_along_axis(table, order[:2], axis=0)
    names = np.array(CLASSES)
    pairs = np.sort(names[order[:2]], axis=0)
    single = (top >= LARGE_SHARE) & (top - second >= CLEAR_LEAD)
    double = ~single & (top + second >= LARGE_PAIR) & (top - second < CLEAR_LEAD)
    joined = np.char.add(np.char.add(pairs[0], _AND), pairs[1])
    return np.where(single, names[order[0]], np.where(double, joined, INCONCLUSIVE))


def judge(shares: dict[str, float]) -> Verdict:
    """The verdict on one set of shares, with its reason in a sentence."""
    label = str(labels(shares)[0])
    first, second = sorted(CLASSES, key=lambda name: -shares[name])[:2]
    said = f"{first} holds {100 * shares[first]:.0f} % of the time, {second} {100 * shares[second]:.0f} %"
    if label == first:
        return Verdict(first, second, None, f"{said}.")
    if _AND in label:
        return Verdict(INCONCLUSIVE, second, (first, second), f"{said}: the two are too close to name one.")
    if shares["other"] > shares[first]:
        return Verdict(INCONCLUSIVE, first, None, f"{100 * shares['other']:.0f} % of the time could not be classed.")
    return Verdict(INCONCLUSIVE, second, None, f"{said}: no class is large and clear enough to name the run.")
