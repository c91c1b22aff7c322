"""One CUDA device through the CUDA driver: memory, kernels, graphs, and time by events.

Every return code is checked. The device's primary context is used, the one that ONNX Runtime uses too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from workbench.errors import ConfigError, NoDriverError, SourceError


def _bindings() -> Any:
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise SourceError(
            f"The CUDA driver cannot be called because cuda-bindings is missing ({error}): install ort-workbench[gpu]."
        ) from error
    return driver


def call(function: Callable[..., tuple[Any, ...]], *arguments: object) -> Any:
    """Call a function of `cuda.bindings.driver` and return its value, or None where it has none.

    Raises `SourceError` with the driver's own name for the error.
    """
    status, *values = function(*arguments)
    check(status, function.__name__)
    return values[0] if values else None


def check(status: Any, name: str) -> None:
    """Raise `SourceError` unless `status`, a `CUresult` that function `name` returned, means success."""
    if int(status) != 0:
        raise SourceError(
            f"CUDA refused {name} with {getattr(status, 'name', status)}: "
            "end other programs that use the GPU and measure again."
        )


class CudaDevice:
    """CUDA device `device_id`, its primary context made current for the calling thread while it is entered.

    Its properties can be read without entering it, that is without a context. Raises `NoDriverError`
    where no driver can be loaded or it sees no device, `ConfigError` for a device that does not exist,
    and `SourceError` where cuda-bindings is missing or refuses.
    """

    def __init__(self, device_id: int) -> None:
        self.cu = _bindings()
        try:
            call(self.cu.cuInit, 0)
        except (RuntimeError, SourceError) as error:  # the bindings load the driver at their first call
            raise NoDriverError(
                f"CUDA offers no device ({error}): install the NVIDIA driver and check CUDA_VISIBLE_DEVICES."
            ) from error
        visible = call(self.cu.cuDeviceGetCount)
        if device_id >= visible:
            raise ConfigError(f"There is no CUDA device {device_id}: {visible} can be seen, counted from 0.")
        self._handle = call(self.cu.cuDeviceGet, device_id)
        self._stream: Any = None

    @property
    def name(self) -> str:
        """The name the driver gives the device, such as `NVIDIA H200`."""
        raw: bytes = call(self.cu.cuDeviceGetName, 256, self._handle)
        return raw.split(b"\0", 1)[0].decode()

    @property
    def compute_capability(self) -> tuple[int, int]:
        """(major, minor)."""
        return self._attribute("COMPUTE_CAPABILITY_MAJOR"), self._attribute("COMPUTE_CAPABILITY_MINOR")

    @property
    def sm_count(self) -> int:
        """Number of streaming multiprocessors."""
        return self._attribute("MULTIPROCESSOR_COUNT")

    def _attribute(self, name: str) -> int:
        attribute = getattr(self.cu.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
        return int(call(self.cu.cuDeviceGetAttribute, attribute, self._handle))

    def __enter__(self) -> Self:
        context = call(self.cu.cuDevicePrimaryCtxRetain, self._handle)
        try:
            call(self.cu.cuCtxSetCurrent, context)
            self._stream = call(self.cu.cuStreamCreate, int(self.cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
        except BaseException:
            call(self.cu.cuDevicePrimaryCtxRelease, self._handle)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cu.cuStreamDestroy(self._stream)  # unchecked, as the release is: neither may hide the error under way
        self.cu.cuDevicePrimaryCtxRelease(self._handle)

    @contextmanager
    def memory(self, size_bytes: int) -> Iterator[int]:
        """Address of `size_bytes` of device memory, whose bytes are set to 1."""
        pointer = call(self.cu.cuMemAlloc, size_bytes)
        try:
            call(self.cu.cuMemsetD8Async, pointer, 1, size_bytes, self._stream)
            self.synchronize()
            yield int(pointer)
        finally:
            self.cu.cuMemFree(pointer)

    @contextmanager
    def pinned_memory(self, size_bytes: int) -> Iterator[int]:
        """Address of `size_bytes` of page-locked host memory, whose bytes are set to 1."""
        pointer = int(call(self.cu.cuMemHostAlloc, size_bytes, 0))
        try:
            ctypes.memset(pointer, 1, size_bytes)
            yield pointer
        finally:
            self.cu.cuMemFreeHost(pointer)

    def copy_to_device(self, device: int, host: int, size_bytes: int) -> None:
        """Copy from host address to device address, and wait."""
        call(self.cu.cuMemcpyHtoD, device, host, size_bytes)

    def copy_to_host(self, host: int, device: int, size_bytes: int) -> None:
        """Copy from device address to host address, and wait."""
        call(self.cu.cuMemcpyDtoH, host, device, size_bytes)

    def enqueue_copy(self, target: int, source: int, size_bytes: int) -> None:
        """Put a copy from one device address to another on the stream."""
        call(self.cu.cuMemcpyDtoDAsync, target, source, size_bytes, self._stream)

    @contextmanager
    def kernels(self, ptx: str, *names: str) -> Iterator[list[Any]]:
        """The named kernels of a PTX module, compiled by the driver for this device."""
        module = call(self.cu.cuModuleLoadData, ptx.encode() + b"\0")
        try:
            yield [call(self.cu.cuModuleGetFunction, module, name.encode()) for name in names]
        finally:
            self.cu.cuModuleUnload(module)

    def launcher(self, kernel: Any, *, blocks: int = 1, threads: int = 32, address: int | None = None) -> Launcher:
        """A launch of `kernel` on the stream, in one dimension, with at most one argument: an address."""
        return Launcher(self, kernel, self._stream, blocks, threads, address)

    @contextmanager
    def graph(self, enqueue: Callable[[], object]) -> Iterator[Callable[[], None]]:
        """A call that replays, on the stream, what `enqueue` puts there once."""
        cu = self.cu
        call(cu.cuStreamBeginCapture, self._stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            enqueue()
        finally:  # a stream left in capture mode would fail everything that follows
            status, graph = cu.cuStreamEndCapture(self._stream)
        check(status, "cuStreamEndCapture")
        try:
            executable = call(cu.cuGraphInstantiate, graph, 0)
            try:
                yield lambda: call(cu.cuGraphLaunch, executable, self._stream)
            finally:
                self.cu.cuStreamSynchronize(self._stream)
                cu.cuGraphExecDestroy(executable)
        finally:
            cu.cuGraphDestroy(graph)

    def synchronize(self) -> None:
        """Wait for the stream."""
        call(self.cu.cuStreamSynchronize, self._stream)

    def event_ns(self, enqueue: Callable[[], object]) -> int:
        """Device time in nanoseconds of what `enqueue` puts on the stream, from a pair of events.

        It is enqueued once before the first event as well, so that the device is busy while the host
        queues the rest: the host's time stays out of the interval as long as it is the shorter one.
        """
        start, end = (call(self.cu.cuEventCreate, 0) for _ in range(2))
        try:
            enqueue()
            call(self.cu.cuEventRecord, start, self._stream)
            enqueue()
            call(self.cu.cuEventRecord, end, self._stream)
            call(self.cu.cuEventSynchronize, end)
            milliseconds: float = call(self.cu.cuEventElapsedTime, start, end)
            return round(1e6 * milliseconds)
        finally:
            self.cu.cuEventDestroy(start)
            self.cu.cuEventDestroy(end)


class Launcher:
    """Launches one kernel with fixed arguments, prepared beforehand so that a launch costs the host little."""

    def __init__(
        self, device: CudaDevice, kernel: Any, stream: Any, blocks: int, threads: int, address: int | None
    ) -> None:
        self._launch = device.cu.cuLaunchKernel
        parameters = 0 if address is None else ((address,), (ctypes.c_void_p,))
        self._arguments = (kernel, blocks, 1, 1, threads, 1, 1, 0, stream, parameters, 0)

    def __call__(self, times: int = 1) -> None:
        """Launch `times` times; the codes are checked after the last launch."""
        launch, arguments = self._launch, self._arguments
        for (status,) in [launch(*arguments) for _ in range(times)]:
            check(status, "cuLaunchKernel")
