"""Opens a run folder: every table as a DataFrame, read on first use, or by SQL through DuckDB."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from workbench.errors import RunFolderError
from workbench.runs.manifest import Manifest
from workbench.runs.schema import SCHEMA_VERSION, TABLES
from workbench.runs.writer import GRAPH, MANIFEST, MODEL_GRAPH, to_table

if TYPE_CHECKING:
    import onnx
    import pandas as pd


class RunFolder:
    """A complete (or marked incomplete) run on disk; read only.

    Tables are attributes: `run.kernels`, `run.nodes`, … (see `workbench.runs.schema.TABLES`); a table that the run
    lacks is an empty DataFrame with the declared columns, and `run.manifest.sources` says why.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest = _read_manifest(self.folder)
        self._tables: dict[str, pd.DataFrame] = {}
        self._only_passes: dict[str, str | None] = {}

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name in TABLES:
            return self.table(name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *TABLES})

    def has(self, name: str) -> bool:
        """Whether the run holds the table `name` at all."""
        return (self.folder / f"{name}.parquet").is_file()

    def rows(self, name: str) -> int:
        """How many rows the table `name` has, as its file says; raises `RunFolderError` when that is damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.has(name):
            return 0
        file = self.folder / f"{name}.parquet"
        try:
            return int(pq.read_metadata(file).num_rows)
        except (pa.ArrowException, OSError) as error:
            raise RunFolderError(f"Table {file} is damaged ({error}): record or copy the run again.") from None

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table `name` with the declared columns, or only those chosen, in the order of `columns`.

        A whole table is read once and kept; chosen columns alone are read from the file each time, which for a table
        of millions of rows is far less. Raises `RunFolderError` when the file is damaged.
        """
        if columns is None:
            if name not in self._tables:
                self._tables[name] = self._read(name, TABLES[name].names)
            return self._tables[name]
        return self._tables[name][list(columns)] if name in self._tables else self._read(name, columns)

    def _read(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.folder / f"{name}.parquet"
        declared = TABLES[name]
        try:
            if not file.is_file():
                table = declared.empty_table().select(list(columns))
            else:
                stored = pq.read_schema(file).names
                known = pq.read_table(file, columns=[c for c in columns if c in stored], memory_map=True)
                table = to_table(name, known, columns)
            frame: pd.DataFrame = table.to_pandas()
            return frame
        except (pa.ArrowException, OSError) as error:
            raise RunFolderError(f"Table {file} is damaged ({error}): record or copy the run again.") from None

    def only_pass(self, name: str) -> str | None:
        """The pass that recorded every row of a table, as the statistics of its file say; None where they do not."""
        if name not in self._only_passes:
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                found = only_value(pq.read_metadata(self.folder / f"{name}.parquet"), "pass")
            except (pa.ArrowException, OSError):  # what is wrong is said when the table is read
                found = None
            self._only_passes[name] = found if isinstance(found, str) else None
        return self._only_passes[name]

    def call_rows(
        self, name: str, columns: Sequence[str], stretches: Sequence[tuple[int, int]], *, between: bool = False
    ) -> pd.DataFrame:
        """Rows of some calls, those with a number [first, last) of any stretch; what holds none of them is not read.

        between: also the rows outside every call among and around them, of tables that are sorted by time.
        Index labels are the places in the whole table. Raises `RunFolderError` when the file is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.folder / f"{name}.parquet"
        if not file.is_file() or name in self._tables:
            whole = self.table(name)
            kept = _of_calls(whole["call"].to_numpy(np.int64), stretches, between)
            return whole.loc[kept, list(columns)]
        try:
            with pq.ParquetFile(file, memory_map=True) as stored:
                known = [column for column in columns if column in stored.schema_arrow.names]
                first_row, parts, labels = 0, [], [np.empty(0, np.int64)]
                bounds = list(_calls_of_groups(stored.metadata))
                wanted = _groups_of(bounds, stretches)
                for group, (_, _, rows) in enumerate(bounds):
                    if group in wanted:
                        part = stored.read_row_group(group, columns=list({*known, "call"}), use_threads=False)
                        chosen = _of_calls(part["call"].to_numpy(), stretches, between)
                        part = part.select(known)
                        parts.append(part if chosen.all() else part.filter(pa.array(chosen)))
                        labels.append(np.flatnonzero(chosen) + first_row)
                    first_row += rows
                held = pa.concat_tables(parts) if parts else stored.schema_arrow.empty_table().select(known)
            frame: pd.DataFrame = to_table(name, held, columns).to_pandas()
            return frame.set_axis(np.concatenate(labels))
        except (pa.ArrowException, OSError) as error:
            raise RunFolderError(f"Table {file} is damaged ({error}): record or copy the run again.") from None

    def sql(self, query: str) -> pd.DataFrame:
        """Run a DuckDB query over the Parquet files; every table of the run is a view of its name."""
        import duckdb

        with duckdb.connect() as connection:
            for name in TABLES:
                if self.has(name):
                    path = str(self.folder / f"{name}.parquet").replace("'", "''")
                    connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{path}')")
            return connection.execute(query).df()

    @cached_property
    def graph(self) -> onnx.ModelProto | None:
        """The optimised graph that ONNX Runtime executed, without weights; None when it was not saved.

        Raises `RunFolderError` when the file is damaged.
        """
        return _graph(self.folder / GRAPH)

    @cached_property
    def model_graph(self) -> onnx.ModelProto | None:
        """The graph that ONNX Runtime was given, without weights; None when it was not saved.

        Raises `RunFolderError` when the file is damaged.
        """
        return _graph(self.folder / MODEL_GRAPH)

    def __repr__(self) -> str:
        state = "" if self.manifest.complete else ", incomplete"
        where = f"{self.manifest.model.name} on {self.manifest.device.name}{state}"
        return f"<{type(self).__name__} {where}: {self.folder}>"


def _graph(file: Path) -> onnx.ModelProto | None:
    import onnx
    from google.protobuf.message import DecodeError

    if not file.is_file():
        return None
    try:
        return onnx.load_model(file, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise RunFolderError(f"The graph {file} is damaged ({error}): record or copy the run again.") from None


def only_value(metadata: Any, column: str) -> object:
    """The value of a column that has no other, nor null, as a Parquet file's statistics say; None where they do not."""
    at = metadata.schema.to_arrow_schema().get_field_index(column)
    values = set()
    for group in range(metadata.num_row_groups if at >= 0 else 0):
        told = metadata.row_group(group).column(at).statistics
        if told is None or not told.has_min_max or told.null_count != 0:
            return None
        values |= {told.min, told.max}
    return values.pop() if len(values) == 1 else None


def _calls_of_groups(metadata: Any) -> Iterator[tuple[float, float, int]]:
    """Lowest and highest call of each row group, without bounds where the file does not say, and its rows."""
    column = metadata.schema.to_arrow_schema().get_field_index("call")
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        told = group.column(column).statistics
        known = told is not None and told.has_min_max
        yield (told.min if known else -math.inf), (told.max if known else math.inf), group.num_rows


def _of_calls(call: NDArray[Any], stretches: Sequence[tuple[int, int]], between: bool) -> NDArray[np.bool_]:
    chosen = (call < 0) & between
    for first, last in stretches:
        chosen |= (call >= first) & (call < last)
    return chosen


def _groups_of(bounds: Sequence[tuple[float, float, int]], stretches: Sequence[tuple[int, int]]) -> set[int]:
    """Row groups from the first that may hold a call of a stretch to the last, of every stretch."""
    wanted: set[int] = set()
    for first, last in stretches:
        hits = [group for group, (lowest, highest, _) in enumerate(bounds) if first <= highest and last > lowest]
        wanted.update(range(hits[0], hits[-1] + 1) if hits else ())
    return wanted


def _read_manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        major, minor = map(int, data["schema_version"])
    except OSError:
        raise RunFolderError(f"{folder} is not a run: it holds no readable {MANIFEST}.") from None
    except (ValueError, KeyError, TypeError):
        raise RunFolderError(f"{file} is damaged: record or copy the run again.") from None
    if major > SCHEMA_VERSION[0]:
        raise RunFolderError(
            f"{folder} was written by a newer workbench (schema {major}.{minor}, known is {SCHEMA_VERSION[0]}.x): "
            "update the package."
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RunFolderError(f"{file} is damaged at {where!r}: record or copy the run again.") from None
