"""Records the labelled set on the GPU at hand: every cell with all passes, then rounds of all arms of every group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from workbench.capture.record import record
from workbench.errors import WorkbenchError
from workbench.tuning.blocks import Block
from workbench.tuning.comparison import arm_order
from workbench.tuning.executors import Executor
from workbench.tuning.measure import Job, measure_round
from workbench.tuning.store import BLOCKS, load_blocks, save_blocks
from workbench.validation.cells import BLOCK, ON_GPU, TRACED, Group, cell_name

RUNS: Final = "runs"
ROUNDS: Final = "rounds"
TIMEOUT_S: Final = 180.0

Say = Callable[[str], None]


def record_set(
    folder: Path,
    models: Path,
    groups: Sequence[Group],
    executor: Executor,
    *,
    rounds: int = 3,
    device: Mapping[str, Any] = ON_GPU,
    say: Say = lambda text: None,
) -> list[str]:
    """Record what is not yet in `folder`, and return what failed, a sentence each.

    folder: gets `runs/<cell>` and `rounds/<group>/blocks.parquet`, and can be continued after an interruption. models:
    where the models are kept. device: options of where all of it runs. rounds: of each group; one round of all groups
    comes before the next, so that a set that is cut short has as many rounds of each.
    """
    models.mkdir(parents=True, exist_ok=True)
    failures = []
    for group in groups:
        group.recipe.write(models)
        for arm in group.cells:
            target = folder / RUNS / cell_name(group.name, arm)
            if target.exists():
                continue
            config = group.config(arm, models.resolve(), TRACED, device)
            try:
                executor.submit(record, config, target, activity="cupti", timeout_s=TIMEOUT_S).result()
                say(f"{target.name}: recorded")
            except WorkbenchError as error:
                failures.append(f"{target.name}: {error}")
                say(failures[-1])
    with TemporaryDirectory(prefix="workbench-") as scratch:  # feeds and conversions are made once for all rounds
        for number in range(rounds):
            for group in groups:
                target = folder / ROUNDS / group.name
                failures += _measure(target, Path(scratch), models, group, number, executor, device)
                say(f"round {number + 1} of {group.name}")
    return failures


def _measure(
    target: Path,
    scratch: Path,
    models: Path,
    group: Group,
    number: int,
    executor: Executor,
    device: Mapping[str, Any],
) -> list[str]:
    """One block of every arm of a group, added to those that are there."""
    known = load_blocks(target) if (target / BLOCKS).is_file() else []
    if any(block.round == number for block in known):
        return []
    target.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(
            arm,
            group.config(arm, models.resolve(), BLOCK, device),
            number,
            len(known) + at,
            scratch / group.name / arm,
            TIMEOUT_S,
        )
        for at, arm in enumerate(arm_order(list(group.arms), number, seed=0))
    ]
    found: list[Block] = executor.submit(measure_round, jobs).result()
    save_blocks(target, [*known, *found])
    return [f"{group.name}, {block.arm}: {block.error[1]}" for block in found if block.error is not None]
