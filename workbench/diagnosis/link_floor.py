"""What the copies between host and device need at least, from the bytes that a call takes in and gives back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import onnx

from workbench.analysis.tables import Tables
from workbench.analysis.work.shapes import dense_bytes, tensor_of
from workbench.diagnosis.device_load import link_bytes
from workbench.diagnosis.static_nodes import output_shapes
from workbench.runs.manifest import LatencyInfo, Manifest, ModelInfo


class LinkFloor(NamedTuple):
    """Times of one call's copies: at the rate of the binding's buffers, at the link's full rate, and with the link in
    use, which NVML counts as running: staged pageable copies use it in bursts at full rate.

    known: whether the bytes, and a rate for them, are.
    """

    slow_ns: float
    fast_ns: float
    active_ns: float
    known: bool = True


def link_floor(run: Tables, manifest: Manifest, latency: LatencyInfo, model: onnx.ModelProto | None) -> LinkFloor:
    """The floor of the copies that the binding makes: bytes in / rate + bytes out / rate.

    Bytes are those of feeds and outputs. Where an output's shape is open, and with inputs and outputs on the device,
    NVML's counters give them; those hold packet headers and the commands that start kernels too (on an H200 8 % more
    than the data, and 1.7 kB a kernel), which is why known sizes come first.
    """
    ceilings = manifest.ceilings
    binding = manifest.config.get("binding", "numpy")
    counted = link_bytes(run, latency.median_ns, ceilings)
    fed: float | None = 0.0
    given: float | None = 0.0
    if binding != "device":
        fed, given = fed_bytes(manifest.model), given_bytes(manifest.model, model)
    elif counted is not None:
        fed, given = counted.received, counted.sent
    if counted is not None:
        fed, given = (counted.received if fed is None else fed), (counted.sent if given is None else given)
    fast = _time_ns(fed, ceilings.h2d_pinned_bytes_per_s), _time_ns(given, ceilings.d2h_pinned_bytes_per_s)
    slow = fast
    if binding == "numpy":
        slow = _time_ns(fed, ceilings.h2d_pageable_bytes_per_s), _time_ns(given, ceilings.d2h_pageable_bytes_per_s)
    known = None not in (*slow, *fast)
    shortest, longest = _sum(fast), _sum(slow)
    return LinkFloor(max(longest, shortest), shortest, shortest, known)


def fed_bytes(model: ModelInfo) -> float | None:
    """Bytes of all feeds; None where a size is not known."""
    return _total((model.feed_dtypes.get(name, ""), shape) for name, shape in model.feed_shapes.items())


def given_bytes(model: ModelInfo, graph: onnx.ModelProto | None) -> float | None:
    """Bytes of all outputs; None where a shape stays open.

    Shapes come from the graph where there is one, else from the declared dimensions, their names taken from the feeds.
    A declared scalar counts only with a graph: a shape that is not declared reads the same.
    """
    if graph is not None:
        known = output_shapes(graph, model.feed_shapes)
        return _total(known.get(output.name, ("", [])) for output in model.outputs)
    sizes = {
        dim: size
        for value in model.inputs
        for dim, size in zip(value.shape, model.feed_shapes.get(value.name, []), strict=False)
        if isinstance(dim, str)
    }
    shapes = [(output.type, [_size(dim, sizes) for dim in output.shape]) for output in model.outputs]
    if any(not shape or None in shape for _, shape in shapes):
        return None
    return _total((kind, [size for size in shape if size is not None]) for kind, shape in shapes)


def _size(dim: int | str | None, sizes: dict[str, int]) -> int | None:
    if isinstance(dim, str):
        return sizes.get(dim)
    return dim


def _total(tensors: Iterable[tuple[str, list[int]]]) -> float | None:
    try:
        return float(sum(dense_bytes(tensor_of(kind, ()).dtype, math.prod(shape)) for kind, shape in tensors))
    except LookupError:
        return None


def _time_ns(size_bytes: float | None, bytes_per_s: float | None) -> float | None:
    if size_bytes == 0:
        return 0.0
    return None if size_bytes is None or not bytes_per_s else size_bytes / bytes_per_s * 1e9


def _sum(times: tuple[float | None, float | None]) -> float:
    return sum(time for time in times if time is not None)
