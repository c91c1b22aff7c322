"""Tables that stream into Parquet: parts are made side by side, written in order, and sorted at the end if need be."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.errors import SourceError
from workbench.runs.nsight.names import one_line
from workbench.runs.nsight.source import LONGEST_REASON
from workbench.runs.schema import TABLES
from workbench.runs.writer import full_disk_is_said, open_table, to_table

if TYPE_CHECKING:
    import duckdb

PART_ROWS: Final = 1 << 17  # made by one thread at a time: some tens of megabytes
READERS: Final = min(4, os.cpu_count() or 1)
_DATABASE_MEMORY: Final = "256MB"


class Part(NamedTuple):
    """Rows of one table, made by a function that runs on another thread; what it yields lazily is made when written."""

    table: str
    make: Callable[[], Iterable[pa.Table]]


class TableSink:
    """One table of a run folder, written part by part; a context manager that removes a table without rows."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.rows = name, 0
        self._folder, self._file = folder, folder / f"{name}.parquet"
        self._time = next((c for c in ("start_ns", "time_ns") if c in TABLES[name].names), None)
        self._last: int | None = None
        self._sorted = True
        self.extent_ns: tuple[int, int] | None = None
        """First start and last end of the rows so far."""

    def __enter__(self) -> Self:
        self._writer = open_table(self._folder, self.name)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        with full_disk_is_said(self._folder):
            self._writer.close()
        if not self.rows:
            self._file.unlink()
        elif not self._sorted and kind is None:
            sort_file(self._file, self.name, str(self._time))

    def write(self, rows: pa.Table) -> None:
        """Add rows of the declared schema; raises `DiskFullError`."""
        if not len(rows):
            return
        if self._time is not None:
            self._watch(rows)
        with full_disk_is_said(self._folder):
            self._writer.write_table(rows)
        self.rows += len(rows)

    def _watch(self, rows: pa.Table) -> None:
        if rows[self._time].null_count:
            return
        times = rows[self._time].to_numpy()
        ends = rows["end_ns"].to_numpy() if "end_ns" in rows.column_names else times
        self._sorted &= bool((self._last is None or times[0] >= self._last) and (times[1:] >= times[:-1]).all())
        self._last = int(times[-1])
        first, last = self.extent_ns or (int(times[0]), int(ends[0]))
        self.extent_ns = min(first, int(times.min())), max(last, int(ends.max()))


def write_parts(sinks: dict[str, TableSink], parts: Iterable[Part]) -> None:
    """Make parts on a few threads and write them in their order; at most two for each thread are held at once."""
    waiting: deque[tuple[str, Future[Iterable[pa.Table]]]] = deque()

    def write_first() -> None:
        table, made = waiting.popleft()
        for rows in made.result():
            sinks[table].write(rows)

    with ThreadPoolExecutor(READERS, thread_name_prefix="import") as pool:
        try:
            for part in parts:
                waiting.append((part.table, pool.submit(part.make)))
                if len(waiting) >= 2 * READERS:
                    write_first()
            while waiting:
                write_first()
        finally:
            for _, made in waiting:
                made.cancel()


def complete(name: str, rows: pa.Table, pass_name: str, call: np.ndarray | None = None) -> pa.Table:
    """Rows of a source with `pass` and `call`, in the declared schema."""
    word = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows), np.int32)), pa.array([pass_name]))
    rows = rows.append_column("pass", word)
    if call is not None:
        rows = rows.append_column("call", pa.array(call))
    return to_table(name, rows)


@contextmanager
def small_database(rows: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in little memory. Raises `SourceError` where that is too little, as for long names that all differ.

    rows: what is worked on, for the message.
    """
    import duckdb

    try:
        with duckdb.connect(config={"memory_limit": _DATABASE_MEMORY, "threads": 2}) as database:
            yield database
    except duckdb.Error as error:
        said = one_line(str(error).partition("\n")[0], LONGEST_REASON)
        raise SourceError(f"{rows} cannot be searched or sorted ({said}): record fewer of them.") from None


def sort_file(file: Path, name: str, time: str) -> None:
    """Sort a table's file by time with bounded memory; ties keep their order in the file."""
    unsorted, in_order = file.with_suffix(".unsorted"), file.with_suffix(".sorted")
    file.rename(unsorted)
    query = (
        f"COPY (SELECT * EXCLUDE (file_row_number) FROM read_parquet({_sql(unsorted)}, file_row_number = true) "
        f'ORDER BY "{time}" NULLS LAST, file_row_number) TO {_sql(in_order)} (FORMAT parquet)'
    )
    with full_disk_is_said(file), small_database(f"Rows of the table {name}") as database:
        database.execute(f"SET temp_directory = {_sql(file.parent)}")
        database.execute(query)
    unsorted.unlink()
    with full_disk_is_said(file), open_table(file.parent, name) as writer:
        for batch in pq.ParquetFile(in_order).iter_batches(PART_ROWS):
            writer.write_table(to_table(name, pa.Table.from_batches([batch])))
    in_order.unlink()


def _sql(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def read_rows(folder: Path, name: str) -> pa.Table:
    """A table of the folder, with its declared schema; empty when it is not there."""
    file = folder / f"{name}.parquet"
    return to_table(name, pq.read_table(file)) if file.is_file() else TABLES[name].empty_table()
