"""A lever's predicted ratio T_variant / T_base with its interval, or why none can be given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.diagnosis.prediction.facts import drawn, measured
from workbench.diagnosis.prediction.formula import Terms, Unpredictable
from workbench.diagnosis.situation import Situation, situation_of
from workbench.runs.reader import RunFolder

if TYPE_CHECKING:
    from workbench.diagnosis.levers.entry import Lever


@dataclass(frozen=True)
class Prediction:
    """What a lever should do to T, the time of a call (of an item, where the lever puts more of them into a call).

    ratio: T_variant / T_base. low, high: its 95 % interval. why: the arithmetic in a sentence. cannot_say: why there
    is no prediction; then the numbers are None.
    """

    lever: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""
    cannot_say: str | None = None

    @property
    def gain(self) -> float | None:
        """1 - T_variant / T_base: the fraction of T that goes; negative where T should grow."""
        return None if self.ratio is None else 1.0 - self.ratio


def predict(lever: Lever, run: RunFolder | Situation) -> Prediction:
    """Predict a lever's effect on a run, or in a situation.

    A lever that does not apply, or whose effect the data do not bound, gets a prediction that says so. Raises
    `RunFolderError` when the run is damaged or holds no latency.
    """
    situation = run if isinstance(run, Situation) else situation_of(run)
    reason = lever.why_not(situation) or _unpredictable(situation)
    if reason is not None:
        return Prediction(lever.name, cannot_say=reason)
    if lever.formula is None:
        return Prediction(lever.name, cannot_say=lever.unknown_because)
    trace = situation.trace
    pieces = situation.diagnosis.pieces if situation.diagnosis is not None else None
    if trace is None or pieces is None:
        return Prediction(lever.name, cannot_say="No pass recorded what the device did in a call.")
    facts, draws = measured(situation, trace, pieces), drawn(situation, trace, pieces)
    try:
        terms = lever.formula(situation, trace, facts)
        sums = sum(lever.formula(situation, trace, draws).values()) / draws.latency
    except Unpredictable as declined:
        return Prediction(lever.name, cannot_say=str(declined))
    ratio = float(sum(terms.values()) / facts.latency)
    low, high = np.quantile(sums, (0.025, 0.975))
    return Prediction(lever.name, ratio, min(float(low), ratio), max(float(high), ratio), _said(terms, facts.latency))


def _said(terms: Terms, latency_ns: float) -> str:
    amounts = {name: float(value) / 1000 for name, value in terms.items() if value}
    parts = " ".join(f"{'-' if amount < 0 else '+'} {name} {abs(amount):,.1f}" for name, amount in amounts.items())
    total = sum(amounts.values())
    return f"T' = {parts.removeprefix('+ ')} = {total:,.1f} µs, against T = {latency_ns / 1000:,.1f} µs."


def _unpredictable(situation: Situation) -> str | None:
    """What keeps every prediction from being made, None when nothing does."""
    if not situation.configured:
        return "The options of an imported capture are not known, and its T was measured with a profiler attached."
    if situation.diagnosis is None:
        return "There is no diagnosis to predict from: profile the model first."
    if not situation.on_gpu:
        return "On a CPU the pieces do not say what another option gives: measure it."
    if situation.config.callers > 1:
        return "Calls overlapped in this run, so what one call waits for is not known: predict from one caller."
    return None
