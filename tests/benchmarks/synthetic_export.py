"""Writes a Nsight Systems SQLite export of made-up model calls, and beside it what a reader must find in it.

    cd tests; python -m benchmarks.synthetic_export FILE.sqlite KERNELS [SEED]

The same arguments give the same rows. Blocks of calls are laid out and written one after another, so memory does not
grow with the number of kernels.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from benchmarks.synthetic_tables import (
    API_NAMES,
    CONSTANT_COLUMNS,
    FIRST_KERNEL_ID,
    FIRST_LAYER_ID,
    FIRST_OP_ID,
    SHORT_IDS,
    create,
    string_id,
)
from benchmarks.synthetic_timeline import D2H, H2D, KERNEL, MEMSET, Int64, Timeline, timeline
from benchmarks.synthetic_truth import Truth, truth_path

CALLS_PER_BLOCK = 100
KERNELS_PER_CALL = (300, 1000)
_FIRST_CALL_NS = 2_000_000_000
_BANDWIDTH = 25  # bytes per nanosecond of a copy between pinned memory and the device
_PINNED, _DEVICE = 1, 2


def write_export(path: Path, kernels: int, seed: int, *, kernels_per_call: tuple[int, int] = KERNELS_PER_CALL) -> Truth:
    """Write the export and its truth (`truth_path`); the calls hold `kernels` kernels in all. Returns the truth."""
    path.unlink(missing_ok=True)
    truth = Truth()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        create(database)
        database.execute("BEGIN")
        begin_ns, correlation = _FIRST_CALL_NS, 1_000
        # exports list ranges by start, and the outermost ends last: it is put into the row that is kept for it
        database.execute("INSERT INTO NVTX_EVENTS (rowid, start, eventType) VALUES (1, 0, 59)")
        for block, sizes in enumerate(_blocks(kernels, kernels_per_call, seed)):
            part = timeline(np.random.default_rng([seed, block]), sizes, begin_ns)
            correlation = _write(database, part, correlation, truth)
            truth.add(part)
            begin_ns = part.end_ns
        database.execute("DELETE FROM NVTX_EVENTS WHERE rowid = 1")
        measure = {"start": _FIRST_CALL_NS - 50_000, "end": begin_ns, "textId": string_id("measure"), "rowid": 1}
        _insert(database, "NVTX_EVENTS", {name: np.array([value]) for name, value in measure.items()})
        database.execute(
            "INSERT INTO ANALYSIS_DETAILS VALUES (?, ?, 0, ?)", (1 << 48, begin_ns + 10**9, begin_ns + 10**9)
        )
        database.execute("COMMIT")
    truth.ranges["measure"] = {"count": 1, "kernels": 0, "kernel_ns": 0, "own_ns": 0}
    truth.write(truth_path(path))
    return truth


def _blocks(kernels: int, kernels_per_call: tuple[int, int], seed: int) -> Iterator[Int64]:
    """Kernels of each call, a block of calls at a time."""
    rng = np.random.default_rng(seed)
    while kernels > 0:
        sizes = rng.integers(*kernels_per_call, CALLS_PER_BLOCK, endpoint=True)
        before = np.cumsum(sizes) - sizes
        sizes = np.minimum(sizes, kernels - before)[before < kernels]
        kernels -= int(sizes.sum())
        yield sizes


def _write(database: sqlite3.Connection, part: Timeline, correlation: int, truth: Truth) -> int:
    """Write the rows of some calls; returns the last correlation id given out."""
    pieces = len(part.kind)
    host_start = np.concatenate((part.launch_start, part.syncs.start))
    by_start = np.argsort(host_start)
    ids = np.empty(len(host_start), np.int64)
    skipped = 1 + np.arange(len(ids)) % 3  # host calls that the capture does not hold take ids too
    ids[by_start] = correlation + np.cumsum(skipped)
    api = np.array([string_id(API_NAMES[name]) for name in ("kernel", "memset", "copy", "copy", "sync")])
    host = {
        "start": host_start,
        "end": np.concatenate((part.launch_end, part.syncs.end)),
        "correlationId": ids,
        "nameId": api[np.concatenate((part.kind, np.full(len(part.syncs.start), len(api) - 1)))],
    }
    _insert(database, "CUPTI_ACTIVITY_KIND_RUNTIME", {name: values[by_start] for name, values in host.items()})
    work = {"start": part.start, "end": part.end, "correlationId": ids[:pieces]}
    _insert(database, "CUPTI_ACTIVITY_KIND_KERNEL", _kernels(part, work, truth.kernels))
    _insert(database, "CUPTI_ACTIVITY_KIND_MEMSET", {**_chosen(work, part.kind == MEMSET), "bytes": 25_344})
    copies = (part.kind == H2D) | (part.kind == D2H)
    inward = part.kind[copies] == H2D
    directions = {
        "bytes": (part.end - part.start)[copies] * _BANDWIDTH,
        "copyKind": np.where(inward, 1, 2),
        "srcKind": np.where(inward, _PINNED, _DEVICE),
        "dstKind": np.where(inward, _DEVICE, _PINNED),
    }
    _insert(database, "CUPTI_ACTIVITY_KIND_MEMCPY", {**_chosen(work, copies), **directions})
    syncs = {"start": part.syncs.start + 200, "end": part.syncs.end - 100, "correlationId": ids[pieces:]}
    _insert(database, "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION", syncs)
    _insert(database, "NVTX_EVENTS", _ranges(part, len(truth.call_starts_ns)))
    return int(ids.max())


def _kernels(part: Timeline, work: Mapping[str, Int64], before: int) -> dict[str, Int64]:
    kernels = part.kind == KERNEL
    name = part.kernel[kernels]
    made = np.arange(before, before + len(name))
    return {
        **_chosen(work, kernels),
        "demangledName": FIRST_KERNEL_ID + name,
        "shortName": SHORT_IDS[name],
        "mangledName": FIRST_KERNEL_ID + name,
        "registersPerThread": 32 + name % 8 * 24,
        "gridX": 1 + name * 7 % 61 * (1 + made % 4),
        "gridY": 1 + name % 3,
        "blockX": 64 << name % 4,
        "dynamicSharedMemory": name % 5 * 16_384,
        "gridId": made,
    }


def _ranges(part: Timeline, calls_before: int) -> dict[str, Int64]:
    levels = ((part.calls, string_id("run")), (part.layers, FIRST_LAYER_ID), (part.ops, FIRST_OP_ID))
    start = np.concatenate([spans.start for spans, _ in levels])
    by_start = np.argsort(start)
    payload = np.full(len(start), None, object)
    calls = len(part.calls.start)
    payload[:calls] = np.arange(calls_before, calls_before + calls)
    columns = {
        "start": start,
        "end": np.concatenate([spans.end for spans, _ in levels]),
        "textId": np.concatenate([first + spans.id for spans, first in levels]),
        "int64Value": payload,
    }
    return {name: values[by_start] for name, values in columns.items()}


def _chosen(columns: Mapping[str, Int64], rows: Int64) -> dict[str, Int64]:
    """Some rows, by start: the streams of a kind of work are in order, two copies on two engines need not be."""
    found = {name: values[rows] for name, values in columns.items()}
    order = np.argsort(found["start"], kind="stable")
    return {name: values[order] for name, values in found.items()}


def _insert(database: sqlite3.Connection, table: str, columns: Mapping[str, Int64 | int]) -> None:
    """Append rows; columns that are the same in every row are written into the statement, which is quicker."""
    varying = {name: values.tolist() for name, values in columns.items() if isinstance(values, np.ndarray)}
    constant = {**CONSTANT_COLUMNS[table], **{name: value for name, value in columns.items() if name not in varying}}
    written = ", ".join(["?"] * len(varying) + ["NULL" if value is None else str(value) for value in constant.values()])
    names = ", ".join((*varying, *constant))
    database.executemany(f"INSERT INTO {table} ({names}) VALUES ({written})", zip(*varying.values(), strict=True))


if __name__ == "__main__":
    write_export(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
