"""What a search is after: one metric to improve, and limits on others that a configuration must keep."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from workbench.config.strict import nearest
from workbench.errors import ConfigError
from workbench.tuning import metric as metrics
from workbench.tuning.metric import Metric

Values = Mapping[str, float | None]
"""Metric name → number in the metric's unit; None where it was not measured."""

_SCALES: Final[dict[str, dict[str, float]]] = {
    "ns": {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9},
    "bytes": {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "items/s": {"items/s": 1, "": 1},
}
_PERCENTILE: Final = re.compile(r"(?:latency:)?p(\d+(?:\.\d+)?)")
_NAMED: Final[dict[str, Callable[[], Metric]]] = {
    "latency": metrics.latency,
    "throughput": metrics.throughput,
    "memory": metrics.memory,
    "host-memory": lambda: metrics.memory("host"),
    "cold-start": metrics.cold_start,
}
_KNOWN: Final = (*_NAMED, "latency:p99")


def metric_of(word: str) -> Metric:
    """The metric that a word names: `latency` (P50), `latency:p99` or `p99`, `throughput`, `memory`, `host-memory`,
    `cold-start`. Raises `ConfigError`."""
    name = word.strip()
    if percentile := _PERCENTILE.fullmatch(name):
        return metrics.latency(float(percentile[1]))
    if name not in _NAMED:
        raise ConfigError(f"Unknown metric {name!r}: {nearest(name, _KNOWN)}")
    return _NAMED[name]()


@dataclass(frozen=True)
class Objective:
    """The metric to improve, in its better direction."""

    metric: Metric

    @classmethod
    def parse(cls, text: str) -> Objective:
        """An objective as users write it, a word of `metric_of`; raises `ConfigError`."""
        return cls(metric_of(text))

    def better(self, value: float, other: float) -> bool:
        """Whether a value is better than another one."""
        return value < other if self.metric.smaller_is_better else value > other


@dataclass(frozen=True)
class Constraint:
    """A limit on a metric, in the metric's unit: an upper one where smaller is better, else a lower one.

    `<` and `<=` mean the same, because what is measured is never known to the last digit.
    """

    metric: Metric
    limit: float
    text: str

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """A constraint as users write it: `p99<10ms`, `memory<4GB`, `throughput>500`; raises `ConfigError`.

        Units: ns us µs ms s; B kB MB GB KiB MiB GiB; items/s, which may be left out.
        """
        parts = re.fullmatch(r"\s*([^<>=\s]+)\s*(<=?|>=?)\s*([\d.eE+-]+)\s*(\S*)\s*", text)
        if not parts:
            raise ConfigError(f"{text!r} is no constraint: write metric, < or >, number and unit, as in p99<10ms.")
        word, sign, number, unit = parts.groups()
        metric = metric_of(word)
        scales = _SCALES[metric.unit]
        if unit not in scales:
            known = ", ".join(name for name in scales if name)
            raise ConfigError(f"Constraint {text!r} has {unit or 'no'!s} unit of {metric.name}: known are {known}.")
        if (sign[0] == "<") != metric.smaller_is_better:
            right = "<" if metric.smaller_is_better else ">"
            raise ConfigError(f"Constraint {text!r} would keep {metric.name} bad: write {word}{right}{number}{unit}.")
        try:
            limit = float(number) * scales[unit]
        except ValueError:
            limit = math.nan
        if not (math.isfinite(limit) and limit > 0):
            raise ConfigError(f"Constraint {text!r} needs a limit above 0, not {number!r}: write it as in p99<10ms.")
        return cls(metric, limit, text.strip())

    def miss(self, value: float | None) -> float:
        """By which share of the limit a value lies on the wrong side: |value - limit| / limit, 0 when it is kept.

        Infinite when the value is not known, because nothing then shows that the limit is kept.
        """
        if value is None or math.isnan(value):
            return math.inf
        beyond = value - self.limit if self.metric.smaller_is_better else self.limit - value
        return max(0.0, beyond / self.limit)


@dataclass(frozen=True)
class Best:
    """index: of the best candidate. feasible: whether it keeps every constraint. sentence: what was found."""

    index: int
    feasible: bool
    sentence: str


def total_miss(values: Values, constraints: Sequence[Constraint]) -> float:
    """Sum of the relative misses (`Constraint.miss`): 0 when every constraint is kept."""
    return sum(constraint.miss(values.get(constraint.metric.name)) for constraint in constraints)


def best(candidates: Sequence[Values], objective: Objective, constraints: Sequence[Constraint] = ()) -> Best | None:
    """The best candidate that keeps every constraint, or else the closest one.

    The closest has the smallest sum of relative misses, |value - limit| / limit over the constraints not kept; among
    equals the objective decides, then the order given. Candidates without a value of the objective are left out; None
    when no other is there.
    """

    def rank(index: int) -> tuple[float, float]:
        value = candidates[index][objective.metric.name]
        assert value is not None
        return total_miss(candidates[index], constraints), value if objective.metric.smaller_is_better else -value

    measured = [index for index, values in enumerate(candidates) if _known(values.get(objective.metric.name))]
    if not measured:
        return None
    index = min(measured, key=rank)
    if rank(index)[0] == 0:
        under = " that keeps every constraint" if constraints else ""
        return Best(index, True, f"The best {objective.metric.name}{under}.")
    missed = [_missed(constraint, candidates[index]) for constraint in constraints]
    return Best(index, False, f"Nothing measured keeps every constraint; {'; '.join(filter(None, missed))}.")


def _missed(constraint: Constraint, values: Values) -> str:
    """How the closest candidate misses a constraint, empty when it keeps it."""
    miss = constraint.miss(values.get(constraint.metric.name))
    if miss == 0:
        return ""
    if math.isinf(miss):
        return f"{constraint.metric.name} was not measured, so that {constraint.text} cannot be shown"
    return f"the closest misses {constraint.text} by {_percent(miss)}"


def _percent(share: float) -> str:
    return f"{float(f'{100 * share:.3g}'):,.12g} %" if share >= 0.001 else "less than 0.1 %"


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
