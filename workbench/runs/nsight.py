"""Reads device work and host calls of one process from an Nsight Systems SQLite export.

Tables exist only when they have rows and differ between schema versions, so every table and column is probed.
Times are nanoseconds on the session's clock; `utcEpochNs` puts them on the Unix epoch.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from workbench.errors import SourceError

COPY_KINDS: Final = {1: "h2d", 2: "d2h", 8: "d2d", 9: "h2h", 10: "p2p"}
MEMORY_KINDS: Final = {0: "pageable", 1: "pinned", 2: "device", 3: "array", 4: "managed", 5: "device", 6: "managed"}
SYNC_KINDS: Final = {1: "event", 2: "stream_wait_event", 3: "stream", 4: "context"}
# Schema 3.20 labels the records of cudaStreamSynchronize "stream wait", so the calling function decides where known.
_SYNC_CALLS: Final = {
    "cudaStreamSynchronize": "stream",
    "cudaDeviceSynchronize": "context",
    "cudaEventSynchronize": "event",
    "cudaStreamWaitEvent": "stream_wait_event",
}

_START_TIME: Final = "TARGET_INFO_SESSION_START_TIME"
_DEVICE: Final = {
    "start_ns": "start",
    "end_ns": "end",
    "device": "deviceId",
    "stream": "streamId",
    "correlation": "correlationId",
    "graph_node": "graphNodeId",
}
_COLUMNS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "kernels": (
        "CUPTI_ACTIVITY_KIND_KERNEL",
        {
            **_DEVICE,
            "name": "demangledName",
            **{f"{part}_{axis}": f"{part}{axis.upper()}" for part in ("grid", "block") for axis in "xyz"},
            "registers": "registersPerThread",
            "static_shared_bytes": "staticSharedMemory",
            "dynamic_shared_bytes": "dynamicSharedMemory",
        },
    ),
    "copies": (
        "CUPTI_ACTIVITY_KIND_MEMCPY",
        {**_DEVICE, "kind": "copyKind", "bytes": "bytes", "source": "srcKind", "target": "dstKind"},
    ),
    "memsets": ("CUPTI_ACTIVITY_KIND_MEMSET", {**_DEVICE, "bytes": "bytes"}),
    "graphs": ("CUPTI_ACTIVITY_KIND_GRAPH_TRACE", {**_DEVICE, "graph": "graphId"}),
    "launches": (
        "CUPTI_ACTIVITY_KIND_RUNTIME",
        {"start_ns": "start", "end_ns": "end", "thread": "globalTid", "name": "nameId", "correlation": "correlationId"},
    ),
    "syncs": (
        "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION",
        {
            "start_ns": "start",
            "end_ns": "end",
            "kind": "syncType",
            "stream": "streamId",
            "correlation": "correlationId",
        },
    ),
}


def read_nsight(path: Path, process: int) -> dict[str, pa.Table]:
    """Tables of one process, without the columns `pass` and `call`; raises `SourceError`.

    process: system process id. Rows of other processes are left out, because correlation ids repeat between them.
    """
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
            tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            begun = _START_TIME in tables and database.execute(f"SELECT utcEpochNs FROM {_START_TIME}").fetchone()
            if not begun:
                raise SourceError(f"{path.name} says no start time, so its clock cannot be joined: export it again.")
            strings = dict(database.execute("SELECT id, value FROM StringIds")) if "StringIds" in tables else {}
            found = {
                name: _read(database, source, columns, process, int(begun[0]), strings)
                for name, (source, columns) in _COLUMNS.items()
                if source in tables
            }
    except sqlite3.Error as error:
        raise SourceError(f"The Nsight Systems export {path.name} cannot be read ({error}): export it again.") from None
    except (KeyError, TypeError):
        raise SourceError(f"{path.name} lacks the times of its rows, or holds no numbers: export it again.") from None
    if "syncs" in found and "launches" in found:
        found["syncs"] = _named_by_caller(found["syncs"], found["launches"])
    return found


def _named_by_caller(syncs: pa.Table, launches: pa.Table) -> pa.Table:
    callers = dict(zip(launches["correlation"].to_pylist(), launches["name"].to_pylist(), strict=True))
    kinds = [
        _SYNC_CALLS.get(callers.get(correlation, ""), kind)
        for correlation, kind in zip(syncs["correlation"].to_pylist(), syncs["kind"].to_pylist(), strict=True)
    ]
    return syncs.set_column(syncs.column_names.index("kind"), "kind", [kinds])


def _read(
    database: sqlite3.Connection,
    source: str,
    columns: dict[str, str],
    process: int,
    epoch_ns: int,
    strings: dict[int, str],
) -> pa.Table:
    known = {row[1] for row in database.execute(f"PRAGMA table_info({source})")}
    selected = {name: column for name, column in columns.items() if column in known}
    owner = "globalPid" if "globalPid" in known else "globalTid"
    listed = ", ".join(f'"{column}"' for column in selected.values())
    rows = database.execute(
        f'SELECT {listed} FROM {source} WHERE "{owner}" >> 24 & 16777215 = ? ORDER BY "start"', (process,)
    ).fetchall()
    values: dict[str, Any] = dict(zip(selected, zip(*rows, strict=True), strict=True)) if rows else {}
    arrays = {name: list(values.get(name, ())) for name in selected}
    for name in ("start_ns", "end_ns"):
        arrays[name] = [time + epoch_ns for time in arrays[name]]
    if "name" in arrays:
        arrays["name"] = [strings.get(key, str(key)) for key in arrays["name"]]
    if "thread" in arrays:
        arrays["thread"] = [key & 0xFFFFFF for key in arrays["thread"]]
    for name, kinds in (("source", MEMORY_KINDS), ("target", MEMORY_KINDS)):
        if name in arrays:
            arrays[name] = [kinds.get(key) for key in arrays[name]]
    if "kind" in arrays:
        kinds = COPY_KINDS if source.endswith("MEMCPY") else SYNC_KINDS
        arrays["kind"] = [kinds.get(key, f"other {key}") for key in arrays["kind"]]
    if source.endswith("RUNTIME"):
        arrays["name"] = [plain_api_name(name) for name in arrays["name"]]
    return pa.table(arrays)


def plain_api_name(name: str) -> str:
    """`cudaLaunchKernel_v7000`, `cudaLaunchKernel_ptsz_v7000` → `cudaLaunchKernel`; driver names stay as they are."""
    if not name.startswith("cuda"):
        return name
    return name.rpartition("_v")[0].removesuffix("_ptsz") or name
