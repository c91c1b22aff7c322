"""Which tables become slices of which tracks, and their rows as NumPy columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from workbench.runs.export.layout import Ints
from workbench.runs.export.source import texts, whole
from workbench.runs.schema import TABLES

if TYPE_CHECKING:
    from workbench.runs.reader import RunFolder


@dataclass(frozen=True)
class SliceTable:
    """A table whose rows are drawn: `name` is the column that names a slice, or the name of all of them."""

    table: str
    name: str
    label: str


@dataclass(frozen=True)
class TrackGroup:
    """Tables that share tracks: one track for each combination of `keys` that occurs in them."""

    keys: tuple[str, ...]
    tables: tuple[SliceTable, ...]


def _host(table: str, name: str, label: str) -> TrackGroup:
    thread = ("thread",) if "thread" in TABLES[table].names else ()
    return TrackGroup(("pass", "process", *thread), (SliceTable(table, name, label),))


HOST_GROUPS: Final = (
    _host("latency", "phase", "calls"),
    _host("steps", "name", "cold start"),
    _host("ranges", "name", "ranges"),
    _host("session_events", "name", "session"),
    _host("nodes", "name", "nodes"),
    _host("launches", "name", "launches"),
    _host("syncs", "kind", "synchronisations"),
    _host("os_calls", "name", "operating system"),
    _host("graph_nodes", "graph node made", "graph nodes"),
    _host("diagnostics", "text", "diagnostics"),
)
DEVICE_GROUP: Final = TrackGroup(
    ("pass", "process", "device", "stream"),
    (
        SliceTable("graphs", "graph replay", "graphs"),
        SliceTable("kernels", "name", "kernels"),
        SliceTable("copies", "kind", "copies"),
        SliceTable("memsets", "memset", "memsets"),
        SliceTable("cuda_events", "CUDA event", "events"),
    ),
)


@dataclass(frozen=True)
class Column:
    """Values (n,) with their validity, None when all are known; text is codes into `words`."""

    name: str
    kind: Literal["int", "bool", "text"]
    values: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_] | None
    words: Sequence[str | None] = ()


@dataclass(frozen=True)
class Rows:
    """The rows of a table that have a time; `timeless` counts those that have none.

    `instant` marks rows that are drawn as a moment: those of tables of moments, and those whose end is unknown or
    lies before their start. `args` are the columns that no track, time or name shows; those without any value are
    left out.
    """

    source: SliceTable
    keys: pa.Table
    start_ns: Ints
    end_ns: Ints
    instant: npt.NDArray[np.bool_]
    name: Column | str
    args: list[Column]
    timeless: int


def read_rows(
    run: RunFolder, source: SliceTable, keys: Sequence[str], passes: Sequence[str] | None, processes: Mapping[str, int]
) -> Rows:
    """Read one table; a row that does not say its process gets that of its pass in `processes`."""
    rows = whole(run, source.table, passes)
    timed = with_time(rows)
    start = time_column(source.table)
    start_ns, end_ns = _times(timed, start)
    instant = end_ns <= start_ns if start == "time_ns" else end_ns < start_ns
    shown = {"pass", "process", start, "end_ns", "duration_ns", source.name, *keys}
    return Rows(
        source=source,
        keys=key_columns(timed, keys, processes),
        start_ns=start_ns,
        end_ns=np.where(instant, start_ns, end_ns),
        instant=instant,
        name=_column(timed, source.name) if source.name in timed.column_names else source.name,
        args=[
            _column(timed, name)
            for name in timed.column_names
            if name not in shown and timed[name].null_count < len(timed)
        ],
        timeless=len(rows) - len(timed),
    )


def time_column(table: str) -> str:
    """The column of `table` that places a row in time."""
    return "start_ns" if "start_ns" in TABLES[table].names else "time_ns"


def with_time(rows: pa.Table) -> pa.Table:
    """Those of the rows that have a time, in the same order."""
    time = rows["start_ns" if "start_ns" in rows.column_names else "time_ns"]
    return rows.filter(time.is_valid()) if time.null_count else rows


def _times(rows: pa.Table, start: str) -> tuple[Ints, Ints]:
    start_ns = rows[start].to_numpy()
    if "end_ns" in rows.column_names:
        end = rows["end_ns"]
    elif "duration_ns" in rows.column_names:
        end = pc.add(rows[start], rows["duration_ns"])  # wraps for impossible values, and so ends before its start
    else:
        end = rows[start]
    return start_ns, end.fill_null(np.iinfo(np.int64).min).to_numpy()


def key_columns(rows: pa.Table, keys: Sequence[str], processes: Mapping[str, int]) -> pa.Table:
    """The columns `keys` of `rows`, null where the table lacks one, and the process of the pass where it is null.

    `keys` hold pass and process. The pass is text, all others are int64.
    """
    found = {key: rows[key] if key in rows.column_names else pa.nulls(len(rows)) for key in keys}
    recorded = rows["pass"].combine_chunks()
    names = texts(recorded.dictionary)
    found["pass"] = pa.DictionaryArray.from_arrays(recorded.indices, pa.array(names, pa.string()))
    of_pass = pa.array([processes.get(name or "") for name in names], pa.int64()).take(recorded.indices)
    found["process"] = pc.coalesce(found["process"].cast(pa.int64()), of_pass)
    return pa.table({key: found[key] if key == "pass" else found[key].cast(pa.int64()) for key in keys})


def numbered(keys: pa.Table) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """The number of each row's combination of keys, (n,), and the first row of each combination, by that number."""
    number = np.zeros(len(keys), np.int32)
    for column in keys.columns:
        codes = _codes(column.combine_chunks())
        number = _codes(pa.array(number * np.int64(codes.max(initial=0) + 1) + codes))
    first = np.empty(int(number.max(initial=-1)) + 1, np.intp)
    first[number[::-1]] = np.arange(len(number))[::-1]  # of several values for one place the last one stays
    return number, first


def _codes(column: pa.Array) -> npt.NDArray[np.int32]:
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes: npt.NDArray[np.int32] = coded.indices.fill_null(len(coded.dictionary)).to_numpy()
    return codes


def _column(rows: pa.Table, name: str) -> Column:
    column = rows[name].combine_chunks()
    valid = column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else None
    if pa.types.is_boolean(column.type):
        return Column(name, "bool", column.fill_null(False).to_numpy(zero_copy_only=False), valid)
    if pa.types.is_integer(column.type):
        return Column(name, "int", column.fill_null(0).to_numpy(), valid)
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return Column(name, "text", coded.indices.fill_null(0).to_numpy(), valid, texts(coded.dictionary))
