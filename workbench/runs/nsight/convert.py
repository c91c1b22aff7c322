"""How rows of an Nsight Systems export become rows of a run: which columns, in which units, under which names.

Tables and columns differ between schema versions (2022 and newer), so each column of a run lists where it may come
from. Times are nanoseconds on the session's clock and become nanoseconds since the Unix epoch; numbers that stand for
names are looked up. Rows whose times cannot be are left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workbench.runs.nsight.names import Names, plain_api_name, words

COPY_KINDS: Final = {1: "h2d", 2: "d2h", 8: "d2d", 9: "h2h", 10: "p2p", 11: "h2d", 12: "d2h", 13: "d2d"}
MEMORY_KINDS: Final = {0: "pageable", 1: "pinned", 2: "device", 3: "array", 4: "managed", 5: "device", 6: "managed"}
SYNC_KINDS: Final = {1: "event", 2: "stream_wait_event", 3: "stream", 4: "context"}
SEVERITIES: Final = {0: "unknown", 1: "information", 2: "warning", 3: "error", 4: "fatal"}
DIAGNOSTIC_SOURCES: Final = {0: "unknown", 1: "target", 2: "daemon", 3: "agent", 4: "host"}

# Times beyond this (±146 years) cannot be added to the epoch without overflow.
FARTHEST_NS: Final = 1 << 62
_ID_MASK: Final = 0xFFFFFF  # a global thread id holds hardware, VM, process (bits 24 to 47) and thread (bits 0 to 23)


@dataclass
class Context:
    """What every conversion needs: the clock, the names, and whose rows are wanted."""

    epoch_ns: int
    names: Names
    process: int | None = None
    device: int | None = None
    end_ns: int | None = None
    """Where open ranges end, on the session's clock."""
    impossible: dict[str, int] = field(default_factory=dict)
    """Rows left out by table, because they end before they start or lie beyond any clock."""

    def count_impossible(self, table: str, count: int) -> None:
        """Note rows that are left out."""
        if count:
            self.impossible[table] = self.impossible.get(table, 0) + count


@dataclass(frozen=True)
class Shape:
    """Where a table of a run comes from: the source table, its column of time, and one rule for each column."""

    source: str
    time: str
    rules: Mapping[str, Rule]


Rule = tuple[tuple[str, ...], Callable[[pa.Array, Context], Any]]
"""Source columns, the first that exists is taken, and what makes a column of a run out of it."""


def _integer(values: pa.Array, context: Context) -> pa.Array:
    return as_int64(values)


def _small(values: pa.Array, context: Context) -> pa.Array:
    """Raises `pyarrow.ArrowInvalid` beyond an int32, which no device number and no launch dimension reaches."""
    return as_int64(values).cast(pa.int32())


def _id(values: pa.Array, context: Context) -> pa.Array:
    """Ids count from 1; exports that know no null write 0 for none."""
    numbers = as_int64(values)
    return pc.if_else(pc.equal(numbers, 0), None, numbers)


def _time(values: pa.Array, context: Context) -> pa.Array:
    return pc.add(as_int64(values), context.epoch_ns)


def _string(values: pa.Array, context: Context) -> pa.Array:
    return context.names.words(values)


def _api(values: pa.Array, context: Context) -> pa.Array:
    return context.names.words(values, plain_api_name)


def _kind(kinds: Mapping[int, str], otherwise: str | None = "other") -> Callable[[pa.Array, Context], pa.Array]:
    return lambda values, context: words(values, kinds, otherwise)


def _process(values: pa.Array, context: Context) -> NDArray[np.int64]:
    return process_of(values)


def _thread(values: pa.Array, context: Context) -> NDArray[np.int64]:
    return thread_of(values)


def _text(values: pa.Array, context: Context) -> pa.Array:
    return values.cast(pa.string())


def integers(values: pa.Array, missing: int = 0) -> NDArray[np.int64]:
    """A column as int64[n], null as `missing`."""
    return np.asarray(as_int64(values).fill_null(missing).to_numpy(zero_copy_only=False), np.int64)


def as_int64(values: pa.Array) -> pa.Array:
    """Integers of any width; unsigned global ids keep their bits, as SQLite stores them.

    Raises `pyarrow.ArrowInvalid` for what is no integer.
    """
    return values.view(pa.int64()) if values.type == pa.uint64() else values.cast(pa.int64())


def process_of(global_ids: pa.Array) -> NDArray[np.int64]:
    """The operating system's process id in a `globalPid` or `globalTid`: int64[n]."""
    return (integers(global_ids) >> 24) & _ID_MASK


def thread_of(global_ids: pa.Array) -> NDArray[np.int64]:
    """The operating system's thread id in a `globalTid`: int64[n]."""
    return integers(global_ids) & _ID_MASK


_SPAN: Final[dict[str, Rule]] = {"start_ns": (("start",), _time), "end_ns": (("end",), _time)}
_OF_THREAD: Final[dict[str, Rule]] = {"process": (("globalTid",), _process), "thread": (("globalTid",), _thread)}
_CORRELATION: Final[dict[str, Rule]] = {"correlation": (("correlationId",), _integer)}
_ON_DEVICE: Final[dict[str, Rule]] = {
    "process": (("globalPid",), _process),
    **_SPAN,
    "device": (("deviceId",), _small),
    "stream": (("streamId",), _integer),
    **_CORRELATION,
}
_IN_GRAPH: Final[dict[str, Rule]] = {**_ON_DEVICE, "graph_node": (("graphNodeId",), _id)}
_HOST_CALL: Final[dict[str, Rule]] = {**_OF_THREAD, **_SPAN, **_CORRELATION, "name": (("nameId",), _api)}

SHAPES: Final[dict[str, Shape]] = {
    "kernels": Shape(
        "CUPTI_ACTIVITY_KIND_KERNEL",
        "start",
        {
            **_IN_GRAPH,
            "name": (("demangledName", "mangledName", "shortName"), _string),
            **{
                f"{part}_{axis}": ((f"{part}{axis.upper()}",), _small)
                for part in ("grid", "block")
                for axis in "xyz"
            },
            "registers": (("registersPerThread",), _small),
            "static_shared_bytes": (("staticSharedMemory",), _small),
            "dynamic_shared_bytes": (("dynamicSharedMemory",), _small),
        },
    ),
    "copies": Shape(
        "CUPTI_ACTIVITY_KIND_MEMCPY",
        "start",
        {
            **_IN_GRAPH,
            "kind": (("copyKind",), _kind(COPY_KINDS)),
            "bytes": (("bytes",), _integer),
            "source": (("srcKind",), _kind(MEMORY_KINDS, None)),
            "target": (("dstKind",), _kind(MEMORY_KINDS, None)),
        },
    ),
    "memsets": Shape("CUPTI_ACTIVITY_KIND_MEMSET", "start", {**_IN_GRAPH, "bytes": (("bytes",), _integer)}),
    "graphs": Shape(
        "CUPTI_ACTIVITY_KIND_GRAPH_TRACE", "start", {**_ON_DEVICE, "graph": (("graphExecId", "graphId"), _integer)}
    ),
    "launches": Shape("CUPTI_ACTIVITY_KIND_RUNTIME", "start", _HOST_CALL),
    "syncs": Shape(
        "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION",
        "start",
        {
            "process": (("globalPid",), _process),
            **_SPAN,
            "kind": (("syncType",), _kind(SYNC_KINDS)),
            "stream": (("streamId",), _integer),
            **_CORRELATION,
        },
    ),
    "graph_nodes": Shape(
        "CUDA_GRAPH_NODE_EVENTS",
        "start",
        {
            **_OF_THREAD,
            "time_ns": (("start",), _time),
            "graph_node": (("graphNodeId",), _id),
            "origin": (("originalGraphNodeId",), _id),
        },
    ),
    "cuda_events": Shape(
        "CUPTI_ACTIVITY_KIND_CUDA_EVENT",
        "timestamp",
        {
            "process": (("globalPid",), _process),
            "time_ns": (("timestamp",), _time),
            "device": (("deviceId",), _small),
            "stream": (("streamId",), _integer),
            "event": (("eventId",), _integer),
            **_CORRELATION,
        },
    ),
    "os_calls": Shape("OSRT_API", "start", {**_OF_THREAD, **_SPAN, "name": (("nameId",), _string)}),
    "diagnostics": Shape(
        "DIAGNOSTIC_EVENT",
        "timestamp",
        {
            "process": (("globalPid",), _process),
            "time_ns": (("timestamp",), _time),
            "severity": (("severity",), _kind(SEVERITIES)),
            "source": (("source",), _kind(DIAGNOSTIC_SOURCES)),
            "text": (("text",), _text),
        },
    ),
}


def chosen_columns(shape: Shape, known: frozenset[str]) -> dict[str, str]:
    """For each column of the run that the source can give: the source's column."""
    found = {name: next((c for c in columns if c in known), None) for name, (columns, _) in shape.rules.items()}
    return {name: column for name, column in found.items() if column is not None}


def convert(name: str, batch: pa.RecordBatch, columns: Mapping[str, str], context: Context) -> pa.Table:
    """Rows of one batch as columns of the run's table `name`; rows of other processes and devices are left out."""
    given = dict(zip(batch.schema.names, batch.columns, strict=True))
    kept = _wanted(name, given, columns, context)
    if kept is not None:
        given = {column: values.filter(kept) for column, values in given.items()}
    rules = SHAPES[name].rules
    return pa.table({ours: rules[ours][1](given[column], context) for ours, column in columns.items()})


def _wanted(
    name: str, given: Mapping[str, pa.Array], columns: Mapping[str, str], context: Context
) -> pa.Array | None:
    """Which rows to keep, or None for all of them."""
    count = len(next(iter(given.values())))
    kept = np.ones(count, bool)
    if "start_ns" in columns:
        start = integers(given[columns["start_ns"]], -FARTHEST_NS)
        end = integers(given[columns["end_ns"]], -FARTHEST_NS)
        kept = (np.abs(start) < FARTHEST_NS) & (np.abs(end) < FARTHEST_NS) & (end >= start)
        context.count_impossible(name, int(count - kept.sum()))
    if context.process is not None and "process" in columns:
        kept &= process_of(given[columns["process"]]) == context.process
    if context.device is not None and "device" in columns:
        kept &= integers(given[columns["device"]], -1) == context.device
    return None if kept.all() else pa.array(kept)
