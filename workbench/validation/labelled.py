"""The labelled set as it was recorded: each cell with its run, its label and the times of its group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workbench.diagnosis.levers import Situation, situation_of
from workbench.errors import RunFolderError
from workbench.runs.reader import RunFolder
from workbench.tuning.store import BLOCKS, load_blocks
from workbench.validation.cells import MORE, Group, cell_name, groups
from workbench.validation.labels import Label, label_of
from workbench.validation.ratios import Timed, medians_ns, pooled_spread
from workbench.validation.record import ROUNDS, RUNS

USUAL_SPREAD: Final = 0.10
"""Of the logarithm of a ratio, where the set has too few rounds to tell its own: ratios of processes on an H200 host
differed by 0.01 to 0.19 between rounds (14 arms of 5 or 6 processes)."""

_LARGER_OF: Final = {"graph-more": "graph", "more": "device"}


@dataclass(frozen=True)
class Cell:
    """One labelled run. timed: of its group, with the arms of the group that has `MORE` times its batch."""

    name: str
    group: Group
    arm: str
    run: RunFolder
    situation: Situation
    timed: Timed
    label: Label

    @property
    def verdict(self) -> str:
        """The verdict of its run, with all sources: a class, `a+b` or `inconclusive`."""
        diagnosis = self.situation.diagnosis
        assert diagnosis is not None
        return diagnosis.verdict.label


@dataclass(frozen=True)
class Times:
    """The times of all groups, which the labels of each depend on. medians_ns: group → arm → round → nanoseconds.

    spread: as in `LabelledSet`.
    """

    folder: Path
    groups: tuple[Group, ...]
    medians_ns: Mapping[str, Mapping[str, Mapping[int, float]]]
    spread: float

    @classmethod
    def read(cls, folder: Path, known: Sequence[Group]) -> Times:
        """Read the rounds that were recorded; raises `RunFolderError` where there are none."""
        found = {
            group.name: medians_ns(load_blocks(folder / ROUNDS / group.name))
            for group in known
            if (folder / ROUNDS / group.name / BLOCKS).is_file()
        }
        if not found:
            raise RunFolderError(f"{folder} holds no labelled set: record one with `workbench validate --live`.")
        return cls(folder, tuple(known), found, pooled_spread(list(found.values())))

    @property
    def lacking(self) -> list[str]:
        """Cells of the set that were not recorded."""
        every = [(group, arm) for group in self.groups for arm in group.cells]
        return [cell_name(group.name, arm) for group, arm in every if not self._has(group, arm)]

    def of(self, group: Group) -> Timed:
        """The times that one group's labels depend on."""
        medians = {**_more(group, self.groups, self.medians_ns), **self.medians_ns.get(group.name, {})}
        return Timed(medians, USUAL_SPREAD if math.isnan(self.spread) else self.spread)

    def cells(self, group: Group) -> list[Cell]:
        """The recorded cells of one group, each diagnosed and labelled; raises `RunFolderError`."""
        found, timed = [], self.of(group)
        for arm in (arm for arm in group.cells if self._has(group, arm)):
            name = cell_name(group.name, arm)
            run = RunFolder(self.folder / RUNS / name)
            situation = situation_of(run)
            found.append(Cell(name, group, arm, run, situation, timed, label_of(group, arm, situation, timed)))
        return found

    def _has(self, group: Group, arm: str) -> bool:
        return group.name in self.medians_ns and (self.folder / RUNS / cell_name(group.name, arm)).is_dir()


@dataclass(frozen=True)
class LabelledSet:
    """The cells that were recorded. spread: standard deviation of the logarithm of a ratio within a round, NaN where
    too few rounds were measured to know it; lacking: cells of the set that are not there.
    """

    cells: list[Cell]
    spread: float
    lacking: list[str]

    @classmethod
    def open(cls, folder: Path, chosen: Sequence[Group] | None = None) -> LabelledSet:
        """Read what `record_set` left; raises `RunFolderError` where there is none of it."""
        times = Times.read(folder, groups() if chosen is None else chosen)
        cells = [cell for group in times.groups for cell in times.cells(group)]
        return cls(cells, times.spread, times.lacking)


def _more(
    group: Group, known: Sequence[Group], times: Mapping[str, Mapping[str, Mapping[int, float]]]
) -> dict[str, Mapping[int, float]]:
    """The arms of the group that has `MORE` times the batch, under the names that they have here."""
    batch = group.options.get("batch", 1)
    for other in known:
        same = other.family == group.family and other.recipe == group.recipe
        if same and other.options.get("batch", 1) == MORE * batch:
            theirs = times.get(other.name, {})
            return {name: theirs[arm] for name, arm in _LARGER_OF.items() if arm in theirs}
    return {}
