"""A made-up timeline of model calls: host calls, device work and nested ranges, in integer nanoseconds, by NumPy.

The host pushes ranges and launches; the compute stream and the copy stream each take their work in order, a piece
beginning when it has arrived and the one before it has ended. A synchronisation drains both streams, so what lies
between two of them (a segment) has a timeline of its own, which is laid out for all segments at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from benchmarks.synthetic_tables import KERNEL_NAMES, LAYERS, PARTS, VARIANTS
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

KERNEL, MEMSET, H2D, D2H = range(4)
# Chances for each kernel, so that a million of them lie in a third of a million ranges.
_NEW_OP, _NEW_LAYER, _SYNC_BEFORE_OP = 0.292, 1 / 9, 1 / 100
_MEMSETS, _PREFETCHES, _STALLS, _OVERLAPS = 0.005, 0.003, 0.01, 0.02
# How far ranges reach beyond the launches in them: less than the shortest time between two launches.
_BETWEEN_LAUNCHES_NS = 900
_OP_OPENS_NS, _LAYER_OPENS_NS, _RUN_OPENS_NS = 300, 450, 600
_OP_CLOSES_NS, _LAYER_CLOSES_NS, _RUN_CLOSES_NS = 120, 250, 300
_BEFORE_SYNC_NS, _AFTER_SYNC_NS = 700, 1000
_KERNEL_NS = np.random.default_rng(7).permutation(np.geomspace(1_000, 20_000, len(KERNEL_NAMES)).astype(np.int64))
_APART_NS = 1 << 40  # more than any segment lasts


class Spans(NamedTuple):
    """Intervals by start, each with the call that it lies in and an id: of a layer, an op, or none."""

    start: Int64
    end: Int64
    call: Int64
    id: Int64


class Timeline(NamedTuple):
    """Some calls, in order.

    kind, launch_start, launch_end, start, end, call, op, kernel: int64[n], one entry for each piece of device work in
    the order of their launches; `op` and `kernel` are positions in `OP_NAMES` and `KERNEL_NAMES`. end_ns: when the host
    is free again.
    """

    kind: Int64
    launch_start: Int64
    launch_end: Int64
    start: Int64
    end: Int64
    call: Int64
    op: Int64
    kernel: Int64
    calls: Spans
    layers: Spans
    ops: Spans
    syncs: Spans
    end_ns: int


def timeline(rng: np.random.Generator, kernels: Int64, begin_ns: int) -> Timeline:
    """Lay out calls of so many kernels each, the first not before `begin_ns`."""
    kind, call = _pieces(rng, kernels)
    count = len(kind)
    first = _changes(call)
    op_first = first | (rng.random(count) < _NEW_OP)
    layer_first = first | (op_first & (rng.random(count) < _NEW_LAYER))
    segment_first = first | (op_first & (rng.random(count) < _SYNC_BEFORE_OP))
    segment, segment_starts = np.cumsum(segment_first) - 1, np.flatnonzero(segment_first)
    op_row, layer_row = np.cumsum(op_first) - 1, np.cumsum(layer_first) - 1
    layer_id = (layer_row - layer_row[first][call]) % LAYERS
    part = (op_row - op_row[layer_first][layer_row]) % PARTS
    kernel = part * VARIANTS + rng.integers(0, VARIANTS, count)

    stall = np.where(rng.random(count) < _STALLS, rng.integers(10_000, 150_000, count), 0)
    pause = _BETWEEN_LAUNCHES_NS + rng.integers(0, 2_500, count) + stall
    length = np.where(kind == KERNEL, rng.integers(1_800, 4_500, count), rng.integers(3_000, 9_000, count))
    free = np.cumsum(pause + length)
    launch_end = free - np.concatenate(([0], free))[segment_starts][segment]
    launch_start = launch_end - length
    duration = _durations(rng, kind, kernel, rng.integers(20, 140, len(kernels))[call])
    start = _device_starts(rng, kind, launch_start, duration, segment)
    end = start + duration

    sync_start = launch_end[np.append(segment_starts[1:] - 1, count - 1)] + _BEFORE_SYNC_NS
    drained = np.maximum(np.maximum.reduceat(end, segment_starts), sync_start)
    sync_end = drained + rng.integers(2_000, 6_000, len(drained))
    between_calls = np.append(first[segment_starts][1:], [True]) * rng.integers(20_000, 200_000, len(drained))
    begins = begin_ns + np.concatenate(([0], np.cumsum(sync_end + _AFTER_SYNC_NS + between_calls)))
    shift = begins[segment]
    launch_start, launch_end, start, end = (times + shift for times in (launch_start, launch_end, start, end))
    sync_call = call[segment_starts]
    syncs = Spans(sync_start + begins[:-1], sync_end + begins[:-1], sync_call, np.zeros_like(sync_call))

    def around(opens: NDArray[np.bool_], ids: Int64, before: int, after: int) -> Spans:
        rows = np.flatnonzero(opens)
        last = np.append(rows[1:] - 1, count - 1)
        return Spans(launch_start[rows] - before, launch_end[last] + after, call[rows], ids[rows])

    op = layer_id * PARTS + part
    run_end = syncs.end[np.append(np.flatnonzero(_changes(sync_call))[1:] - 1, len(sync_call) - 1)] + _RUN_CLOSES_NS
    return Timeline(
        kind, launch_start, launch_end, start, end, call, op, kernel,
        calls=around(first, np.zeros_like(call), _RUN_OPENS_NS, 0)._replace(end=run_end),
        layers=around(layer_first, layer_id, _LAYER_OPENS_NS, _LAYER_CLOSES_NS),
        ops=around(op_first, op, _OP_OPENS_NS, _OP_CLOSES_NS),
        syncs=syncs,
        end_ns=int(begins[-1]),
    )  # fmt: skip


def _pieces(rng: np.random.Generator, kernels: Int64) -> tuple[Int64, Int64]:
    """Kind and call of each piece of work: inputs first, outputs last, memsets and prefetches anywhere between."""
    calls = len(kernels)
    first, between, last = 0, 1, 2
    groups = (
        (H2D, first, rng.integers(1, 4, calls)),
        (KERNEL, between, kernels),
        (MEMSET, between, rng.binomial(kernels, _MEMSETS)),
        (H2D, between, rng.binomial(kernels, _PREFETCHES)),
        (D2H, last, rng.integers(1, 3, calls)),
    )
    kind, part = (np.concatenate([np.full(count.sum(), group[i]) for *group, count in groups]) for i in (0, 1))
    call = np.concatenate([np.repeat(np.arange(calls), count) for *_, count in groups])
    order = np.lexsort((rng.random(len(call)), part, call))
    return kind[order], call[order]


def _durations(rng: np.random.Generator, kind: Int64, kernel: Int64, per_cent: Int64) -> Int64:
    """Nanoseconds of each piece; kernels of one call are all slower or all quicker than their name says."""
    count = len(kind)
    scattered = _KERNEL_NS[kernel] * per_cent // 100 * rng.integers(90, 111, count) // 100
    others = {MEMSET: (700, 1_600), H2D: (4_000, 120_000), D2H: (2_000, 60_000)}
    return np.select(
        [kind == each for each in others],
        [rng.integers(low, high, count) for low, high in others.values()],
        scattered,
    )


def _device_starts(
    rng: np.random.Generator, kind: Int64, launch_start: Int64, duration: Int64, segment: Int64
) -> Int64:
    """When each piece begins on its stream; a few kernels begin before the one before them has ended."""
    arrival = launch_start + rng.integers(3_500, 7_000, len(kind))
    gap = rng.integers(300, 1_300, len(kind))
    before = np.concatenate(([0], np.where(kind == KERNEL, duration, 0)[:-1]))
    early = (kind == KERNEL) & (before > 0) & (rng.random(len(kind)) < _OVERLAPS)
    gap = np.where(early, -(before * rng.integers(1, 50, len(kind)) // 100), gap)
    start = np.empty_like(arrival)
    for stream in (kind <= MEMSET, kind > MEMSET):
        rows = np.flatnonzero(stream)
        start[rows] = _in_order(arrival[rows], gap[rows], duration[rows], segment[rows])
    return start


def _in_order(arrival: Int64, gap: Int64, duration: Int64, segment: Int64) -> Int64:
    """start[i] = max(arrival[i], end[i - 1] + gap[i]) within a segment, as one running maximum.

    With S the running sum of gap + duration, end[i] - S[i] = max over j <= i of arrival[j] + duration[j] - S[j].
    """
    total = np.cumsum(gap + duration)
    lift = segment * _APART_NS
    latest = np.maximum.accumulate(arrival + duration - total + lift) - lift
    return latest + total - duration


def _changes(values: Int64) -> NDArray[np.bool_]:
    return np.append([True], values[1:] != values[:-1])
