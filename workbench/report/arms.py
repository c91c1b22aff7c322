"""What the blocks of an experiment say of each arm: the pairs of each round, the axes of the front, the cold start.

Of a round that was measured again, the last block of each arm counts, as in `workbench.tuning.comparison`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from workbench.runs.statistics import median_interval
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.metric import Metric, latency, memory, throughput
from workbench.tuning.objective import Constraint, total_miss

FEWEST_FOR_INTERVAL: Final = 6
"""No distribution-free interval of the median of fewer blocks reaches 95 %: the range of 5 holds it with 94 %."""


def round_pairs(blocks: Sequence[Block], arms: Iterable[str], metric: Metric) -> pd.DataFrame:
    """One row per arm and measured round: arm, round, base, variant (in the metric's unit), ratio, counts.

    counts: false for the earlier try of a round that was measured again. Numbers are NaN where not measured.
    """
    by_round = _by_round(blocks)
    rows = []
    for arm in arms:
        for number, in_round in by_round.items():
            ours, theirs = in_round.get(BASE, []), in_round.get(arm, [])
            pairs = [*zip(ours[:-1], theirs[:-1], strict=False), *zip(ours[-1:], theirs[-1:], strict=False)]
            for at, pair in enumerate(pairs, start=1):
                base, variant = metric.values(pair)
                rows.append((arm, number, base, variant, variant / base, at == len(pairs)))
    return pd.DataFrame(rows, columns=["arm", "round", "base", "variant", "ratio", "counts"])


def candidates(
    blocks: Sequence[Block],
    arms: Iterable[str],
    constraints: Sequence[Constraint],
    *,
    latency_metric: Metric | None = None,
    on_device: bool = True,
) -> pd.DataFrame:
    """One row per arm with medians over its blocks: the columns that `workbench.figures.pareto.pareto` draws.

    latency_metric: the one of the axis, P50 where it is not given. on_device: whether memory is that of the device.
    """
    axes = {
        "latency_ns": latency_metric or latency(50),
        "items_per_s": throughput(),
        "memory_bytes": memory("device" if on_device else "host"),
    }
    limited = {constraint.metric.name: constraint.metric for constraint in constraints}
    rows = []
    for arm in arms:
        mine = counted(blocks, arm)
        error = next((block.error[1] for block in mine if block.error), None)
        values = {name: _median(metric, mine) for name, metric in limited.items()}
        numbers = {column: _median(metric, mine) for column, metric in axes.items()}
        rows.append({"name": arm, **numbers, "feasible": total_miss(values, constraints) == 0, "error": error})
    columns = ["name", *axes, "feasible", "error"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(axes, "float64"))


def cold_start_steps(blocks: Sequence[Block], arms: Iterable[str]) -> pd.DataFrame:
    """One row per arm and step: configuration, step, duration_ns (median over its blocks), low_ns, high_ns (Int64).

    The 95 % interval of the median (`median_interval`) is null for fewer than `FEWEST_FOR_INTERVAL` blocks.
    """
    rows: list[tuple[Any, ...]] = []
    for arm in arms:
        timed = [block.steps_ns for block in counted(blocks, arm) if not block.error]
        for step in dict.fromkeys(name for steps in timed for name in steps):
            durations_ns = np.array([steps[step] for steps in timed if step in steps], np.int64)
            found = median_interval(durations_ns)
            ends = (found.low, found.high) if len(durations_ns) >= FEWEST_FOR_INTERVAL else (None, None)
            rows.append((arm, step, *(None if value is None else round(value) for value in (found.median, *ends))))
    names = ["configuration", "step", "duration_ns", "low_ns", "high_ns"]
    return pd.DataFrame(rows, columns=names).astype(dict.fromkeys(names[2:], "Int64"))


def counted(blocks: Sequence[Block], arm: str) -> list[Block]:
    """The blocks of an arm that count, one for each round."""
    return [in_round[arm][-1] for in_round in _by_round(blocks).values() if arm in in_round]


def _by_round(blocks: Sequence[Block]) -> Mapping[int, Mapping[str, list[Block]]]:
    """Round → arm → its blocks, in time."""
    found: dict[int, dict[str, list[Block]]] = {}
    for block in sorted(blocks, key=lambda each: (each.round, each.position)):
        found.setdefault(block.round, {}).setdefault(block.arm, []).append(block)
    return found


def _median(metric: Metric, blocks: Sequence[Block]) -> float | None:
    values = metric.values(blocks)
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
