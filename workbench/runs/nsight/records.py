"""Integer columns of an SQLite table, decoded from its pages with NumPy.

A record is a header, with one serial type for each column, and the values after it. The types of a whole record are
taken as one pattern: a table has few, and each says where every value lies and how wide it is. Section numbers are
those of https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workbench.runs.nsight.pages import (
    BLOCK_BYTES,
    LARGEST,
    SMALLEST,
    Block,
    Cells,
    Integers,
    Leaves,
    PageFile,
    UnusualError,
)

_NULL, _REAL, _ONE, _TEXT = 0, 7, 9, 12  # serial types; section 2.1
_LONG: Final = 128  # serial types from here on take more than a byte
_WIDTHS: Final = np.array([0, 1, 2, 3, 4, 6, 8, 8, 0, 0, -1, -1, *((t - 12) // 2 for t in range(12, _LONG))])
"""Bytes of a value by serial type; -1 for those that no file has."""
_MOST_COLUMNS: Final = _LONG - 2  # whose header says its length in one byte


class Bounds(NamedTuple):
    """Rows whose `column` lies in [first, last]; None is the row id."""

    column: str | None
    first: int
    last: int


class IntegerTable:
    """A table, its leaf pages and the places of its integer columns; threads may share it."""

    def __init__(self, path: Path, database: sqlite3.Connection, name: str) -> None:
        """database: the same file. Raises `UnusualError`, `sqlite3.Error`, `UnicodeDecodeError` and `OSError`."""
        self._path = path
        declared = database.execute("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)", (name,)).fetchall()
        if not 1 <= len(declared) <= _MOST_COLUMNS or any(hidden for *_, hidden in declared):
            raise UnusualError("its records do not have a byte for each column")
        self._count = len(declared)
        # Affinity is integer where the type says INT, whatever else it says: others may become real as they are read.
        self._places = {
            column: place for place, (column, kind, key, _) in enumerate(declared) if "INT" in kind.upper() and not key
        }
        if any(column.lower() == "rowid" for column, *_ in declared):
            raise UnusualError("a column hides the row id")
        with PageFile(path) as file:
            self.leaves = Leaves.of(file, _root(database, name))

    @property
    def columns(self) -> frozenset[str]:
        """Columns that can be read."""
        return frozenset(self._places)

    def batches(self, columns: Sequence[str], bounds: Sequence[Bounds]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Columns as int64 of the rows inside all bounds, in key order, each batch with the row id that it reaches to.

        Raises `UnusualError` where a row cannot be read, having given all rows before its block, and `OSError`.
        """
        first = max([SMALLEST, *(each.first for each in bounds if each.column is None)])
        last = min([LARGEST, *(each.last for each in bounds if each.column is None)])
        if first > last:
            return
        chosen = self.leaves.between(first, last)
        with PageFile(self._path) as file:
            step = max(1, BLOCK_BYTES // file.page_bytes)
            for start in range(chosen.start, min(chosen.stop, len(self.leaves)), step):
                part = slice(start, min(start + step, chosen.stop))
                limits = self.leaves.last[part]
                before = int(self.leaves.last[start - 1]) if start else SMALLEST
                block = file.read(self.leaves.numbers[part])
                cells = Cells.of(block, limits, before)
                records = Records.of(block, cells, self._count)
                ends = np.searchsorted(cells.rowid, first), np.searchsorted(cells.rowid, last, "right")
                records = records.where(slice(*ends))
                for each in bounds:
                    if each.column is not None:
                        records = records.where(records.within(self._places[each.column], each.first, each.last))
                if not len(records):
                    continue
                arrays = [records.column(self._places[column]) for column in columns]
                yield int(limits[-1]), pa.RecordBatch.from_arrays(arrays, list(columns))


class Records:
    """Rows of a block: where each record begins, which pattern its header has, and what the patterns say."""

    def __init__(self, block: Block, at: Integers, pattern: Integers, types: Integers, ends: Integers) -> None:
        self._block, self._at, self._pattern = block, at, pattern
        self._types, self._ends = types, ends

    def __len__(self) -> int:
        return len(self._at)

    @classmethod
    def of(cls, block: Block, cells: Cells, columns: int) -> Records:
        """Raises `UnusualError` unless every header has a byte for each column and the values fill the record."""
        header_bytes = 1 + columns
        if (block.bytes[cells.record] != header_bytes).any() or (cells.record_bytes < header_bytes).any():
            raise UnusualError("a header does not have a byte for each column")
        pattern, examples = _patterns(block, cells.record + 1, columns)
        types = block.bytes[(cells.record[examples] + 1)[:, None] + np.arange(columns)].astype(np.int64)
        if (types >= _LONG).any() or (_WIDTHS[types & (_LONG - 1)] < 0).any():
            raise UnusualError("a value is longer than a byte can say")
        ends = header_bytes + np.cumsum(_WIDTHS[types], axis=1)
        if (ends[pattern, -1] != cells.record_bytes).any():
            raise UnusualError("a record is not as long as its values")
        return cls(block, cells.record, pattern, types, ends)

    def where(self, rows: slice | NDArray[np.bool_]) -> Records:
        """Some of the rows."""
        return Records(self._block, self._at[rows], self._pattern[rows], self._types, self._ends)

    def within(self, place: int, first: int, last: int) -> NDArray[np.bool_]:
        """Which rows have a value in [first, last] in a column."""
        values, valid = self._values(place)
        inside = (values >= first) & (values <= last)
        return inside if valid is None else inside & valid

    def column(self, place: int) -> pa.Array:
        """A column as Arrow's int64; raises `UnusualError` where it holds what is no integer."""
        values, valid = self._values(place)
        bits = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
        return pa.Array.from_buffers(pa.int64(), len(values), [bits, pa.py_buffer(values)])

    def _values(self, place: int) -> tuple[Integers, NDArray[np.bool_] | None]:
        """(values, which of them are there); None for all."""
        types = self._types[:, place]
        if ((types == _REAL) | (types >= _TEXT)).any():
            raise UnusualError("a value is no integer")
        width = _WIDTHS[types]
        constant = (types == _ONE).astype(np.int64)
        if (width == 0).all():
            values = np.broadcast_to(self._each(constant), self._pattern.shape).copy()
        else:
            # The eight bytes from the value on, shifted until only the value is left, with its sign.
            word = self._block.words(self._at + self._each(self._ends[:, place] - width)).view(np.int64)
            values = word >> self._each(np.where(width == 0, 0, 64 - 8 * width))
            if (width == 0).any():
                values = np.where(self._each(width == 0), self._each(constant), values)
        missing = types == _NULL
        return values, ~np.broadcast_to(self._each(missing), self._pattern.shape) if missing.any() else None

    def _each(self, table: NDArray[Any]) -> NDArray[Any]:
        """What the patterns say, by row; a single value where they agree."""
        return table[0] if (table == table[0]).all() else table[self._pattern]


def _patterns(block: Block, types: Integers, columns: int) -> tuple[Integers, Integers]:
    """A number for each row, the same where the serial types are, int64[n], and a row that has each, int64[k].

    types: offsets of the serial types.
    """
    import pandas as pd

    pattern, count = np.zeros(len(types), np.int64), 1
    for end in [*range(8, columns, 8), columns]:
        word = block.words(types + (end - 8))
        if columns < 8:
            word &= np.uint64((1 << 8 * columns) - 1)
        if (word == word[0]).all():
            continue
        code, words = pd.factorize(word)
        pattern, found = pd.factorize(pattern * len(words) + code) if count > 1 else (code, words)
        count = len(found)
    examples = np.empty(count, np.int64)
    examples[pattern] = np.arange(len(types))
    return pattern, examples


def _root(database: sqlite3.Connection, name: str) -> int:
    """The root page of a table without indexes, in whose order SQLite might read."""
    if database.execute("SELECT 1 FROM pragma_index_list(?)", (name,)).fetchone():
        raise UnusualError("the table has an index")
    found = database.execute("SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchall()
    if len(found) != 1 or not isinstance(found[0][0], int):
        raise UnusualError("the table is not in the catalogue once")
    return found[0][0]
