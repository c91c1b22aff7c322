"""The tables of a run as Arrow data, in the declared schema, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workbench.errors import ConfigError, RunFolderError
from workbench.runs.schema import TABLES
from workbench.runs.writer import to_table

if TYPE_CHECKING:
    from workbench.runs.reader import RunFolder

BATCH_ROWS: Final = 1 << 16


def check_passes(run: RunFolder, passes: Sequence[str] | None) -> None:
    """Raises `ConfigError` when the run has no pass of one of these names."""
    for name in passes or ():
        if name not in run.manifest.passes:
            known = ", ".join(run.manifest.passes) or "none"
            raise ConfigError(f"The run has no pass {name!r}: choose from those it has ({known}).")


def batches(
    run: RunFolder, name: str, passes: Sequence[str] | None, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of table `name` that were recorded in `passes` (None: all), at most `BATCH_ROWS` at a time.

    Each batch has the declared schema, or the chosen `columns` of it. A table that the run lacks gives nothing.
    Raises `RunFolderError` when the file is damaged.
    """
    if not run.has(name):
        return
    file = run.folder / f"{name}.parquet"
    chosen = list(columns or TABLES[name].names)
    try:
        with pq.ParquetFile(file) as parquet:
            read = [c for c in dict.fromkeys([*chosen, "pass"]) if c in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(BATCH_ROWS, columns=read):
                rows = pa.Table.from_batches([batch])
                if passes is not None:
                    recorded = rows["pass"].cast(pa.string()) if "pass" in read else pa.nulls(len(rows), pa.string())
                    rows = rows.filter(pc.is_in(recorded, value_set=pa.array(passes, pa.string())))
                yield to_table(name, rows.select([c for c in chosen if c in read]), chosen)
    except (pa.ArrowException, OSError) as error:
        raise RunFolderError(f"Table {file} is damaged ({error}): record or copy the run again.") from None


def whole(run: RunFolder, name: str, passes: Sequence[str] | None, columns: Sequence[str] | None = None) -> pa.Table:
    """All batches of a table as one, each column in one piece; text stays dictionary-encoded."""
    schema = pa.schema([TABLES[name].field(column) for column in columns or TABLES[name].names])
    return pa.concat_tables([schema.empty_table(), *batches(run, name, passes, columns)]).combine_chunks()


def texts(values: pa.Array) -> list[str | None]:
    """The strings of `values`; bytes that are not UTF-8 become U+FFFD."""
    return [None if raw is None else raw.decode("utf-8", "replace") for raw in values.cast(pa.binary()).to_pylist()]
