"""Measured limits of a device: what its arithmetic units, memory, copies and launches reach at best.

They are measured once per device, driver and ONNX Runtime version and kept in the user's cache.
`measure_in_process` and `python -m workbench.capture.ceilings` do so in a process of their own.
"""

from __future__ import annotations

from functools import partial

import onnxruntime as ort

from workbench.capture.ceilings import cache, device_limits, ort_chains
from workbench.capture.ceilings.child import measure_in_process
from workbench.capture.ceilings.collect import Collector, Progress
from workbench.capture.ceilings.data_sheet import bands_of, held_against
from workbench.capture.ceilings.driver import CudaDevice
from workbench.capture.ceilings.ort_chains import Backend, Kind
from workbench.capture.machine import describe_device
from workbench.errors import ConfigError
from workbench.runs.manifest import Ceilings

__all__ = ["load_or_measure", "measure", "measure_in_process"]


def measure(
    kind: Kind, *, device_id: int = 0, threads: int | None = None, progress: Progress | None = None
) -> Ceilings:
    """Measure the limits of CUDA device `device_id`, or of the CPU with `threads` intra-op threads.

    About 15 s for a GPU and 4 s for a CPU. A limit that cannot be measured is None, or missing from
    `flops_per_s`, and `notes` say why; so is one that the GPU's own description rules out, and what is
    far below that description is noted (`data_sheet`). `progress` is called with the name of each
    measurement before it starts. `threads` None leaves the number to ONNX Runtime, and does not matter
    for a GPU.

    Raises `ConfigError` for an impossible argument or a device that is not there, `NoDriverError` where
    a GPU is asked for and no driver answers, and `SourceError` where the CUDA device cannot be opened.
    """
    backend = _backend(kind, device_id, threads)
    key = cache.key_of(backend)
    collector = Collector(progress)
    if kind == "cuda":
        with CudaDevice(device_id) as device:
            _measure_cuda(collector, backend, device)
        return held_against(collector.ceilings(key), bands_of(describe_device(kind, device_id), device_id))
    _measure_cpu(collector, backend)  # a CPU says too little of itself to hold its limits against
    return collector.ceilings(key)


def load_or_measure(
    kind: Kind,
    *,
    device_id: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    refresh: bool = False,
) -> Ceilings:
    """The ceilings from the user's cache, or measured and kept there if they are missing, unreadable or `refresh`.

    What failed to be measured is kept as well; `refresh` tries it again. Arguments and errors are those
    of `measure`. A cache that cannot be written is told in `notes`.
    """
    key = cache.key_of(_backend(kind, device_id, threads))
    known = None if refresh else cache.load(key)
    if known is not None:
        return known
    ceilings = measure(kind, device_id=device_id, threads=threads, progress=progress)
    try:
        cache.store(ceilings, cache.path_of(key))
    except OSError as error:
        note = f"These ceilings could not be kept for the next time ({error}): point WORKBENCH_CACHE at a folder."
        return ceilings.model_copy(update={"notes": [*ceilings.notes, note]})
    return ceilings


def _backend(kind: Kind, device_id: int, threads: int | None) -> Backend:
    if kind not in ("cuda", "cpu"):
        raise ConfigError(f"Ceilings of {kind!r} cannot be measured: choose 'cuda' or 'cpu'.")
    if device_id < 0 or (threads is not None and threads < 1):
        raise ConfigError(f"device_id {device_id} and threads {threads} do not fit: use 0 or more, and 1 or more.")
    return Backend(kind, device_id, threads)


def _measure_cuda(collector: Collector, backend: Backend, device: CudaDevice) -> None:
    ort.preload_dlls()
    products = [
        ("tensor:float16", "float16 MatMul 8192³", "float16", 8192, "1"),
        ("tensor:bfloat16", "bfloat16 MatMul 8192³", "bfloat16", 8192, "1"),
        ("tensor:tf32", "TF32 MatMul 8192³", "float32", 8192, "1"),
        ("tensor:float32", "float32 MatMul 4096³ without TF32", "float32", 4096, "0"),
    ]
    if device.compute_capability < (8, 0):  # there ONNX Runtime would take other units in silence
        products = [row for row in products if row[0] not in ("tensor:bfloat16", "tensor:tf32")]
        collector.notes.append("Not measured: bfloat16 and TF32, which need compute capability 8.0 or newer.")
    for name, what, dtype, side, use_tf32 in products:
        rate = partial(ort_chains.matmul_flops_per_s, backend, dtype, side, cuda_options={"use_tf32": use_tf32})
        found = collector.measure(name, what, rate)
        if name == "tensor:float32":  # without TF32 the units of everything else do it
            collector.keep("fp:float32", found, what)
    collector.measure("node_overhead_ns", "ONNX Runtime's cost per node", partial(ort_chains.node_overhead_ns, backend))

    for name, what, limit in (
        ("fp:float32", "fma.rn.f32", device_limits.fma_flops_per_s),
        ("special:float32", "ex2.approx.f32", device_limits.exponentials_per_s),
        ("memory_bytes_per_s", "device-to-device copy", device_limits.device_copy_bytes_per_s),
        ("launch_ns", "launch of an empty kernel", device_limits.launch_ns),
    ):
        collector.measure(name, what, partial(limit, device))
    for what, copies in (
        ("pageable copies", device_limits.pageable_copies_bytes_per_s),
        ("pinned copies", device_limits.pinned_copies_bytes_per_s),
    ):
        for name, value in (collector.attempt(what, partial(copies, device)) or {}).items():
            collector.keep(name, value, what)
    _measure_empty_kernels(collector, device)


def _measure_empty_kernels(collector: Collector, device: CudaDevice) -> None:
    """Shortest kernel and replay gap; without CUPTI the two cannot be told apart, only their sum is known."""
    replayed = collector.attempt("replay of a graph", partial(device_limits.replayed_kernel_ns, device))
    shortest = collector.attempt("empty kernel under CUPTI", partial(device_limits.traced_kernel_ns, device))
    if shortest is None and replayed is not None:
        collector.keep("shortest_kernel_ns", replayed, "replay of a graph")
        collector.notes.append(
            "shortest_kernel_ns is an upper bound, since it comes from a replayed graph and includes the replay gap."
        )
    elif shortest is not None:
        collector.keep("shortest_kernel_ns", shortest, "empty kernel under CUPTI")
        if replayed is not None:
            collector.keep("replay_gap_ns", replayed - shortest, "gap between the kernels of a replayed graph")


def _measure_cpu(collector: Collector, backend: Backend) -> None:
    # a core has the same vector units for matrix products and for everything else
    matmul = collector.measure(
        "tensor:float32", "float32 MatMul 1024³", partial(ort_chains.matmul_flops_per_s, backend, "float32", 1024)
    )
    collector.keep("fp:float32", matmul, "float32 MatMul 1024³")
    collector.measure("special:float32", "Exp in cache", partial(ort_chains.exp_per_s, backend))
    collector.measure("memory_bytes_per_s", "Neg over 256 MiB", partial(ort_chains.neg_bytes_per_s, backend))
    collector.measure("node_overhead_ns", "ONNX Runtime's cost per node", partial(ort_chains.node_overhead_ns, backend))
