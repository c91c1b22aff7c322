"""Rounds of blocks: every configuration of a comparison, each in a fresh process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Final

from workbench.capture.latency import FEWEST_CALLS
from workbench.config import Budget, RunConfig
from workbench.errors import ConfigError
from workbench.runs.manifest import Manifest
from workbench.tuning.blocks import Block
from workbench.tuning.comparison import REPEATED_SHARE, arm_order, disturbed
from workbench.tuning.executors import Executor
from workbench.tuning.measure import Job, measure_round
from workbench.tuning.metric import Metric

Progress = Callable[[str, float], None]

BLOCK: Final = Budget(seconds=2.0, min_seconds=0.25)
"""Ends once the median is known to ±1 %; what differs between processes is more than that."""


MOST_FAILURES: Final = 2
"""One may be an accident of the machine; a configuration that fails again is not worth the time of the others."""

_SECONDS_PER_CALL: Final = 0.1


def with_block(config: RunConfig, block: Budget) -> RunConfig:
    """The configuration with what `block` sets laid over its budget; the traced passes keep their numbers of calls."""
    own = config.budget.model_dump(exclude_unset=True)
    most = max(config.budget.max_calls, block.min_calls)
    return config.changed(budget={**own, "max_calls": most, **block.model_dump(exclude_unset=True)})


def block_for(metrics: Iterable[Metric]) -> Budget:
    """`BLOCK` with as many calls as the metrics need, and time for slow ones; raises `ConfigError` for too many."""
    calls = max(metric.calls_needed for metric in metrics)
    if calls > BLOCK.max_calls:
        raise ConfigError(f"A percentile that takes {calls:,} calls is too far out: {BLOCK.max_calls:,} are the most.")
    return BLOCK.changed(min_calls=max(BLOCK.min_calls, calls), seconds=max(BLOCK.seconds, _SECONDS_PER_CALL * calls))


def check_calls(metrics: Iterable[Metric], block: Budget, manifest: Manifest) -> None:
    """Raise `ConfigError` for a metric that takes more calls than fit into a block at the speed of a recorded run."""
    call_s = manifest.latency.median_ns / 1e9 if manifest.latency is not None else 0.0
    for metric in metrics:
        if metric.calls_needed > FEWEST_CALLS and metric.calls_needed * call_s > block.seconds:
            raise ConfigError(
                f"{metric.name} takes {metric.calls_needed} calls, and at {call_s:.3g} s each they do not fit into the "
                f"{block.seconds:g} s of a block: take a percentile nearer to 50, or latency (P50)."
            )


def check_seed(seed: int) -> None:
    """Raise `ConfigError` for what seeds no generator."""
    if seed < 0:
        raise ConfigError(f"The seed of the order cannot be {seed}: give 0 or more.")


@dataclass(frozen=True)
class Settings:
    """How configurations are compared.

    rounds: blocks of each arm. block: when a block ends; a process is the unit, so that more rounds tell more than
    longer blocks. seed: of the order of the arms. timeout_s: for each process.
    """

    rounds: int = 6
    block: Budget = BLOCK
    seed: int = 0
    timeout_s: float | None = 600.0

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"Option 'rounds' cannot be {self.rounds}: measure one at least, six for a verdict.")
        check_seed(self.seed)


@dataclass(frozen=True)
class Arm:
    """One configuration among those that are compared; the block's budget takes the place of its own."""

    name: str
    config: RunConfig


@dataclass
class Rounds:
    """All blocks of an interleaved measurement, and the rounds that were measured again with their reasons."""

    blocks: list[Block] = field(default_factory=list)
    repeated: dict[int, list[str]] = field(default_factory=dict)
    cancelled: bool = False

    def of(self, arm: str) -> list[Block]:
        """The blocks of one arm, in time."""
        return [block for block in self.blocks if block.arm == arm]

    def failures(self, arm: str) -> list[str]:
        """Why blocks of an arm failed, a sentence each."""
        return [block.error[1] for block in self.of(arm) if block.error is not None]


def measure_interleaved(
    arms: Sequence[Arm],
    metric: Metric,
    folder: Path,
    executor: Executor,
    settings: Settings,
    *,
    progress: Progress = lambda name, share: None,
    cancelled: Event | None = None,
) -> Rounds:
    """Measure rounds of one block of every arm, in seeded random order, so that drift meets all of them alike.

    arms: the base first. folder: for what the arms' blocks share. Disturbed rounds are measured again, all arms of
    them, at most `REPEATED_SHARE` of the rounds. An arm that failed `MOST_FAILURES` times is left out of later rounds;
    where it is the base, there are none, because nothing is left to compare with.
    """
    found = Rounds()
    again: dict[int, list[str]] | None = None  # known once every round was measured
    plan, done = list(range(settings.rounds)), 0
    while plan:
        number = plan.pop(0)
        if cancelled is not None and cancelled.is_set():
            found.cancelled = True
            break
        if _is_out(arms[0], found):
            break
        progress(f"round {number + 1}", min(1.0, done / settings.rounds))
        jobs = _jobs(arms, found, number, folder, settings)
        found.blocks.extend(executor.submit(measure_round, jobs).result())
        done += 1
        if again is not None:
            found.repeated[number] = again[number]
        elif not plan:
            again = disturbed(found.blocks, metric)
            plan = list(again)[: int(settings.rounds * REPEATED_SHARE)]
    progress("measured", 1.0)
    return found


def _jobs(arms: Sequence[Arm], found: Rounds, number: int, folder: Path, settings: Settings) -> list[Job]:
    alive = {arm.name: arm for arm in arms if not _is_out(arm, found)}
    return [
        Job(
            arm=name,
            config=with_block(alive[name].config, settings.block),
            round=number,
            position=len(found.blocks) + at,
            folder=folder / name,
            timeout_s=settings.timeout_s,
        )
        for at, name in enumerate(arm_order(list(alive), number, settings.seed))
    ]


def _is_out(arm: Arm, found: Rounds) -> bool:
    return len(found.failures(arm.name)) >= MOST_FAILURES
