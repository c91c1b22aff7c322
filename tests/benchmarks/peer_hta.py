"""The same events read by Holistic Trace Analysis (HTA), as a Kineto trace: time, memory, and its idle time.

    cd tests; python -m benchmarks.peer_hta [KERNELS]

HTA counts idle time from the first piece of device work to the last, the time between calls included; the truth that is
printed beside it is for that window. By default HTA cuts times to whole microseconds; with `HTA_DISABLE_NS_ROUNDING=1`
it computes with floating-point microseconds.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.import_subjects import peak_bytes
from benchmarks.synthetic_export import write_export
from benchmarks.synthetic_truth import Truth

_KERNELS = 1_000_000
_DEVICE_TABLES = ("KERNEL", "MEMSET", "MEMCPY")
_COPY_NAMES = {1: "Memcpy HtoD (Pinned -> Device)", 2: "Memcpy DtoH (Device -> Pinned)"}
_EVENTS = """
SELECT 'kernel' AS cat, value AS name, start, end, streamId AS stream, correlationId AS correlation
    FROM CUPTI_ACTIVITY_KIND_KERNEL JOIN StringIds ON id = demangledName
UNION ALL SELECT 'gpu_memset', 'Memset (Device)', start, end, streamId, correlationId FROM CUPTI_ACTIVITY_KIND_MEMSET
UNION ALL SELECT 'gpu_memcpy', copyKind, start, end, streamId, correlationId FROM CUPTI_ACTIVITY_KIND_MEMCPY
UNION ALL SELECT 'cuda_runtime', substr(value, 1, instr(value, '_v') - 1), start, end, NULL, correlationId
    FROM CUPTI_ACTIVITY_KIND_RUNTIME JOIN StringIds ON id = nameId
UNION ALL SELECT iif(value IN ('measure', 'run'), 'user_annotation', 'cpu_op'), value, start, end, NULL, NULL
    FROM NVTX_EVENTS JOIN StringIds ON id = textId
"""


def write_kineto(export: Path, path: Path) -> None:
    """Write the device work, host calls and ranges of an export as PyTorch's profiler would."""
    head = {"schemaVersion": 1, "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 1}}
    with closing(sqlite3.connect(f"{export.as_uri()}?mode=ro", uri=True)) as database, path.open("w") as file:
        file.write(json.dumps(head)[:-1] + ', "traceEvents": [')
        for row, event in enumerate(_events(database)):
            file.write(",\n" if row else "\n")
            file.write(event)
        file.write("\n]}")


def _events(database: sqlite3.Connection) -> Iterator[str]:
    for category, name, start, end, stream, correlation in database.execute(_EVENTS):
        arguments: dict[str, Any] = {} if correlation is None else {"correlation": correlation}
        if stream is not None:
            arguments |= {"device": 0, "stream": stream, "context": 1}
        place = {"pid": 4242, "tid": 4242} if stream is None else {"pid": 0, "tid": stream}
        event = {"ph": "X", "cat": category, "name": _COPY_NAMES.get(name, name), **place, "args": arguments}
        yield f'{json.dumps(event)[:-1]}, "ts": {_microseconds(start)}, "dur": {_microseconds(end - start)}}}'


def _microseconds(time_ns: int) -> str:
    """The exact decimal number of microseconds."""
    return f"{time_ns // 1000}.{time_ns % 1000:03}"


def read_with_hta(trace: Path) -> None:
    """Load the trace with HTA and print its idle time, seconds and peak memory as JSON."""
    from hta.trace_analysis import TraceAnalysis

    begun = time.perf_counter()
    analysis = TraceAnalysis(trace_files={0: str(trace)})
    table = analysis.get_temporal_breakdown(visualize=False)
    seconds = time.perf_counter() - begun
    idle_ns = float(table["idle_time(us)"].iloc[0]) * 1000
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(), "idle_ns": idle_ns}))


def idle_ns(export: Path, truth: Truth) -> int:
    """The true idle time from the first piece of device work to the last."""
    tables = " UNION ALL ".join(f"SELECT start, end FROM CUPTI_ACTIVITY_KIND_{name}" for name in _DEVICE_TABLES)
    with closing(sqlite3.connect(f"{export.as_uri()}?mode=ro", uri=True)) as database:
        (span,) = database.execute(f"SELECT max(end) - min(start) FROM ({tables})").fetchone()
    return span - truth.total["work_ns"] - truth.total["exposed_copy_ns"]


def main(kernels: int) -> None:
    """Write the events, let HTA read them in processes of its own, and print what it found."""
    with tempfile.TemporaryDirectory() as folder:
        export, trace = Path(folder) / "export.sqlite", Path(folder) / "trace.json"
        truth = write_export(export, kernels, seed=1)
        write_kineto(export, trace)
        hta = f"HTA {version('HolisticTraceAnalysis')}"
        print(f"{hta}: {kernels:,} kernels, {truth.nvtx_ranges:,} ranges, {trace.stat().st_size / 1e6:.0f} MB of JSON")
        true_ns = idle_ns(export, truth)
        print(f"{'':26}{'seconds':>9}{'peak MB':>9}{'idle ms':>14}{'off by':>9}")
        print(f"{'truth':26}{'':9}{'':9}{true_ns / 1e6:14.6f}")
        for name, rounding in (("HTA, whole microseconds", "0"), ("HTA, without its rounding", "1")):
            ended = subprocess.run(
                [sys.executable, "-m", "benchmarks.peer_hta", "--read", str(trace)],
                env={**os.environ, "HTA_DISABLE_NS_ROUNDING": rounding},
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True,
            )  # fmt: skip
            found = json.loads(ended.stdout.splitlines()[-1])
            numbers = f"{found['seconds']:9.1f}{found['peak_bytes'] / 1e6:9.0f}{found['idle_ns'] / 1e6:14.6f}"
            print(f"{name:26}{numbers}{found['idle_ns'] / true_ns - 1:9.2%}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--read"]:
        read_with_hta(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else _KERNELS)
