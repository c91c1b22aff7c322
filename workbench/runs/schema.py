"""The tables of a run folder, declared once and checked on writing and on reading.

Every timestamp is int64 nanoseconds since the Unix epoch, every duration int64 nanoseconds, every
size int64 bytes; the unit is the suffix of the column's name. `pass` names the pass that a row was
recorded in, and `call` the call of that pass that the row lies in (0 is the first call ever made,
-1 is outside any call).
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = (1, 0)
"""(major, minor): a newer minor version still opens, a newer major version is refused."""

PHASES: Final = ("cold", "warm-up", "measured")
PASSES: Final = ("latency", "counters", "activity", "nodes")

_text = pa.string()
_i64 = pa.int64()
_i32 = pa.int32()
_f64 = pa.float64()


def _table(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name.rstrip("_"), kind) for name, kind in columns.items()])


_DEVICE_WORK = {
    "pass_": _text,
    "call": _i32,
    "start_ns": _i64,
    "end_ns": _i64,
    "device": _i32,
    "stream": _i64,
    "correlation": _i64,
    "graph_node": _i64,
}

TABLES: Final[dict[str, pa.Schema]] = {
    # one row per call of the model; `process` is the worker's process id
    "latency": _table(pass_=_text, process=_i64, call=_i32, phase=_text, start_ns=_i64, duration_ns=_i64),
    # cold start, in order: import, libraries, session, binding, first call
    "steps": _table(pass_=_text, name=_text, start_ns=_i64, duration_ns=_i64),
    # one row per executed node; shapes are JSON lists of {"dtype": [dims]}, as the ORT profiler writes them
    "nodes": _table(
        pass_=_text,
        call=_i32,
        node_index=_i64,
        name=_text,
        op_type=_text,
        provider=_text,
        thread=_i64,
        start_ns=_i64,
        duration_ns=_i64,
        input_shapes=_text,
        output_shapes=_text,
        activation_bytes=_i64,
        parameter_bytes=_i64,
        output_bytes=_i64,
    ),
    # ORT's own session events: model_run, SequentialExecutor::Execute, …
    "session_events": _table(pass_=_text, call=_i32, name=_text, thread=_i64, start_ns=_i64, duration_ns=_i64),
    # `work` (flops and bytes of each node) is derived from `nodes` and graph.onnx by `workbench.analysis.work`
    "kernels": _table(
        **_DEVICE_WORK,
        name=_text,
        grid_x=_i32,
        grid_y=_i32,
        grid_z=_i32,
        block_x=_i32,
        block_y=_i32,
        block_z=_i32,
        registers=_i32,
        static_shared_bytes=_i32,
        dynamic_shared_bytes=_i32,
    ),
    # kind: h2d, d2h, d2d, p2p, h2h; source and target: pageable, pinned, device, array, managed
    "copies": _table(**_DEVICE_WORK, kind=_text, bytes=_i64, source=_text, target=_text),
    "memsets": _table(**_DEVICE_WORK, bytes=_i64),
    # host calls into CUDA: all that put work on a stream or wait for it, and allocations
    "launches": _table(pass_=_text, call=_i32, start_ns=_i64, end_ns=_i64, thread=_i64, name=_text, correlation=_i64),
    # kind: event, stream, context, stream_wait_event
    "syncs": _table(pass_=_text, call=_i32, start_ns=_i64, end_ns=_i64, kind=_text, stream=_i64, correlation=_i64),
    # one row per replay of a CUDA graph traced as a whole
    "graphs": _table(**_DEVICE_WORK, graph=_i64),
    # the worker's own log of its ranges; the same names are pushed to NVTX
    "ranges": _table(pass_=_text, name=_text, call=_i32, thread=_i64, start_ns=_i64, end_ns=_i64),
    # NVML, sampled from outside the worker; `metric` carries its unit as a suffix
    "samples": _table(pass_=_text, time_ns=_i64, device=_i32, metric=_text, value=_f64),
    # GPM, each value an average over [time_ns - window_ns, time_ns]
    "counters": _table(pass_=_text, time_ns=_i64, window_ns=_i64, device=_i32, metric=_text, value=_f64),
}
