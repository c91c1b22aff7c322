"""Whether a variant differs from its base: paired rounds of fresh processes, an interval, and a name for the result.

Calls inside one process share its memory layout, clocks and chosen algorithms and are not independent, so the unit is
the block: a fresh process, measured in rounds that hold one block of every arm. The statistic is the mean over rounds
of log(variant / base), back-transformed: the geometric mean of the ratios, which treats ×2 and ÷2 alike. The median
calls too much in 4 or 5 rounds and finds less in more of them (tests/benchmarks/test_false_alarms.py prints the rates).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from workbench.tuning.blocks import BASE, Block
from workbench.tuning.metric import Metric

CONFIDENCE: Final = 0.98
"""Of configurations that do not differ at most 5 % may be called different. A 95 % interval has no margin for tails,
repeated rounds and trying several variants: simulated, it calls up to 6 %, this one up to 3 %."""

SMALLEST_EFFECT: Final = 0.01
"""A block ends once its median is known to ±1 % (`Budget.relative_ci`), so that less may come from when it ended."""

FEWEST_ROUNDS: Final = 3
"""Two rounds give a spread with one degree of freedom: an interval 32 standard errors wide on each side."""

RESAMPLES: Final = 9999
NO_DIFFERENCE: Final = "no difference that these data can show"
NOT_MEASURED: Final = "not measured"

OUTLIER_LIMIT: Final = 8.0
"""In standard deviations, estimated as 1.4826 MAD (Rousseeuw and Croux 1993). The usual 3.5 (Iglewicz and Hoaglin 1993)
is for larger samples: it strikes 17 % of the arms of 5 normal values, and to repeat their tails makes intervals too
narrow; this limit strikes 1 %."""

REPEATED_SHARE: Final = 0.5
"""At most one repeat for every two rounds: a machine that disturbs more than that is what there is to measure."""


@dataclass(frozen=True)
class Comparison:
    """A variant against its base in one metric.

    outcome: the metric's `better` or `worse` word, `NO_DIFFERENCE` or `NOT_MEASURED`; `why` says it in a sentence.
    ratio: geometric mean over rounds of variant / base; low, high: its interval at level `CONFIDENCE`. resolution: the
    smallest effect that these data could have shown, as a fraction (0.02 is 2 %). None where they cannot be given.
    base_value, variant_value: medians over the compared rounds, in `unit`. ratios: by round.
    notes: rounds that were left out, repeated, or are disturbed and counted all the same; a sentence each.
    """

    metric: str
    unit: str
    base: str
    variant: str
    outcome: str
    why: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    resolution: float | None = None
    base_value: float | None = None
    variant_value: float | None = None
    ratios: dict[int, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def arm_order(arms: Sequence[str], number: int, seed: int) -> list[str]:
    """The order of the arms in round `number`: random, and mirrored in the odd round that follows.

    Every arm has the same mean place in a pair of rounds, so that a steady drift cancels even where four rounds drawn
    independently would by chance all begin with the base.
    """
    drawn = [arms[at] for at in np.random.default_rng((seed, number // 2)).permutation(len(arms))]
    return drawn[::-1] if number % 2 else drawn


def compare(base: Sequence[Block], variant: Sequence[Block], metric: Metric, *, seed: int = 0) -> Comparison:
    """Compare the rounds that measured both; of a round that was repeated, the last block of each arm counts.

    Called better or worse when the interval excludes 1 and the ratio is off by more than `SMALLEST_EFFECT`. Of many
    variants that change nothing, up to 5 % are called all the same.
    """
    ours, theirs = last_of_rounds(base), last_of_rounds(variant)
    shared = np.array(sorted(ours.keys() & theirs.keys()), np.int64)
    pairs = np.array([(metric.of(ours[number]), metric.of(theirs[number])) for number in shared]).reshape(-1, 2)
    usable = (np.isfinite(pairs) & (pairs > 0)).all(axis=1)
    base_values, variant_values = pairs[usable].T
    log_ratios = np.log(variant_values / base_values)
    result = Comparison(
        metric=metric.name,
        unit=metric.unit,
        base=base[0].arm if base else BASE,
        variant=variant[0].arm if variant else "variant",
        outcome=NOT_MEASURED,
        ratios=dict(zip(shared[usable].tolist(), np.exp(log_ratios).tolist(), strict=True)),
        notes=_notes(base, variant, metric, shared[~usable].tolist()),
    )
    if not usable.any():
        cause = _cause([*variant, *base], metric)
        return replace(result, why=f"No round measured both {result.base!r} and {result.variant!r}: {cause}")
    middle = float(log_ratios.mean())
    result = replace(
        result,
        ratio=math.exp(middle),
        base_value=float(np.median(base_values)),
        variant_value=float(np.median(variant_values)),
    )
    said = f"{metric.name} of {result.variant!r} is {result.ratio:.4g} times that of {result.base!r}"
    rounds = len(log_ratios)
    if rounds < FEWEST_ROUNDS:
        why = f"{said} over {rounds} round(s), but an interval takes {FEWEST_ROUNDS}: measure more rounds."
        return replace(result, outcome=NO_DIFFERENCE, why=why)
    low, high = (float(end) for end in interval(log_ratios, seed=seed))
    outcome, reason = _outcome(middle, low, high, metric)
    if np.ptp(log_ratios) == 0:
        reason += ", and every round gave the same ratio, so that the interval has no width"
    found = f"{CONFIDENCE:.0%} interval {math.exp(low):.4g} to {math.exp(high):.4g}"
    return replace(
        result,
        outcome=outcome,
        why=f"{said} ({found}, {rounds} rounds): {outcome}{reason}.",
        low=math.exp(low),
        high=math.exp(high),
        resolution=max(SMALLEST_EFFECT, math.expm1(max(high - middle, middle - low))),
    )


def interval(
    log_ratios: NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval of the mean over the last axis, rounds, at level `CONFIDENCE`: float64[..., rounds] to two float64[...].

    Rounds are resampled. The plain percentile interval is too narrow for few of them, so its level is expanded to
    Φ(-√(n / (n - 1)) t) with Student's t of n - 1 degrees of freedom (Hesterberg 2015, "What Teachers Should Know About
    the Bootstrap", section 5.3). No resample leaves the range of the data, whose chance to hold the middle is
    1 - 2^(1 - n), 0.88 for 4 rounds; so Student's own interval of the mean bounds it from inside.
    """
    from scipy import stats

    rounds = log_ratios.shape[-1]
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, rounds - 1))
    middle = log_ratios.mean(axis=-1)
    half = quantile * log_ratios.std(axis=-1, ddof=1) / np.sqrt(rounds)
    tail = float(stats.norm.cdf(-np.sqrt(rounds / (rounds - 1)) * quantile))
    drawn = stats.bootstrap(
        (log_ratios,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 10**7 // log_ratios.size),
        axis=-1,
        confidence_level=1 - 2 * tail,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return np.minimum(drawn.low, middle - half), np.maximum(drawn.high, middle + half)


def differs(middle: ArrayLike, low: ArrayLike, high: ArrayLike) -> NDArray[np.bool_]:
    """Whether a mean log ratio with this interval is called: it excludes 0, and the mean exceeds `SMALLEST_EFFECT`."""
    excludes = (np.asarray(low) > 0) | (np.asarray(high) < 0)
    return np.asarray(excludes & (np.abs(middle) > math.log1p(SMALLEST_EFFECT)))


def disturbed(blocks: Iterable[Block], metric: Metric) -> dict[int, list[str]]:
    """The rounds to measure again, all arms of them, and why: blocks that say so, or that stand apart in their arm.

    To choose rounds by their ratio would choose the result. So a block is held against its own arm alone, by one rule
    for every arm, and a repeat counts whatever it shows: base and variant of equal speed stay exchangeable. The caller
    repeats at most `REPEATED_SHARE` of the rounds. Failed blocks are results and not repeated.
    """
    arms: dict[str, list[Block]] = {}
    for block in blocks:
        arms.setdefault(block.arm, []).append(block)
    found: dict[int, list[str]] = {}
    for arm, measured in arms.items():
        mine = [block for block in last_of_rounds(measured).values() if not block.error]
        values = metric.values(mine)
        apart = outlying(np.log(np.where(values > 0, values, np.nan)))
        for block, value, is_apart in zip(mine, values.tolist(), apart.tolist(), strict=True):
            reasons = [f"{arm!r}: {reason}" for reason in block.disturbances]
            if is_apart:
                typical = float(np.nanmedian(values))
                reasons.append(f"{arm!r}: {metric.name} is {value / typical:.3g} times the median of its rounds")
            if reasons:
                found.setdefault(block.round, []).extend(reasons)
    return dict(sorted(found.items()))


def outlying(log_values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which blocks of an arm stand apart from its others: float64[..., blocks] to bool[..., blocks]; NaN never does.

    Beyond `OUTLIER_LIMIT` deviations of the median. Deviations below `SMALLEST_EFFECT` are taken as that, because a few
    blocks may agree by chance.
    """
    if log_values.size == 0:
        return np.zeros(log_values.shape, np.bool_)
    known = np.isfinite(log_values)
    none_known = ~known.any(axis=-1, keepdims=True)
    values = np.where(known, log_values, np.where(none_known, 0.0, np.nan))  # the median of nothing would warn
    distance = np.abs(values - np.nanmedian(values, axis=-1, keepdims=True))
    deviation = np.maximum(1.4826 * np.nanmedian(distance, axis=-1, keepdims=True), SMALLEST_EFFECT)
    return np.asarray(known & (distance > OUTLIER_LIMIT * deviation))


def _outcome(middle: float, low: float, high: float, metric: Metric) -> tuple[str, str]:
    if differs(middle, low, high):
        return (metric.better if (middle < 0) == metric.smaller_is_better else metric.worse), ""
    if low <= 0 <= high:
        return NO_DIFFERENCE, ", because the interval includes 1"
    return NO_DIFFERENCE, f", because less than {SMALLEST_EFFECT:.0%} is not worth calling"


def last_of_rounds(blocks: Iterable[Block]) -> dict[int, Block]:
    """The block that counts of each round: the last one where the round was measured again."""
    return {block.round: block for block in sorted(blocks, key=lambda block: block.position)}


def _notes(base: Sequence[Block], variant: Sequence[Block], metric: Metric, left_out: Sequence[int]) -> list[str]:
    ours, theirs = last_of_rounds(base), last_of_rounds(variant)
    times = Counter(block.round for block in base) | Counter(block.round for block in variant)
    return [
        *(f"Round {n + 1} was left out: {_cause([theirs[n], ours[n]], metric)}" for n in left_out),
        *(f"Round {n + 1} was left out: it lacks one of the two arms." for n in sorted(ours.keys() ^ theirs.keys())),
        *(f"Round {n + 1} was measured {times[n]} times, and the last counts." for n in sorted(times) if times[n] > 1),
        *(
            f"Round {n + 1} is disturbed and counted all the same: {'; '.join(reasons)}."
            for n, reasons in disturbed([*ours.values(), *theirs.values()], metric).items()
        ),
    ]


def _cause(blocks: Sequence[Block], metric: Metric) -> str:
    if not blocks:
        return "it ended before the first one."
    for block in blocks:
        if block.error:
            return f"{block.arm!r} failed with {block.error[0]}: {block.error[1]}"
    return f"no positive value of {metric.name} came of it; measure more calls, or choose another metric."
