"""Row sources of an Nsight Systems export: an SQLite file, or a folder of Parquet files, one per table.

A source knows which tables and columns exist and gives chosen columns in Arrow batches, so that nothing above it cares
for the container and memory stays flat in the number of rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from workbench.errors import SourceError
from workbench.runs.nsight.names import one_line
from workbench.runs.nsight.pages import LARGEST, UnusualError
from workbench.runs.nsight.records import Bounds, IntegerTable

BATCH_ROWS: Final = 65536
FEWEST_ROW_BYTES: Final = 6
"""Two of the cell's address, its length, row id, and a record header of two; SQLite's file format, section 1.6."""
FEWEST_LEAVES: Final = 64
"""Pages of a table below which SQLite is as quick as decoding the pages here."""
LONGEST_TEXT: Final = 1 << 14  # characters; C++ makes names of 10,000
LONGEST_REASON: Final = 160  # characters of what a library says about a file
SQLITE_MAGIC: Final = b"SQLite format 3\0"
FOLDER_SUFFIX: Final = ".parquet"


class Span(NamedTuple):
    """Rows whose `column` lies in [start, end), in the source's own numbers; `rowid` is the place in the table."""

    column: str
    start: int
    end: int


class Source(Protocol):
    """An export, whatever its container."""

    name: str
    tables: dict[str, frozenset[str]]
    """Columns of each table that exists."""

    def batches(self, table: str, columns: Sequence[str], spans: Sequence[Span] = ()) -> Iterator[pa.RecordBatch]:
        """The chosen columns of the rows inside all `spans`, in the order of the file.

        Raises `SourceError` when the file is damaged.
        """

    def parts(self, table: str, rows: int) -> list[Span]:
        """Spans of about that many rows, which may be read side by side; empty where one reader is as quick."""


def open_source(path: Path) -> Source:
    """The source for a file or folder; raises `SourceError`."""
    if path.is_dir():
        return FolderSource(path)
    return SqliteSource(path)


class SqliteSource:
    """An SQLite export, opened read-only.

    Integers of large tables are decoded from the file's pages; ADBC gives the other rows in Arrow batches, and the
    standard library where ADBC is missing.
    """

    # Columns whose rows may all be null at the beginning, where ADBC would take them for integers.
    _TEXT: Final = frozenset(("text", "jsonText", "value:StringIds", "name", "typeName", "metricName"))
    _REAL: Final = frozenset(("doubleValue", "floatValue", "value:GPU_METRICS"))

    def __init__(self, path: Path) -> None:
        self.name, self._path = path.name, path
        self._integers: dict[str, IntegerTable | None] = {}
        self._one_opens = Lock()
        with self._readable(), closing(sqlite3.connect(self._uri(), uri=True)) as database:
            names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            self.tables: dict[str, frozenset[str]] = {
                name: frozenset(row[1] for row in database.execute("SELECT * FROM pragma_table_info(?)", (name,)))
                for name in names
            }

    def batches(self, table: str, columns: Sequence[str], spans: Sequence[Span] = ()) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        rest = list(spans)
        with self._readable():
            try:
                for last, batch in self._decoded(table, columns, spans):
                    yield batch
                    rest = [*spans, Span("rowid", last + 1, LARGEST + 1)]
            except (UnusualError, OSError):  # SQLite reads on from there, and says what is damaged
                yield from self._rows(self._query(table, columns, rest))

    def parts(self, table: str, rows: int) -> list[Span]:
        """See `Source`."""
        try:
            with closing(sqlite3.connect(self._uri(), uri=True)) as database:
                # each alone is looked up in the tree; together they would scan the table
                ends = (f"(SELECT {end}(rowid) FROM {_quoted(table)})" for end in ("min", "max"))
                first, last = database.execute(f"SELECT {', '.join(ends)}").fetchone()
        except sqlite3.Error:  # a view, or a table without row ids; what is damaged is said when it is read
            return []
        # Row ids further apart than the file has room for rows would make parts without number.
        if first is None or (last - first) * FEWEST_ROW_BYTES > self._path.stat().st_size:
            return []
        return [Span("rowid", low, low + rows) for low in range(first, last + 1, rows)]

    def _decoded(
        self, table: str, columns: Sequence[str], spans: Sequence[Span]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches of integers from the file's pages, each with the row id that it reaches to."""
        found = self._integer_table(table)
        wanted = {*columns, *(span.column for span in spans if span.column != "rowid")}
        as_stored = all(self._expression(table, column) == _quoted(column) for column in columns)
        if found is None or not as_stored or not wanted <= found.columns:
            raise UnusualError("not all of it is integers")
        bounds = [Bounds(None if s.column == "rowid" else s.column, s.start, s.end - 1) for s in spans]
        yield from found.batches(columns, bounds)

    def _integer_table(self, table: str) -> IntegerTable | None:
        """The table for reading its pages; None where that is not possible or not worth it."""
        with self._one_opens:
            if table not in self._integers:
                self._integers[table] = None
                with suppress(UnusualError, OSError, sqlite3.Error, UnicodeDecodeError):
                    with closing(sqlite3.connect(self._uri(), uri=True)) as database:
                        found = IntegerTable(self._path, database, table)
                    self._integers[table] = found if len(found.leaves) >= FEWEST_LEAVES else None
            return self._integers[table]

    def _query(self, table: str, columns: Sequence[str], spans: Sequence[Span]) -> str:
        query = f"SELECT {', '.join(self._expression(table, column) for column in columns)} FROM {_quoted(table)}"
        if spans:
            bounds = (f"{_quoted(s.column)} >= {int(s.start)} AND {_quoted(s.column)} < {int(s.end)}" for s in spans)
            query += f" WHERE {' AND '.join(bounds)}"
        return query

    def _rows(self, query: str) -> Iterator[pa.RecordBatch]:
        try:
            from adbc_driver_sqlite import dbapi
        except ImportError:  # a bare GPU host
            yield from self._rows_of_the_standard_library(query)
            return
        with dbapi.connect(self._uri(), autocommit=True) as database, database.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})
            cursor.execute(query)
            for batch in cursor.fetch_record_batch():
                yield _plain_text(batch)

    def _rows_of_the_standard_library(self, query: str) -> Iterator[pa.RecordBatch]:
        with closing(sqlite3.connect(self._uri(), uri=True)) as database:
            cursor = database.execute(query)
            names = [column[0] for column in cursor.description]
            while rows := cursor.fetchmany(BATCH_ROWS):
                yield pa.record_batch([pa.array(values) for values in zip(*rows, strict=True)], names=names)

    def _expression(self, table: str, column: str) -> str:
        quoted = _quoted(column)
        if self._TEXT & {column, f"{column}:{table}"}:
            return f"substr(COALESCE(CAST({quoted} AS TEXT), ''), 1, {LONGEST_TEXT + 1}) AS {quoted}"
        if self._REAL & {column, f"{column}:{table}"}:
            return f"CAST({quoted} AS REAL) AS {quoted}"
        return quoted

    def _uri(self) -> str:
        return f"file:{quote(str(self._path.resolve()))}?mode=ro&immutable=1"

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, pa.ArrowException, OverflowError, UnicodeDecodeError, MemoryError) as error:
            raise _damaged(self.name, error) from None
        except Exception as error:  # adbc's errors have no base class that is there without adbc
            if type(error).__module__.startswith("adbc"):
                raise _damaged(self.name, error) from None
            raise


class FolderSource:
    """A folder as `nsys export --type=parquetdir` makes it."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = path.name, path
        self._files = {file.stem: file for file in sorted(path.iterdir()) if file.suffix == FOLDER_SUFFIX}
        if not self._files:
            raise SourceError(f"{path} holds no {FOLDER_SUFFIX} file: give what `nsys export --type=parquetdir` makes.")
        self.tables: dict[str, frozenset[str]] = {name: self._columns(name) for name in self._files}

    def batches(self, table: str, columns: Sequence[str], spans: Sequence[Span] = ()) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        inside = None
        for span in spans:
            bounds = (pc.field(span.column) >= span.start) & (pc.field(span.column) < span.end)
            inside = bounds if inside is None else inside & bounds
        try:
            for batch in self._dataset(table).to_batches(columns=list(columns), filter=inside, batch_size=BATCH_ROWS):
                if len(batch):
                    yield _plain_text(batch)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(f"{self.name}/{self._files[table].name}", error) from None

    def parts(self, table: str, rows: int) -> list[Span]:
        """See `Source`: Arrow reads with several threads by itself."""
        return []

    def _columns(self, table: str) -> frozenset[str]:
        try:
            return frozenset(self._dataset(table).schema.names)
        except UnicodeDecodeError as error:
            raise _damaged(f"{self.name}/{self._files[table].name}", error) from None

    def _dataset(self, table: str) -> Any:
        file = self._files[table]
        try:
            return ds.dataset(file, format="parquet")
        except (pa.ArrowException, OSError):
            raise SourceError(f"{self.name}/{file.name} is no whole Parquet file: export it again.") from None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _plain_text(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with U+FFFD where its text is not UTF-8, and with text cut at `LONGEST_TEXT`.

    Programs name their ranges in any encoding; neither SQLite nor Parquet minds, and Arrow trusts them.
    """
    for at, values in enumerate(batch.columns):
        if not pa.types.is_string(values.type):
            continue
        text = values
        try:
            text.validate(full=True)
        except pa.ArrowInvalid:
            raw = text.view(pa.binary()).to_pylist()
            text = pa.array([None if each is None else each.decode("utf-8", "replace") for each in raw], pa.string())
        if (pc.max(pc.binary_length(text)).as_py() or 0) > LONGEST_TEXT:
            cut = pc.binary_join_element_wise(pc.utf8_slice_codeunits(text, 0, LONGEST_TEXT), "…", "")
            text = pc.if_else(pc.greater(pc.utf8_length(text), LONGEST_TEXT), cut, text)
        if text is not values:
            batch = batch.set_column(at, batch.schema.names[at], text)
    return batch


def _damaged(name: str, error: Exception) -> SourceError:
    said = one_line(str(error) or "it wants more memory than there is", LONGEST_REASON)
    return SourceError(f"The Nsight Systems export {name} cannot be read ({said}): export it again.")
