"""Tables for other programs: a folder of CSV files or of plain Parquet files."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.runs.export.source import batches, texts
from workbench.runs.schema import TABLES
from workbench.runs.writer import MANIFEST, new_run_folder

if TYPE_CHECKING:
    from workbench.runs.reader import RunFolder

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet run the text of a cell: https://owasp.org/www-community/attacks/CSV_Injection."""


def write_csv(run: RunFolder, target: Path, passes: Sequence[str] | None) -> list[Path]:
    """Write `<table>.csv` for each table into the new folder `target`: RFC 4180, UTF-8, a header, nulls as empty cells.

    Text that a spreadsheet would run as a formula (it begins with = + - @, a tab or a carriage return) gets a leading
    apostrophe, and so does text that begins with an apostrophe: whoever takes one off such cells has the text again.
    Numbers, also negative ones, stand as they are; reals are written so that they read back the same.
    """
    with new_run_folder(target) as folder:
        for name in _tables(run):
            with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file)  # its default dialect is the one of RFC 4180
                rows.writerow(TABLES[name].names)
                for batch in batches(run, name, passes):
                    rows.writerows(zip(*map(_cells, batch.columns), strict=True))
    return [target / f"{name}.csv" for name in _tables(run)]


def write_parquet(run: RunFolder, target: Path, passes: Sequence[str] | None) -> list[Path]:
    """Write each table and a copy of the manifest into the new folder `target`; text is plain string columns."""
    with new_run_folder(target) as folder:
        for name in _tables(run):
            plain = pa.schema([(field.name, _plain(field.type)) for field in TABLES[name]])
            with pq.ParquetWriter(folder / f"{name}.parquet", plain) as writer:
                for batch in batches(run, name, passes):
                    writer.write_table(batch.cast(plain))
        shutil.copyfile(run.folder / MANIFEST, folder / MANIFEST)
    return [target / MANIFEST, *(target / f"{name}.parquet" for name in _tables(run))]


def _tables(run: RunFolder) -> list[str]:
    return [name for name in TABLES if run.has(name)]


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _cells(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column for the CSV writer; each text of many rows is looked at once."""
    if not pa.types.is_string(_plain(column.type)):
        values: list[Any] = column.to_pylist()
        return values
    coded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    words = np.array([_defused(word) for word in texts(coded.dictionary)] + [None], object)
    cells: list[Any] = words[coded.indices.fill_null(len(words) - 1).to_numpy()].tolist()
    return cells


def _defused(word: str | None) -> str | None:
    return f"'{word}" if word and word.startswith((*_FORMULA, "'")) else word
