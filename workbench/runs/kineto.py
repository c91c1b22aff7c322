"""Reads a trace of the PyTorch profiler (Kineto, Chrome trace JSON) into the tables of a run.

Times in the file are microseconds with three decimals, since `baseTimeNanoseconds` where the file has one and since
the Unix epoch in older ones; they are read as decimals and become whole nanoseconds. Events of the host carry the
system's process and thread in `pid` and `tid`; those of a device carry its index and the stream there.
Format: Kineto's `output_json.cpp` and `CuptiActivity.h`, PyTorch's `profiler_kineto.cpp`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workbench.errors import SourceError
from workbench.runs.json_events import EventFile, plain_text
from workbench.runs.schema import TABLES

PROVIDER: Final = "PyTorch"
STEP: Final = re.compile(r"ProfilerStep#\d+")
_COPY: Final = re.compile(r"Memcpy (\w+) \((\w+)[\w ]* -> (\w+)[\w ]*\)")
_COPY_KINDS: Final = {"HtoD": "h2d", "DtoH": "d2h", "DtoD": "d2d", "HtoH": "h2h", "PtoP": "p2p"}
_MEMORIES: Final = {kind.capitalize(): kind for kind in ("pageable", "pinned", "device", "array", "managed")}
_SYNC_KINDS: Final = {
    "Context Sync": "context",
    "Stream Sync": "stream",
    "Event Sync": "event",
    "Stream Wait Event": "stream_wait_event",
}
_SYNC_CALLS: Final = {
    **dict.fromkeys(("cudaDeviceSynchronize", "cuCtxSynchronize"), "context"),
    **dict.fromkeys(("cudaStreamSynchronize", "cuStreamSynchronize"), "stream"),
    **dict.fromkeys(("cudaEventSynchronize", "cuEventSynchronize"), "event"),
}
# PyTorch's names of tensor types, as ONNX Runtime calls them
_DTYPES: Final = {
    **{same: same for same in ("float", "double", "bool")},
    "c10::Half": "float16",
    "c10::BFloat16": "bfloat16",
    "c10::Float8_e4m3fn": "float8e4m3fn",
    "c10::Float8_e5m2": "float8e5m2",
    "long int": "int64",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    "short int": "int16",
    "signed char": "int8",
    "unsigned char": "uint8",
}
_MAX_MICROSECONDS: Final = 1 << 51
"""71 years; in nanoseconds, on a base and with a duration added it still fits an int64."""
_MAX_BASE_NS: Final = 1 << 62
_EPOCH_NS: Final = 10**18
"""Times from here on (2001) are on the Unix epoch by themselves; no other clock runs for 31 years."""
_FLUSH_ROWS: Final = 1 << 16
_CATEGORIES_BEFORE_2022: Final = {
    "Operator": "cpu_op",
    "Kernel": "kernel",
    "Memcpy": "gpu_memcpy",
    "Memset": "gpu_memset",
    "Runtime": "cuda_runtime",
}


@dataclass(frozen=True)
class KinetoTrace:
    """What a trace holds.

    tables: `nodes`, `kernels`, `copies`, `memsets`, `launches`, `syncs`, `ranges`, without `pass` and `call`. Operators
    nest: an operator holds those that it calls. Static and dynamic shared memory come as a sum only, which stands as
    dynamic, with static null. calls: start and end of every `ProfilerStep#N`, int64[calls] each, ascending; None when
    the profiler was not stepped. on_epoch: whether times are on the Unix epoch. processes: system process ids of the
    host's events; device work has a process only when there is one. cut: the file ends before its JSON does. skipped:
    damaged records. ignored: complete events of other kinds, as Python functions and the host's view of device ranges.
    """

    tables: dict[str, pa.Table]
    calls: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    on_epoch: bool
    device_name: str | None
    device_properties: list[dict[str, Any]]
    processes: set[int]
    cut: bool
    skipped: int
    ignored: int


def read_kineto(path: Path) -> KinetoTrace:
    """Read a trace, gzip or not; raises `SourceError` when it holds no event of the PyTorch profiler."""
    file = EventFile(path, parse_float=Decimal)
    reading = _Reading()
    for batch in file:
        for event in batch:
            if event.get("ph") == "X":
                reading.take(event)
    tables = reading.tables()
    if not any(map(len, tables.values())):
        raise SourceError(f"{path.name} holds no events of the PyTorch profiler: record it again.")
    base = _int64(file.metadata.get("baseTimeNanoseconds")) or 0
    based = 0 < base < _MAX_BASE_NS
    if based:
        tables = {name: _moved(table, base) for name, table in tables.items()}
    properties = file.metadata.get("deviceProperties")
    devices = [d for d in properties if type(d) is dict] if type(properties) is list else []
    name = devices[0].get("name") if devices else None
    return KinetoTrace(
        tables=tables,
        calls=_steps(tables["ranges"]),
        on_epoch=based or _first_ns(tables) >= _EPOCH_NS,
        device_name=plain_text(name) if type(name) is str else None,
        device_properties=devices,
        processes=reading.processes,
        cut=file.cut,
        skipped=file.skipped + reading.refused,
        ignored=reading.ignored,
    )


class _Rows:
    """Rows of one table, turned into Arrow columns of the declared types as they come."""

    def __init__(self, table: str, columns: str) -> None:
        self._schema = pa.schema([TABLES[table].field(name) for name in columns.split()])
        self._rows: list[tuple[Any, ...]] = []
        self._parts = [self._schema.empty_table()]

    def append(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) == _FLUSH_ROWS:
            self._flush()

    def table(self) -> pa.Table:
        self._flush()
        return pa.concat_tables(self._parts).unify_dictionaries()

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, self._schema, strict=True)]
            self._parts.append(pa.table(arrays, schema=self._schema))
            self._rows = []


class _Reading:
    """Sorts complete events into tables."""

    def __init__(self) -> None:
        self.processes: set[int] = set()
        self.refused = self.ignored = 0
        self._names: dict[str, str] = {}
        device = "start_ns end_ns device stream correlation graph_node"
        size = "grid_x grid_y grid_z block_x block_y block_z registers dynamic_shared_bytes"
        host = "process thread start_ns end_ns name"
        self._tables = {
            "nodes": _Rows("nodes", "thread start_ns duration_ns name op_type provider input_shapes"),
            "kernels": _Rows("kernels", f"{device} name {size}"),
            "copies": _Rows("copies", f"{device} kind source target bytes"),
            "memsets": _Rows("memsets", f"{device} bytes"),
            "launches": _Rows("launches", f"{host} correlation"),
            "syncs": _Rows("syncs", "start_ns end_ns kind stream correlation"),
            "ranges": _Rows("ranges", f"{host} kind"),
        }
        self._sync_calls = _Rows("syncs", "start_ns end_ns kind stream correlation")

    def take(self, event: dict[str, Any]) -> None:
        """Keep a complete event, or count it."""
        name, category, args = event.get("name"), event.get("cat"), event.get("args")
        start_ns, duration_ns = _nanoseconds(event.get("ts")), _nanoseconds(event.get("dur"))
        if type(name) is not str or type(category) is not str or start_ns is None or duration_ns is None:
            self.refused += 1
            return
        category = _CATEGORIES_BEFORE_2022.get(category, category)
        name = self._names.setdefault(name, plain_text(name))
        args = args if type(args) is dict else {}
        end_ns = start_ns + max(duration_ns, 0)
        if category in ("kernel", "gpu_memcpy", "gpu_memset"):
            self._take_device_work(category, name, _device_columns(event, args, start_ns, end_ns), args)
        elif category == "cuda_sync":
            ids = _stream(args.get("stream")), _int64(args.get("correlation"))
            self._tables["syncs"].append((start_ns, end_ns, _SYNC_KINDS.get(name, name), *ids))
        elif category in ("cpu_op", "user_annotation", "cuda_runtime", "cuda_driver"):
            self._take_host(category, name, event, args, start_ns, end_ns)
        else:
            self.ignored += 1

    def tables(self) -> dict[str, pa.Table]:
        """The tables; device work and synchronisations get the process of the host when there is one only."""
        tables = {name: rows.table() for name, rows in self._tables.items()}
        if not len(tables["syncs"]):  # an older Kineto, or synchronisations were not asked for: their calls tell
            tables["syncs"] = self._sync_calls.table()
        process = next(iter(self.processes)) if len(self.processes) == 1 else None
        for name in ("kernels", "copies", "memsets", "syncs"):
            column = pa.array([process] * len(tables[name]), pa.int64())
            tables[name] = tables[name].append_column("process", column)
        return tables

    def _take_device_work(self, category: str, name: str, columns: tuple[Any, ...], args: dict[str, Any]) -> None:
        if category == "kernel":
            sizes = *_three(args.get("grid")), *_three(args.get("block"))
            resources = _int32(args.get("registers per thread")), _int32(args.get("shared memory"))
            self._tables["kernels"].append((*columns, name, *sizes, *resources))
        elif category == "gpu_memcpy":
            found = _COPY.match(name)
            words = found.groups() if found else ("", "", "")
            memories = _MEMORIES.get(words[1]), _MEMORIES.get(words[2])
            row = (*columns, _COPY_KINDS.get(words[0], name), *memories, _int64(args.get("bytes")))
            self._tables["copies"].append(row)
        else:
            self._tables["memsets"].append((*columns, _int64(args.get("bytes"))))

    def _take_host(
        self, category: str, name: str, event: dict[str, Any], args: dict[str, Any], start_ns: int, end_ns: int
    ) -> None:
        process, thread = _int64(event.get("pid")), _int64(event.get("tid"))
        if process is not None:
            self.processes.add(process)
        host = process, thread, start_ns, end_ns, name
        if category == "user_annotation" or STEP.fullmatch(name):  # steps were operators before 2022
            self._tables["ranges"].append((*host, "push/pop"))
        elif category == "cpu_op":
            shapes = _input_shapes(args)
            self._tables["nodes"].append((thread, start_ns, end_ns - start_ns, name, name, PROVIDER, shapes))
        else:
            correlation = _int64(args.get("correlation"))
            self._tables["launches"].append((*host, correlation))
            if name in _SYNC_CALLS:
                self._sync_calls.append((start_ns, end_ns, _SYNC_CALLS[name], None, correlation))


def _nanoseconds(value: Any) -> int | None:
    """Whole nanoseconds of decimal microseconds; None when it is no number or beyond all use."""
    if type(value) not in (int, Decimal) or not -_MAX_MICROSECONDS < value < _MAX_MICROSECONDS:
        return None
    rounded: int = round(value * 1000)
    return rounded


def _integer(value: Any, bits: int) -> int | None:
    return value if type(value) is int and -(1 << bits - 1) <= value < 1 << bits - 1 else None


_int64, _int32 = partial(_integer, bits=64), partial(_integer, bits=32)


def _stream(value: Any) -> int | None:
    """A stream's id; -1 stands for none, in waits for a whole context."""
    return None if value == -1 else _int64(value)


def _three(value: Any) -> tuple[int | None, ...]:
    axes = tuple(map(_int32, value)) if type(value) is list else ()
    return axes if len(axes) == 3 and None not in axes else (None, None, None)


def _device_columns(event: dict[str, Any], args: dict[str, Any], start_ns: int, end_ns: int) -> tuple[Any, ...]:
    device, stream = args.get("device", event.get("pid")), args.get("stream", event.get("tid"))
    graph_node = _int64(args.get("graph node id")) or None  # 0 is what is launched outside of a graph
    return start_ns, end_ns, _int32(device), _stream(stream), _int64(args.get("correlation")), graph_node


def _input_shapes(args: dict[str, Any]) -> str | None:
    """The tensors among the inputs as the ORT profiler writes them, [{dtype: dimensions}]; None when not recorded."""
    dims, kinds = args.get("Input Dims"), args.get("Input type")
    if type(dims) is not list or type(kinds) is not list or len(dims) != len(kinds):
        return None
    return json.dumps(
        [
            {_DTYPES[kind]: sizes}
            for sizes, kind in zip(dims, kinds, strict=True)
            if type(kind) is str and kind in _DTYPES and type(sizes) is list and all(type(d) is int for d in sizes)
        ]
    )


def _steps(ranges: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    names = ranges["name"].cast(pa.string())
    steps = ranges.filter(pc.match_substring_regex(names, f"^{STEP.pattern}$")).sort_by("start_ns")
    return (steps["start_ns"].to_numpy(), steps["end_ns"].to_numpy()) if len(steps) else None


def _moved(table: pa.Table, base_ns: int) -> pa.Table:
    for at, name in enumerate(table.column_names):
        if name in ("start_ns", "end_ns"):
            table = table.set_column(at, name, pc.add(table[name], base_ns))
    return table


def _first_ns(tables: dict[str, pa.Table]) -> int:
    return min(int(pc.min(table["start_ns"]).as_py()) for table in tables.values() if len(table))
