"""The shape of a formula: what it takes, what it returns, and how it declines."""

from __future__ import annotations

from collections.abc import Callable

from workbench.diagnosis.prediction.facts import Amount, Facts
from workbench.diagnosis.situation import Situation
from workbench.diagnosis.trace import CallTrace

Terms = dict[str, Amount]
"""The parts of T_variant by name, in nanoseconds (float or float64[draws]); their sum is T_variant."""

Formula = Callable[[Situation, CallTrace, Facts], Terms]
"""Called once with the facts as measured and once with draws of them; raises `Unpredictable`."""


class Unpredictable(Exception):  # noqa: N818  (an answer, not a fault)
    """The data do not bound the effect; the message is a sentence that says why."""
