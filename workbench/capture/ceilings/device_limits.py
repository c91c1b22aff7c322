"""Limits of a CUDA device below ONNX Runtime: copies, arithmetic units, launches, the shortest kernel."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from workbench.capture.ceilings import ptx
from workbench.capture.ceilings.driver import CudaDevice
from workbench.capture.ceilings.timing import Call, durations_ns, wall_ns
from workbench.errors import SourceError

DEVICE_COPY_BYTES: Final = 1 << 30  # many times any last-level cache
HOST_COPY_BYTES: Final = 256 << 20
BLOCKS_PER_SM: Final = 8
THREADS_PER_BLOCK: Final = 256  # 8 × 256 threads fill a multiprocessor
LAUNCH_BATCH: Final = 200  # well below the thousand or so at which a full queue makes the host wait
GRAPH_KERNELS: Final = 500
CUPTI_BUFFER_BYTES: Final = 1 << 20  # NVIDIA recommends one megabyte or more


def device_copy_bytes_per_s(device: CudaDevice) -> float:
    """Device memory bandwidth in bytes per second, read plus written, of a 1 GiB copy; best copy, by events."""
    with device.memory(DEVICE_COPY_BYTES) as source, device.memory(DEVICE_COPY_BYTES) as target:
        copy = partial(device.enqueue_copy, target, source, DEVICE_COPY_BYTES)
        return 2 * DEVICE_COPY_BYTES * 1e9 / float(durations_ns(copy, timer=device.event_ns).min())


def _host_copies_ns(device: CudaDevice, host: int) -> npt.NDArray[np.int64]:
    """Wall times of copies between address `host` and the device, shape (rounds, 2): to the device, to the host."""
    with device.memory(HOST_COPY_BYTES) as memory:
        return durations_ns(
            lambda: device.copy_to_device(memory, host, HOST_COPY_BYTES),
            lambda: device.copy_to_host(host, memory, HOST_COPY_BYTES),
        )


def pageable_copies_bytes_per_s(device: CudaDevice) -> dict[str, float]:
    """Median bandwidth of 256 MiB copies between device and ordinary host memory whose pages are in place.

    The median, because such a copy passes through the driver's staging buffers and the host's memcpy,
    and models meet its usual speed, not its best.
    """
    host = np.ones(HOST_COPY_BYTES, np.uint8)
    to_device, to_host = np.median(_host_copies_ns(device, host.ctypes.data), axis=0)
    return {
        "h2d_pageable_bytes_per_s": HOST_COPY_BYTES * 1e9 / float(to_device),
        "d2h_pageable_bytes_per_s": HOST_COPY_BYTES * 1e9 / float(to_host),
    }


def pinned_copies_bytes_per_s(device: CudaDevice) -> dict[str, float]:
    """Best bandwidth of 256 MiB copies between device and page-locked host memory."""
    with device.pinned_memory(HOST_COPY_BYTES) as host:
        to_device, to_host = _host_copies_ns(device, host).min(axis=0)
    return {
        "h2d_pinned_bytes_per_s": HOST_COPY_BYTES * 1e9 / float(to_device),
        "d2h_pinned_bytes_per_s": HOST_COPY_BYTES * 1e9 / float(to_host),
    }


def _operations_per_s(device: CudaDevice, kernel_name: str) -> float:
    blocks = BLOCKS_PER_SM * device.sm_count
    threads = blocks * THREADS_PER_BLOCK
    with device.memory(4 * threads) as sums, device.kernels(ptx.module_text(), kernel_name) as (kernel,):
        launch = device.launcher(kernel, blocks=blocks, threads=THREADS_PER_BLOCK, address=sums)
        best_ns = float(durations_ns(launch, timer=device.event_ns).min())
    return ptx.operations_per_thread(kernel_name) * threads * 1e9 / best_ns


def exponentials_per_s(device: CudaDevice) -> float:
    """Evaluations per second of `ex2.approx.ftz.f32`, the special-function unit's exponential; best launch."""
    return _operations_per_s(device, "ex2")


def fma_flops_per_s(device: CudaDevice) -> float:
    """Flops per second of `fma.rn.f32` outside the tensor cores, 2 flops each; best launch."""
    return 2 * _operations_per_s(device, "fma")


def launch_ns(device: CudaDevice) -> float:
    """Host time of one launch of an empty kernel in nanoseconds, median over batches.

    An upper bound: the Python binding's own time is part of it.
    """

    def host_ns(batch: Call) -> int:
        duration_ns = wall_ns(batch)
        device.synchronize()
        return duration_ns

    with device.kernels(ptx.module_text(), "empty") as (kernel,):
        batch = partial(device.launcher(kernel), LAUNCH_BATCH)
        return float(np.median(durations_ns(batch, timer=host_ns))) / LAUNCH_BATCH


def replayed_kernel_ns(device: CudaDevice) -> float:
    """Device time per kernel in nanoseconds of a replayed CUDA graph of 500 empty kernels in a row; median, by events.

    It is the duration of an empty kernel plus the gap between two kernels of a graph.
    """
    with device.kernels(ptx.module_text(), "empty") as (kernel,):
        launch = device.launcher(kernel)
        launch()  # the driver may load a kernel at its first launch, which a capture does not allow
        device.synchronize()
        with device.graph(partial(launch, GRAPH_KERNELS)) as replay:
            return float(np.median(durations_ns(replay, timer=device.event_ns))) / GRAPH_KERNELS


def traced_kernel_ns(device: CudaDevice) -> float:
    """Duration of an empty kernel in nanoseconds as CUPTI records it, median of 500.

    Measure it last: CUPTI stays attached to the process. Raises `ImportError` without cupti-python,
    CUPTI's own error where it refuses, and `SourceError` where it delivers no record.
    """
    from cupti import cupti

    kind = int(cupti.ActivityKind.CONCURRENT_KERNEL)
    durations: list[int] = []

    def completed(records: Iterable[Any]) -> None:  # the records live as long as their buffer, that is this call
        durations.extend(record.end - record.start for record in records if int(record.kind) == kind)

    with device.kernels(ptx.module_text(), "empty") as (kernel,):
        launch = device.launcher(kernel)
        cupti.activity_register_callbacks(lambda: (CUPTI_BUFFER_BYTES, 0), completed)
        cupti.activity_enable(kind)
        try:
            launch(GRAPH_KERNELS)
            device.synchronize()
            cupti.activity_flush_all(1)
        finally:
            cupti.activity_disable(kind)
    if not durations:
        raise SourceError("CUPTI delivered no kernel records: end other profilers of this GPU and measure again.")
    return float(np.median(durations))
