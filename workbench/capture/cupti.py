"""Records device work and CUDA calls of this process through CUPTI, for machines without Nsight Systems.

A replayed CUDA graph is one record, or, traced node by node, one record for each of its kernels and copies. These carry
the replay's correlation id, so that callbacks note when, and on which thread, each node of a graph was captured.

CUPTI hands over buffers of records on a thread of its own; they are copied into columns there, because a record's
memory is reused. Only calls that put work on a stream, wait, or allocate are kept: the rest is noise by count.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa

from workbench.capture.demangle import demangle
from workbench.errors import SourceError
from workbench.runs.nsight.convert import COPY_KINDS
from workbench.runs.nsight.names import plain_api_name

BUFFER_BYTES: Final = 8 << 20
_MEMORY: Final = {1: "pageable", 2: "pinned", 3: "device", 4: "array", 5: "managed", 6: "device", 7: "managed"}
_SYNCS: Final = {1: "event", 2: "stream_wait_event", 3: "stream", 4: "context"}
_KINDS: Final = (
    "CONCURRENT_KERNEL", "MEMCPY", "MEMCPY2", "MEMSET", "RUNTIME", "DRIVER", "SYNCHRONIZATION", "OVERHEAD",
)  # fmt: skip
# of what CUPTI calls overhead, what CUDA would do without it too
_LOADS: Final = {
    "LAZY_FUNCTION_LOADING": "function",
    "RUNTIME_TRIGGERED_MODULE_LOADING": "module",
    "DRIVER_COMPILER": "compiled",
}
_WHOLE_GRAPHS: Final = "GRAPH_TRACE"  # without it, CUPTI records the kernels of a replay one by one
_GRAPH_NODE_EVENTS: Final = ("GRAPHNODE_CREATED", "GRAPHNODE_CLONED")
# Runtime calls that are kept although no device work carries their correlation id.
_KEPT_WORDS: Final = ("Synchronize", "Malloc", "Free", "HostAlloc", "HostRegister", "GraphLaunch", "GraphInstantiate")


def cupti_problem() -> str:
    """Why CUPTI cannot be used here, or an empty string."""
    try:
        importlib.import_module("cupti.cupti")
    except Exception as error:
        return f"cupti-python does not load ({type(error).__name__}: {error}): install 'ort-workbench[gpu]'"
    return ""


class CuptiTrace:
    """Context manager: records while open; `tables()` afterwards. Start it before the CUDA context is made.

    graph_nodes: trace replayed CUDA graphs node by node. Raises `SourceError` when CUPTI refuses, for instance because
    another profiler holds the process.
    """

    def __init__(self, *, graph_nodes: bool = False) -> None:
        problem = cupti_problem()
        if problem:
            raise SourceError(f"{problem}.")
        self._cupti = importlib.import_module("cupti.cupti")
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _FIELDS}
        names = _KINDS if graph_nodes else (*_KINDS, _WHOLE_GRAPHS)
        self._kinds = [getattr(self._cupti.ActivityKind, name) for name in names]
        self._graph_nodes = graph_nodes
        self._subscriber: Any = None
        self._dropped = 0
        self._runtime_names = {int(c): c.name for c in self._cupti.runtime_api_trace_cbid}
        self._loads = {int(getattr(self._cupti.ActivityOverheadKind, name)): kind for name, kind in _LOADS.items()}
        self._driver_names = {int(c): c.name for c in self._cupti.driver_api_trace_cbid}

    def __enter__(self) -> Self:
        try:
            self._cupti.set_thread_id_type(self._cupti.ActivityThreadIdType.SYSTEM)
            self._cupti.activity_register_callbacks(lambda: (BUFFER_BYTES, 0), self._take)
            for kind in self._kinds:
                self._cupti.activity_enable(int(kind))
            if self._graph_nodes:
                self._subscriber = self._cupti.subscribe(self._note_graph_node, None)
                resource = int(self._cupti.CallbackDomain.RESOURCE)
                for name in _GRAPH_NODE_EVENTS:
                    event = int(getattr(self._cupti.CallbackIdResource, name))
                    self._cupti.enable_callback(1, self._subscriber, resource, event)
        except self._cupti.cuptiError as error:
            raise SourceError(f"CUPTI refused to trace ({error}): end other profilers, or run as root.") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._cupti.activity_flush_all(1)
        self._dropped = self._count_dropped()
        for each in self._kinds:
            self._cupti.activity_disable(int(each))
        if self._subscriber is not None:
            self._cupti.unsubscribe(self._subscriber)

    @property
    def loss(self) -> str | None:
        """What CUPTI dropped because its buffers were full, in a sentence; None where it kept everything."""
        return f"CUPTI dropped {self._dropped:,} records: its buffers were full." if self._dropped else None

    def _count_dropped(self) -> int:
        """Records that found no room, of all contexts since tracing began; only while tracing is on."""
        count = ctypes.c_size_t()
        try:
            self._cupti.activity_get_num_dropped_records(0, 0, ctypes.addressof(count))
        except self._cupti.cuptiError:  # some drivers count per context only: nothing is known then
            return 0
        return count.value

    def _note_graph_node(self, user_data: Any, domain: int, event: int, data: Any) -> None:
        """Called by CUPTI inside the CUDA call that makes a graph node, on its thread."""
        cupti = self._cupti
        made = cupti.GraphData.from_ptr(data.resource_descriptor)
        cloned = event == cupti.CallbackIdResource.GRAPHNODE_CLONED
        origin = cupti.get_graph_node_id(made.original_node) if cloned else None
        self._rows["graph_nodes"].append(
            (cupti.get_timestamp(), threading.get_native_id(), cupti.get_graph_node_id(made.node), origin)
        )

    def _take(self, records: list[Any]) -> None:
        kinds, rows = self._cupti.ActivityKind, self._rows
        for r in records:
            kind = r.kind
            if kind in (kinds.RUNTIME, kinds.DRIVER):
                rows["calls"].append((r.start, r.end, r.thread_id, r.cbid, kind == kinds.RUNTIME, r.correlation_id))
            elif kind == kinds.CONCURRENT_KERNEL:
                rows["kernels"].append(
                    (r.start, r.end, r.device_id, r.stream_id, r.correlation_id, r.graph_node_id or None,
                     demangle(r.name), r.grid_x, r.grid_y, r.grid_z, r.block_x, r.block_y, r.block_z,
                     r.registers_per_thread, r.static_shared_memory, r.dynamic_shared_memory)
                )  # fmt: skip
            elif kind in (kinds.MEMCPY, kinds.MEMCPY2):
                rows["copies"].append(
                    (r.start, r.end, r.device_id, r.stream_id, r.correlation_id, r.graph_node_id or None,
                     COPY_KINDS.get(int(r.copy_kind), f"other {int(r.copy_kind)}"), r.bytes,
                     _MEMORY.get(int(r.src_kind)), _MEMORY.get(int(r.dst_kind)))
                )  # fmt: skip
            elif kind == kinds.MEMSET:
                rows["memsets"].append(
                    (r.start, r.end, r.device_id, r.stream_id, r.correlation_id, r.graph_node_id or None, r.bytes)
                )
            elif kind == kinds.GRAPH_TRACE:
                rows["graphs"].append((r.start, r.end, r.device_id, r.stream_id, r.correlation_id, r.graph_id))
            elif kind == kinds.SYNCHRONIZATION:
                rows["syncs"].append((r.start, r.end, _SYNCS.get(int(r.type)), r.stream_id, r.correlation_id))
            elif kind == kinds.OVERHEAD and int(r.overhead_kind) in self._loads:
                rows["loads"].append((r.start, r.end, self._loads[int(r.overhead_kind)]))

    def tables(self) -> dict[str, pa.Table]:
        """Tables `kernels`, `copies`, `memsets`, `graphs`, `graph_nodes`, `launches`, `syncs`, `loads`.

        The columns `pass` and `call` are not among theirs.
        """
        tables = {
            name: pa.table(dict(zip(fields, map(list, zip(*self._rows[name], strict=True)), strict=True)))
            for name, fields in _FIELDS.items()
            if name != "calls" and self._rows[name]
        }
        tables["launches"] = self._launches(tables)
        return tables

    def _launches(self, tables: dict[str, pa.Table]) -> pa.Table:
        device_work: set[int] = set()
        for name in ("kernels", "copies", "memsets", "graphs"):
            if name in tables:
                device_work.update(tables[name]["correlation"].to_pylist())
        by_runtime = {row[5] for row in self._rows["calls"] if row[4] and row[5] in device_work}
        kept: list[tuple[Any, ...]] = []
        for start, end, thread, cbid, is_runtime, correlation in self._rows["calls"]:
            name = plain_api_name((self._runtime_names if is_runtime else self._driver_names).get(cbid, f"call {cbid}"))
            # The driver call inside a runtime call carries the same correlation id: the outer one is the launch.
            works = correlation in device_work and (is_runtime or correlation not in by_runtime)
            if works or (is_runtime and any(word in name for word in _KEPT_WORDS)):
                kept.append((start, end, thread, name, correlation))
        columns = zip(*kept, strict=True) if kept else ((),) * 5
        return pa.table(
            dict(zip(("start_ns", "end_ns", "thread", "name", "correlation"), map(list, columns), strict=True))
        )


_DEVICE: Final = ("start_ns", "end_ns", "device", "stream", "correlation", "graph_node")
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "calls": (),
    "kernels": (
        *_DEVICE, "name", "grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z", "registers",
        "static_shared_bytes", "dynamic_shared_bytes",
    ),
    "copies": (*_DEVICE, "kind", "bytes", "source", "target"),
    "memsets": (*_DEVICE, "bytes"),
    "graphs": (*_DEVICE[:5], "graph"),
    "graph_nodes": ("time_ns", "thread", "graph_node", "origin"),
    "syncs": ("start_ns", "end_ns", "kind", "stream", "correlation"),
    "loads": ("start_ns", "end_ns", "kind"),
}  # fmt: skip
