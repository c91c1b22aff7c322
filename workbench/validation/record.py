"""Records the labelled set on the GPU at hand: every cell with all passes, then rounds of all arms of every group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from workbench.capture.record import record
from workbench.errors import WorkbenchError
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import Block
from workbench.tuning.comparison import arm_order
from workbench.tuning.executors import Executor
from workbench.tuning.measure import Job, block_of_run, measure_round
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
    where the models are kept. device: options of where all of it runs. rounds: of each group, of which the first takes
    the bare pass of the recorded cells; one round of all groups comes before the next, so that a set that is cut short
    has as many rounds of each.
    """
    models.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    with TemporaryDirectory(prefix="workbench-") as scratch:  # feeds and conversions are made once for all rounds
        for number in range(rounds):
            for group in groups:
                if number == 0:
                    group.recipe.write(models)
                    failures += _record_cells(folder, models, group, executor, device)
                jobs = _Jobs(group, models.resolve(), Path(scratch) / group.name, number, device)
                failures += _measure(folder, jobs, executor)
                say(f"round {number + 1} of {group.name}")
    return failures


def _record_cells(
    folder: Path, models: Path, group: Group, executor: Executor, device: Mapping[str, Any]
) -> list[str]:
    failures = []
    for arm in group.cells:
        target = folder / RUNS / cell_name(group.name, arm)
        if target.exists():
            continue
        config = group.config(arm, models.resolve(), TRACED, device)
        try:
            executor.submit(record, config, target, activity="cupti", timeout_s=TIMEOUT_S).result()
        except WorkbenchError as error:
            failures.append(f"{target.name}: {error}")
    return failures


@dataclass(frozen=True)
class _Jobs:
    """The jobs of one round of a group. scratch: where its arms keep what their blocks share."""

    group: Group
    models: Path
    scratch: Path
    number: int
    device: Mapping[str, Any]

    def of(self, arms: Sequence[str], first: int) -> list[Job]:
        """In seeded order; first: the place in time of the first."""
        return [
            Job(
                arm,
                self.group.config(arm, self.models, BLOCK, self.device),
                self.number,
                first + at,
                self.scratch / arm,
                TIMEOUT_S,
            )
            for at, arm in enumerate(arm_order(list(arms), self.number, seed=0))
        ]


def _measure(folder: Path, jobs: _Jobs, executor: Executor) -> list[str]:
    """Add a block of every arm of a group to those that are there; in the first round, cells have theirs already."""
    group, target = jobs.group, folder / ROUNDS / jobs.group.name
    known = load_blocks(target) if (target / BLOCKS).is_file() else []
    if any(block.round == jobs.number for block in known):
        return []
    found: list[Block] = []
    if jobs.number == 0:
        runs = {arm: folder / RUNS / cell_name(group.name, arm) for arm in group.cells}
        found = [block_of_run(RunFolder(run), arm) for arm, run in runs.items() if run.is_dir()]
        found = [replace(block, position=at, outputs=None) for at, block in enumerate(found)]
    arms = [arm for arm in group.arms if arm not in {block.arm for block in found}]
    found += executor.submit(measure_round, jobs.of(arms, len(known) + len(found))).result()
    target.mkdir(parents=True, exist_ok=True)
    save_blocks(target, [*known, *found])
    return [f"{group.name}, {block.arm}: {block.error[1]}" for block in found if block.error is not None]
