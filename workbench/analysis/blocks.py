"""The rows of one pass in blocks, for tables of many millions of rows; at any moment a few blocks are in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeGuard

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workbench.analysis.tables import Tables, rows_of
from workbench.errors import RunFolderError
from workbench.runs.reader import RunFolder, only_value
from workbench.runs.schema import TABLES
from workbench.runs.writer import to_table

BLOCK_ROWS: Final = 1 << 16
"""A column of a block is half a megabyte, so that those in use stay in a processor's cache."""


def blocks(
    run: Tables, name: str, pass_name: str, columns: Sequence[str], rows: int = BLOCK_ROWS
) -> Iterator[pa.Table]:
    """The rows that one pass recorded in one table, as stored, with the columns chosen: tables of 1 to `rows` rows.

    A run folder is read from its file, anything else through its DataFrame. Raises `RunFolderError` when the file is
    damaged.
    """
    if _is_stored(run, name):
        with _opened(run.folder / f"{name}.parquet") as file:
            yield from _stored(file, name, pass_name, columns, rows)
        return
    schema = pa.schema([TABLES[name].field(column) for column in columns])
    table = pa.Table.from_pandas(rows_of(run, name, pass_name, columns), schema, preserve_index=False, safe=False)
    yield from _cut(table, rows)


def blocks_by_start(
    run: Tables, name: str, pass_name: str, columns: Sequence[str], rows: int = BLOCK_ROWS
) -> Iterator[pa.Table]:
    """The same in order of `start_ns`, which must be among the columns; rows that start together stay as stored.

    A table that is not stored in this order is read whole and sorted.
    """
    if _in_order(blocks(run, name, pass_name, ["start_ns"], rows)):
        yield from blocks(run, name, pass_name, columns, rows)
        return
    table = pa.concat_tables(blocks(run, name, pass_name, columns, rows))
    yield from _cut(table.take(np.argsort(table["start_ns"].to_numpy(), kind="stable")), rows)


def distinct(run: Tables, name: str, pass_name: str, column: str, rows: int = BLOCK_ROWS) -> set[object]:
    """The values of one column but for null; of a pass without rows it may be that of the others."""
    if _is_stored(run, name):
        with _opened(run.folder / f"{name}.parquet") as file:
            if (only := only_value(file.metadata, column)) is not None:
                return {only}
    found = (pc.unique(block[column]).drop_null() for block in blocks(run, name, pass_name, [column], rows))
    return {value for each in found for value in each.to_pylist()}


def _in_order(blocks_of_starts: Iterator[pa.Table]) -> bool:
    last = np.iinfo(np.int64).min
    for block in blocks_of_starts:
        starts = block["start_ns"].to_numpy()
        if starts[0] < last or not (starts[1:] >= starts[:-1]).all():
            return False
        last = starts[-1]
    return True


def _is_stored(run: Tables, name: str) -> TypeGuard[RunFolder]:
    """Whether the table is what lies in the run's folder: another `table` may give other rows."""
    return isinstance(run, RunFolder) and type(run).table is RunFolder.table and run.has(name)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise RunFolderError(f"Table {path} is damaged ({error}): record or copy the run again.") from None


def _stored(file: pq.ParquetFile, name: str, pass_name: str, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    mixed = only_value(file.metadata, "pass") != pass_name
    wanted = [*columns, "pass"] if mixed else list(columns)
    held = [column for column in wanted if column in file.schema_arrow.names]
    for groups in _row_groups(file.metadata, rows):
        table = to_table(name, file.read_row_groups(groups, columns=held), wanted)
        yield from _cut(_of_pass(table, pass_name) if mixed else table, rows)


def _row_groups(metadata: pq.FileMetaData, rows: int) -> Iterator[list[int]]:
    """Row groups to read together: as many as have `rows` rows, or one that has more."""
    together: list[int] = []
    left = rows
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        if together and size > left:
            yield together
            together, left = [], rows
        together.append(group)
        left -= size
    if together:
        yield together


def _of_pass(table: pa.Table, pass_name: str) -> pa.Table:
    passes = table["pass"].combine_chunks()
    code = pc.index(passes.dictionary, pass_name).as_py()
    return table.drop_columns("pass").filter(pc.equal(passes.indices, code))


def _cut(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    return (table.slice(start, rows) for start in range(0, len(table), rows))
