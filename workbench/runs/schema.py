"""The tables of a run folder, declared once and checked on writing and on reading.

Every timestamp is int64 nanoseconds since the Unix epoch, every duration int64 nanoseconds, every
size int64 bytes; the unit is the suffix of the column's name. `pass` names the pass that a row was
recorded in, and `call` the call of that pass that the row lies in (0 is the first call ever made,
-1 is outside any call). `process` is the operating system's id, null where the source knows only one;
correlation ids and graph nodes mean something only together with it.

Text that repeats (names, kinds, shapes) is dictionary-encoded: a million kernels share a few hundred names.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = (1, 2)
"""(major, minor): a newer minor version still opens, a newer major version is refused."""

PHASES: Final = ("cold", "warm-up", "measured")
PASSES: Final = ("latency", "counters", "activity", "nodes")
AGAIN: Final = " again"
"""What follows a later shape's name (`shape 2`) in the step of its second call."""

_text = pa.string()
_word = pa.dictionary(pa.int32(), pa.string())
_i64 = pa.int64()
_i32 = pa.int32()
_f64 = pa.float64()
_bool = pa.bool_()


def _table(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name.rstrip("_"), kind) for name, kind in columns.items()])


_DEVICE_WORK = {
    "pass_": _word,
    "process": _i64,
    "call": _i32,
    "start_ns": _i64,
    "end_ns": _i64,
    "device": _i32,
    "stream": _i64,
    "correlation": _i64,
    "graph_node": _i64,
}
_HOST_CALL = {"pass_": _word, "process": _i64, "call": _i32, "thread": _i64, "start_ns": _i64, "end_ns": _i64}

TABLES: Final[dict[str, pa.Schema]] = {
    # one row per call of the model; `process` is the worker's process id
    "latency": _table(pass_=_word, process=_i64, call=_i32, phase=_word, start_ns=_i64, duration_ns=_i64),
    # cold start, in order: import, libraries, session, binding, first call
    "steps": _table(pass_=_word, name=_text, start_ns=_i64, duration_ns=_i64),
    # one row per executed node; shapes are JSON lists of {"dtype": [dims]}, as the ORT profiler writes them;
    # `session` counts the profiles that were read together
    "nodes": _table(
        pass_=_word,
        session=_i32,
        call=_i32,
        node_index=_i64,
        name=_word,
        op_type=_word,
        provider=_word,
        thread=_i64,
        start_ns=_i64,
        duration_ns=_i64,
        input_shapes=_word,
        output_shapes=_word,
        activation_bytes=_i64,
        parameter_bytes=_i64,
        output_bytes=_i64,
    ),
    # ORT's own session events: model_run, SequentialExecutor::Execute, …
    "session_events": _table(
        pass_=_word, session=_i32, call=_i32, name=_word, thread=_i64, start_ns=_i64, duration_ns=_i64
    ),
    # `work` (flops and bytes of each node) is derived from `nodes` and graph.onnx by `workbench.analysis.work`
    "kernels": _table(
        **_DEVICE_WORK,
        name=_word,
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
    "copies": _table(**_DEVICE_WORK, kind=_word, bytes=_i64, source=_word, target=_word),
    "memsets": _table(**_DEVICE_WORK, bytes=_i64),
    # host calls into CUDA, runtime and driver: all that put work on a stream or wait for it, and allocations
    "launches": _table(**_HOST_CALL, name=_word, correlation=_i64),
    # kind: event, stream, context, stream_wait_event
    "syncs": _table(
        pass_=_word, process=_i64, call=_i32, start_ns=_i64, end_ns=_i64, kind=_word, stream=_i64, correlation=_i64
    ),
    # code that CUDA brought to the device; kind: module, function (of a module loaded lazily), compiled (from PTX)
    "loads": _table(pass_=_word, process=_i64, call=_i32, start_ns=_i64, end_ns=_i64, kind=_word),
    # one row per replay of a CUDA graph traced as a whole
    "graphs": _table(**_DEVICE_WORK, graph=_i64),
    # one row per node of a CUDA graph when it is made: `time_ns` lies in the host call that made it, `origin` is the
    # node that it was cloned from (an executable graph is a clone of the captured one), null for a captured node
    "graph_nodes": _table(pass_=_word, process=_i64, thread=_i64, time_ns=_i64, graph_node=_i64, origin=_i64),
    # CUDA events recorded on a stream; `time_ns` is null where the source gives only the host call's correlation id
    "cuda_events": _table(
        pass_=_word, process=_i64, call=_i32, time_ns=_i64, device=_i32, stream=_i64, event=_i64, correlation=_i64
    ),
    # the worker's own log of its ranges, which it also pushes to NVTX; or the NVTX ranges of an imported file.
    # kind: push/pop, start/end; `open` ranges were never closed and end with the capture; payload is a number as text
    "ranges": _table(
        pass_=_word,
        process=_i64,
        call=_i32,
        thread=_i64,
        start_ns=_i64,
        end_ns=_i64,
        name=_word,
        domain=_word,
        kind=_word,
        payload=_text,
        open=_bool,
    ),
    # calls into the operating system that Nsight Systems saw: poll, read, pthread_cond_wait, …
    "os_calls": _table(**_HOST_CALL, name=_word),
    # what the profiler said about its own capture
    "diagnostics": _table(pass_=_word, process=_i64, time_ns=_i64, severity=_word, source=_word, text=_text),
    # NVML, sampled from outside the worker, or Nsight's GPU metrics at the same rate; `metric` carries its unit
    "samples": _table(pass_=_word, time_ns=_i64, device=_i32, metric=_word, value=_f64),
    # GPM or Nsight's GPU metrics, each value an average over [time_ns - window_ns, time_ns]
    "counters": _table(pass_=_word, time_ns=_i64, window_ns=_i64, device=_i32, metric=_word, value=_f64),
}
