"""The whole labelled set, recomputed from its raw tables: what was recorded, and every figure that is scored."""

from __future__ import annotations

import math
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import pandas as pd

from workbench.errors import RunFolderError
from workbench.validation.cells import Group, groups
from workbench.validation.labelled import Cell, Times
from workbench.validation.score import judged, regrets
from workbench.validation.shares import compared, confirmed

CELLS: Final = ["cell", "family", "scored", "real", "label", "how", "accepted", "why"]
Progress = Callable[[str, float], None]
_UNKNOWN: Final = "unknown"


@dataclass(frozen=True)
class Recorded:
    """What the set was recorded on, each value once. first_ns, last_ns: when, Unix epoch.

    cells: how many were recorded. lacking: names of those that were not. rounds: fewest and most of a group. spread: of
    a ratio within a round (`LabelledSet`), None where there are too few rounds to know it.
    """

    devices: tuple[str, ...]
    drivers: tuple[str, ...]
    runtimes: tuple[str, ...]
    first_ns: int
    last_ns: int
    cells: int
    lacking: tuple[str, ...]
    rounds: tuple[int, int]
    spread: float | None


@dataclass(frozen=True)
class Validation:
    """The set with all that is scored on it.

    cells: one row per recorded cell (`CELLS`; label `a+b` on a border, why the reason where it was not accepted).
    judged: of `workbench.validation.score.judged`. regrets: of `regrets`. shares: of `compared`. confirmed: of
    `confirmed`.
    """

    recorded: Recorded
    cells: pd.DataFrame
    judged: pd.DataFrame
    regrets: pd.DataFrame
    shares: pd.DataFrame
    confirmed: pd.DataFrame


class _Machine(NamedTuple):
    """Where and when a run was recorded."""

    device: str
    driver: str
    runtime: str
    created_ns: int


class _OfGroup(NamedTuple):
    """What one group gives: the machine of each of its runs, and its rows of every table."""

    machines: list[_Machine]
    tables: tuple[pd.DataFrame, ...]


def evaluate(
    folder: Path,
    chosen: Sequence[Group] | None = None,
    *,
    processes: int = 1,
    progress: Progress = lambda name, share: None,
) -> Validation:
    """Open, diagnose and score the set in `folder`.

    processes: that share the groups; more than one are started afresh, so that the caller's main module has to be safe
    to import. progress: is told the group that is done, and the share of all. Raises `RunFolderError` for a folder
    without a set and for damaged runs.
    """
    times = Times.read(folder, groups() if chosen is None else chosen)
    wanted = [group for group in times.groups if group.name in times.medians_ns]
    found: dict[str, _OfGroup] = {}
    for name, rows in _each(times, wanted, min(processes, len(wanted))):
        found[name] = rows
        progress(name, len(found) / len(wanted))
    parts = [found[group.name] for group in wanted]
    if not any(part.machines for part in parts):
        raise RunFolderError(f"{folder} holds rounds but no run of a cell: go on with `workbench validate --live`.")
    tables = [_below_one_another(list(each)) for each in zip(*(part.tables for part in parts), strict=True)]
    return Validation(_recorded(times, [each for part in parts for each in part.machines]), *tables)


def _each(times: Times, wanted: Sequence[Group], processes: int) -> Iterator[tuple[str, _OfGroup]]:
    if processes <= 1:
        yield from ((group.name, _of_group(times, group)) for group in wanted)
        return
    # a forked child could inherit locks that Arrow's threads hold
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        running = {pool.submit(_of_group, times, group): group.name for group in wanted}
        yield from ((running[done], done.result()) for done in as_completed(running))
    finally:
        pool.shutdown(cancel_futures=True)


def _of_group(times: Times, group: Group) -> _OfGroup:
    cells = times.cells(group)
    tables = (pd.DataFrame([_row(cell) for cell in cells], columns=CELLS), judged(cells), regrets(cells))
    return _OfGroup([_machine(cell) for cell in cells], (*tables, compared(cells), confirmed(cells)))


def _row(cell: Cell) -> tuple[str | bool, ...]:
    group, label = cell.group, cell.label
    return (
        cell.name, group.family, group.scored, group.real, "+".join(sorted(label.classes)), label.how, label.accepted,
        label.why,
    )  # fmt: skip


def _machine(cell: Cell) -> _Machine:
    manifest = cell.run.manifest
    driver, runtime = manifest.device.driver, manifest.software.get("onnxruntime")
    return _Machine(manifest.device.name, driver or _UNKNOWN, runtime or _UNKNOWN, manifest.created_ns)


def _below_one_another(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Empty tables know no types, so that they would turn those of the others into objects."""
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def _recorded(times: Times, machines: Sequence[_Machine]) -> Recorded:
    rounds = [len({number for arm in arms.values() for number in arm}) for arms in times.medians_ns.values()]
    created = [each.created_ns for each in machines]
    return Recorded(
        devices=tuple(sorted({each.device for each in machines})),
        drivers=tuple(sorted({each.driver for each in machines})),
        runtimes=tuple(sorted({each.runtime for each in machines})),
        first_ns=min(created),
        last_ns=max(created),
        cells=len(machines),
        lacking=tuple(times.lacking),
        rounds=(min(rounds), max(rounds)),
        spread=None if math.isnan(times.spread) else times.spread,
    )
