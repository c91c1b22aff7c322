"""CUPTI activity records kept as plain JSON rows, as a run.

The file is one array of rows `[kind, start, end, correlation, name, bytes, copy_kind]`: `CUpti_ActivityKind`, times in
nanoseconds since the Unix epoch, null for what a kind does not have. Such rows name neither process, device, stream nor
the function that was called, so that every row counts as of one stream, and waiting is not told from launching.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from workbench.errors import ConfigError, SourceError
from workbench.runs.imports.calls import Calls
from workbench.runs.imports.draft import Draft
from workbench.runs.imports.sink import complete
from workbench.runs.manifest import WHOLE_WINDOW, DeviceInfo, SourceInfo
from workbench.runs.nsight.convert import COPY_KINDS, FARTHEST_NS
from workbench.runs.writer import write_table

LARGEST_BYTES: Final = 256 << 20  # rows are short: this is some three million
_ACTIVITY: Final = "activity"
_WIDTH: Final = 7
# CUpti_ActivityKind: table of the run, and what a host call is named where the record has no name
_KINDS: Final = {
    1: "copies", 2: "memsets", 3: "kernels", 4: "launches", 5: "launches", 10: "kernels", 38: "syncs",
}  # fmt: skip
_HOST_CALLS: Final = {4: "driver call", 5: "runtime call"}


def import_cupti_rows(path: Path, draft: Draft, progress: Callable[[str, float], None]) -> None:
    """Fill the draft's folder; raises `SourceError` for rows of another shape."""
    if any((draft.selection.range, draft.selection.call_range, draft.selection.calls)):
        raise ConfigError("Rows of CUPTI records hold no ranges and no calls: leave --range, --call and --calls out.")
    progress("rows", 0.0)
    tables = _tables(_rows(path), path.name)
    if not tables:
        raise SourceError(f"{path.name} holds no kernel, copy or call into CUDA: record it again.")
    begun = min(int(np.min(table["start_ns"])) for table in tables.values())
    ended = max(int(np.max(table["end_ns"])) for table in tables.values())
    for name, table in tables.items():
        write_table(draft.folder, name, complete(name, table, _ACTIVITY, np.zeros(len(table), np.int32)))
    draft.set_calls(Calls.of(np.array([begun]), np.array([ended]), WHOLE_WINDOW), _ACTIVITY)
    draft.device = DeviceInfo(kind="cuda", name="a GPU that the rows do not name")
    draft.notes.append("Nothing marks the calls: all of the window counts as one.")
    draft.sources["cupti"] = SourceInfo(state="present")
    progress("rows", 1.0)


def _rows(path: Path) -> list[Any]:
    if path.stat().st_size > LARGEST_BYTES:
        raise SourceError(f"{path.name} is larger than {LARGEST_BYTES >> 20} MiB: cut it into several files.")
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise SourceError(f"{path.name} cannot be read as JSON ({said}): write it again.") from None
    if not isinstance(rows, list):
        raise SourceError(f"{path.name} is no array of rows: write it again.")
    return rows


def _tables(rows: list[Any], name: str) -> dict[str, pa.Table]:
    by_table: dict[str, list[list[Any]]] = {}
    for row in rows:
        if not isinstance(row, list) or len(row) != _WIDTH or not all(type(value) is int for value in row[:4]):
            raise SourceError(f"{name} holds a row of another shape: give seven values each, four of them integers.")
        table = _KINDS.get(row[0])
        if table is not None and 0 <= row[1] <= row[2] < FARTHEST_NS and abs(row[3]) < FARTHEST_NS:
            by_table.setdefault(table, []).append(row)
    return {table: _table(table, sorted(chosen, key=lambda row: row[1])) for table, chosen in by_table.items()}


def _table(name: str, rows: list[list[Any]]) -> pa.Table:
    kind, start, end, correlation, names, sizes, copy_kinds = zip(*rows, strict=True)
    columns: dict[str, Any] = {"start_ns": start, "end_ns": end, "correlation": correlation}
    if name in ("kernels", "copies", "memsets"):
        columns |= {"device": [0] * len(rows), "stream": [0] * len(rows)}
    if name == "kernels":
        columns["name"] = [each if isinstance(each, str) else None for each in names]
    if name == "launches":
        columns["name"] = [_HOST_CALLS[each] for each in kind]
    if name in ("copies", "memsets"):
        columns["bytes"] = [each if type(each) is int and abs(each) < FARTHEST_NS else None for each in sizes]
    if name == "copies":
        columns["kind"] = [COPY_KINDS.get(each, f"other {each}") for each in copy_kinds]
    return pa.table({key: pa.array(list(values)) for key, values in columns.items()})
