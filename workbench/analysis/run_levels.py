"""The lanes of a run's timeline, from its tables, and their levels of detail, kept with the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import pandas as pd

from workbench.analysis.derived import DERIVED
from workbench.analysis.device_work import HOST_COPIES, contains
from workbench.analysis.dominant import Int32, Int64
from workbench.analysis.intervals import union
from workbench.analysis.level_cache import LEVELS_VERSION, load_levels, save_levels
from workbench.analysis.levels import Levels, Rows, build_levels
from workbench.analysis.pairing import first_rows
from workbench.analysis.spans import depths
from workbench.analysis.tables import Tables, rows_of
from workbench.runs.schema import PASSES
from workbench.version import __version__

MOST_LANES: Final = 48  # more do not fit a screen, and each would have too few marks
_MOST_DEPTHS: Final = 6
_CLASSES: Final = (None, "launch", "sync", "pcie")
_NO_CLASS, _LAUNCH, _SYNC, _PCIE = range(len(_CLASSES))
_COPY_LANES: Final = {"h2d": "copies to device", "d2h": "copies to host"}
_WORDS: Final = {"device": "GPU"}


class StoredTables(Tables, Protocol):
    """The tables of a run that lies in a folder."""

    folder: Path


def levels_of(run: StoredTables, pass_name: str) -> Levels:
    """The timeline of one pass, built on first use and kept in the run folder where that can be written.

    Raises `ValueError` for an unknown pass, `RunFolderError` when a table is damaged.
    """
    if pass_name not in PASSES:
        raise ValueError(f"There is no pass {pass_name!r}, only {', '.join(PASSES)}.")
    file = run.folder / DERIVED / f"levels-{pass_name}-{LEVELS_VERSION}-{__version__}.bin"
    levels = load_levels(file)
    if levels is None:
        levels = build_levels(*run_lanes(run, pass_name))
        try:
            save_levels(levels, file)
        except OSError:  # a folder that is read only, or a full disk: the levels serve from memory
            return levels
    return load_levels(file) or levels


def run_lanes(run: Tables, pass_name: str) -> tuple[list[Rows], list[str], list[str | None]]:
    """Lanes from top to bottom, and the texts of their names and classes, as `build_levels` takes them.

    Lanes of one sort are split by process, thread, GPU and stream where there are several. Of more than `MOST_LANES`
    the least busy ones become one. Kernels and nodes have no class here: it needs their work and the ceilings.
    """
    names = _Names()
    tables = (_calls, _nodes, _ranges, _host_calls, _syncs, _kernels, _copies, _graphs)
    lanes = [lane for table in tables for lane in table(run, pass_name, names)]
    return _at_most(lanes), names.text, list(_CLASSES)


class _Names:
    """The texts of all names, each table's after those of the ones before."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def codes(self, words: pd.Series) -> Int32:
        """The code of each word; null is "unnamed"."""
        column = words.astype("category").cat
        codes = column.codes.to_numpy(np.int32) + np.int32(len(self.text))
        self.text += [str(word) for word in column.categories]
        unnamed = words.isna().to_numpy()
        if unnamed.any():
            codes[unnamed] = self.code("unnamed")
        return codes

    def code(self, word: str) -> int:
        """The code of one word."""
        self.text.append(word)
        return len(self.text) - 1


def _calls(run: Tables, pass_name: str, names: _Names) -> Iterator[Rows]:
    rows = rows_of(run, "latency", pass_name, ["process", "call", "start_ns", "duration_ns"])
    codes = names.codes("call " + rows["call"].astype(str))
    yield from _split("calls", rows, codes, _NO_CLASS, by=["process"])


def _nodes(run: Tables, pass_name: str, names: _Names) -> Iterator[Rows]:
    rows = rows_of(run, "nodes", pass_name, ["session", "thread", "name", "start_ns", "duration_ns"])
    yield from _split("nodes", rows, names.codes(rows["name"]), _NO_CLASS, by=["session", "thread"])


def _ranges(run: Tables, pass_name: str, names: _Names) -> Iterator[Rows]:
    """NVTX ranges, one lane for each depth; the worker's own log, which has no kind, only repeats the calls."""
    rows = rows_of(run, "ranges", pass_name, ["process", "thread", "name", "domain", "kind", "start_ns", "end_ns"])
    rows = rows[rows["kind"].notna() | rows["domain"].notna()]
    for lane in _split("ranges", rows, names.codes(rows["name"]), _NO_CLASS, by=["process", "thread"]):
        yield from _by_depth(lane)


def _host_calls(run: Tables, pass_name: str, names: _Names) -> Iterator[Rows]:
    """Host calls by what they are for: a blocking copy or synchronisation is no launch overhead."""
    rows = rows_of(run, "launches", pass_name, ["process", "thread", "name", "correlation", "start_ns", "end_ns"])
    copies = rows_of(run, "copies", pass_name, ["process", "kind", "correlation"])
    copies = copies[copies["kind"].isin(HOST_COPIES)]
    copying = first_rows(rows["process"], rows["correlation"], copies["process"], copies["correlation"]) >= 0
    classes = np.where(copying, _PCIE, np.where(contains(rows["name"], "Synchronize"), _SYNC, _LAUNCH))
    yield from _split("host calls", rows, names.codes(rows["name"]), classes, by=["process", "thread"])


def _syncs(run: Tables, pass_name: str, names: _Names) -> Iterator[Rows]:
    rows = rows_of(run, "syncs", pass_name, ["process", "kind", "start_ns", "end_ns"])
    yield from _split("synchronisation", rows, names.codes(rows["kind"]), _SYNC, by=["process"])


def _kernels(run: Tables, pass_name: str, names: _Names) -> Iterator[Rows]:
    rows = rows_of(run, "kernels", pass_name, ["process", "device", "stream", "name", "start_ns", "end_ns"])
    yield from _split("kernels", rows, names.codes(rows["name"]), _NO_CLASS, by=["process", "device", "stream"])


def _copies(run: Tables, pass_name: str, names: _Names) -> Iterator[Rows]:
    place = ["process", "device", "start_ns", "end_ns"]
    copies = rows_of(run, "copies", pass_name, [*place, "kind"])
    memsets = rows_of(run, "memsets", pass_name, place)
    kind = copies["kind"].astype("category")
    codes = names.codes(kind.cat.rename_categories([f"copy {each}" for each in kind.cat.categories]))
    for crossing, label in _COPY_LANES.items():
        mine = (kind == crossing).to_numpy()
        yield from _split(label, copies.loc[mine, place], codes[mine], _PCIE, by=["process", "device"])
    mine = ~kind.isin(list(_COPY_LANES)).to_numpy()
    rows = pd.concat([copies.loc[mine, place], memsets], ignore_index=True)
    codes = np.append(codes[mine], np.full(len(memsets), names.code("memset"), np.int32))
    yield from _split("memsets, device copies", rows, codes, _NO_CLASS, by=["process", "device"])


def _graphs(run: Tables, pass_name: str, names: _Names) -> Iterator[Rows]:
    rows = rows_of(run, "graphs", pass_name, ["process", "device", "start_ns", "end_ns"])
    codes = np.full(len(rows), names.code("graph replay"), np.int32)
    yield from _split("graph replays", rows, codes, _NO_CLASS, by=["process", "device"])


def _split(label: str, rows: pd.DataFrame, names: Int32, classes: int | Int64, *, by: Sequence[str]) -> Iterator[Rows]:
    """One lane for each combination of the columns `by`, whose label says what tells it from the others."""
    if not len(rows):
        return
    starts = rows["start_ns"].to_numpy(np.int64)
    ends = rows["end_ns"].to_numpy(np.int64) if "end_ns" in rows else starts + rows["duration_ns"].to_numpy(np.int64)
    of_class = np.broadcast_to(np.asarray(classes, np.int32), len(rows))
    varying = [column for column in by if rows[column].nunique(dropna=False) > 1]
    if not varying:
        yield Rows(label, label, starts, ends, names, of_class)
        return
    numbers = rows.groupby(varying, dropna=False, sort=True).ngroup().to_numpy()
    order = np.argsort(numbers, kind="stable")
    for mine in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        place = rows[varying].iloc[mine[0]]
        said = ", ".join((label, *(f"{_WORDS.get(str(key), key)} {_number(value)}" for key, value in place.items())))
        yield Rows(said, said, starts[mine], ends[mine], names[mine], of_class[mine])


def _number(value: float) -> str:
    return "unknown" if np.isnan(value) else str(int(value))


def _by_depth(lane: Rows) -> Iterator[Rows]:
    """Ranges by how many others are open when they begin, the outermost first; what lies deepest shares a lane."""
    depth_of = np.minimum(depths(lane.starts, lane.ends), _MOST_DEPTHS - 1)
    for depth in np.unique(depth_of).tolist():
        mine = np.flatnonzero(depth_of == depth)
        said = lane.label if depth == 0 else f"{lane.label}, depth {depth + 1}"
        if depth == _MOST_DEPTHS - 1:
            said += " and deeper"
        yield Rows(said, said, lane.starts[mine], lane.ends[mine], lane.names[mine], lane.classes[mine])


def _at_most(lanes: list[Rows]) -> list[Rows]:
    """All lanes, or the busiest ones in their order and the rest as one more."""
    if len(lanes) <= MOST_LANES:
        return lanes
    busy_ns = [union(lane.starts, lane.ends).length_ns for lane in lanes]
    busiest = set(sorted(range(len(lanes)), key=lambda lane: -busy_ns[lane])[: MOST_LANES - 1])
    rest = [lane for number, lane in enumerate(lanes) if number not in busiest]
    label = f"{len(rest)} more lanes"
    merged = (np.concatenate(columns) for columns in zip(*(lane[2:] for lane in rest), strict=True))
    return [*(lanes[number] for number in sorted(busiest)), Rows("more", label, *merged)]
