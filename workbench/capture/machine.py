"""The machine that a run is made on: its device, its software, and the CUDA libraries that do not load.

ONNX Runtime is imported by the functions that need it, so that a worker can time its import.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import pynvml

from workbench.errors import ConfigError, NoDriverError
from workbench.runs.manifest import DeviceInfo

_CU_SM_COUNT: Final = 16  # CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, cuda.h
_CU_NO_SUCH_DEVICE: Final = (100, 101)  # CUDA_ERROR_NO_DEVICE, CUDA_ERROR_INVALID_DEVICE, cuda.h
_NSYS_TIMEOUT_S: Final = 20.0  # nsys starts in about a second; the rest is for a cold network disk

_DISTRIBUTIONS: Final = {
    "workbench": "ort-workbench",
    "onnx": "onnx",
    "numpy": "numpy",
    "cupti-python": "cupti-python",
    "nvtx": "nvtx",
    "nvidia-ml-py": "nvidia-ml-py",
}


@contextlib.contextmanager
def nvml() -> Iterator[None]:
    """Hold NVML open; its calls work inside. Raises `NoDriverError` when no NVIDIA driver answers."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoDriverError(
            f"No NVIDIA driver answers ({error}): install it, start the container with its GPUs, or use provider 'cpu'."
        ) from None
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def gpu_present() -> bool:
    """Whether a driver answers, counts at least one GPU, and `CUDA_VISIBLE_DEVICES` does not hide them all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    try:
        with nvml():
            return int(pynvml.nvmlDeviceGetCount()) >= 1
    except (NoDriverError, pynvml.NVMLError):
        return False


def nvml_handle(device_id: int) -> Any:
    """The NVML handle of CUDA device `device_id`; call it inside `nvml()`.

    NVML numbers every GPU by PCI bus, CUDA only the visible ones and the fastest first, so the two meet on the PCI bus
    id. Without the CUDA driver library the number is taken as NVML's. Raises `ConfigError` for a device that is absent.
    """
    known = _cuda_driver_device(device_id)
    try:
        if known is not None:
            return pynvml.nvmlDeviceGetHandleByPciBusId(known[0])
        return pynvml.nvmlDeviceGetHandleByIndex(device_id)
    except pynvml.NVMLError as error:
        raise _absent(device_id, str(error)) from None


def device_key(kind: Literal["cuda", "cpu"], device_id: int = 0) -> str:
    """A name for the device that holds for every process of this machine, fit for a file's name."""
    if kind == "cpu":
        return "cpu"
    with nvml():
        uuid = pynvml.nvmlDeviceGetUUID(nvml_handle(device_id))
    return uuid if isinstance(uuid, str) else uuid.decode()


def describe_device(kind: Literal["cuda", "cpu"], device_id: int = 0) -> DeviceInfo:
    """What the device is; a value that it does not tell is None.

    Raises `NoDriverError` when a GPU is asked for and no driver answers, `ConfigError` when that GPU is absent.
    """
    return _describe_gpu(device_id) if kind == "cuda" else _describe_cpu()


def software_versions() -> dict[str, str]:
    """Name → version of all that can change a measurement; what is absent is left out. Holds no host or user name."""
    import onnxruntime

    found = {"python": platform.python_version(), "os": _os_name(), "kernel": _kernel_version()}
    found["onnxruntime"] = onnxruntime.__version__
    # the distribution's name tells the CUDA build from the CPU build; both import as `onnxruntime`
    found["onnxruntime package"] = getattr(onnxruntime, "package_name", None) or ""
    found["onnxruntime cuda"] = ort_cuda_version() or ""
    found["nsys"] = nsys_version() or ""
    cuda_major = (ort_cuda_version() or "").partition(".")[0]
    for name, distribution in {**_DISTRIBUTIONS, "cudnn": f"nvidia-cudnn-cu{cuda_major}"}.items():
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(distribution)
    return {name: version for name, version in found.items() if version}


def ort_cuda_version() -> str | None:
    """The CUDA version that ONNX Runtime was built with, as "13.0"; None for a build without CUDA."""
    import onnxruntime

    return getattr(onnxruntime, "cuda_version", None) or None


def nsys_version() -> str | None:
    """The version of the `nsys` on PATH, as "2025.3.1.90-…"; None when there is none or it does not run."""
    program = shutil.which("nsys")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_NSYS_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"version\s+(\S+)", done.stdout)
    return match[1] if match else None


def _cuda_driver_device(device_id: int) -> tuple[str, int] | None:
    """PCI bus id and SM count from the CUDA driver, which creates no context; None when it cannot tell."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    device, sm_count, bus_id = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(32)
    result = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), device_id)
        or cuda.cuDeviceGetPCIBusId(bus_id, len(bus_id), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(sm_count), _CU_SM_COUNT, device)
    )
    if result in _CU_NO_SUCH_DEVICE:
        raise _absent(device_id, "the CUDA driver sees no such device")
    return None if result else (bus_id.value.decode(), sm_count.value)


def _absent(device_id: int, cause: str) -> ConfigError:
    return ConfigError(
        f"CUDA device {device_id} does not answer ({cause}): choose a 'cuda.device_id' that `nvidia-smi -L` lists and "
        "CUDA_VISIBLE_DEVICES does not hide."
    )


def _describe_gpu(device_id: int) -> DeviceInfo:
    with nvml():
        handle = nvml_handle(device_id)

        def ask(call: Callable[..., Any], *arguments: Any) -> Any:
            try:
                return call(*arguments)
            except pynvml.NVMLError:  # not supported by this GPU, or refused in this container
                return None

        capability = ask(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
        memory = ask(pynvml.nvmlDeviceGetMemoryInfo, handle)
        cuda = ask(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        driver_device = _cuda_driver_device(device_id)
        return DeviceInfo(
            kind="cuda",
            name=ask(pynvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
            compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
            # NVML tells the SM count of MIG slices only (nvmlDeviceGetAttributes_v2), hence the driver
            sm_count=None if driver_device is None else driver_device[1],
            memory_bytes=None if memory is None else memory.total,
            driver=ask(pynvml.nvmlSystemGetDriverVersion),
            cuda_driver_version=None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
            # the maximum of this slot and GPU together: the current link slows down whenever the GPU idles
            pcie_generation=ask(pynvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
            pcie_width=ask(pynvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
            max_sm_clock_mhz=ask(pynvml.nvmlDeviceGetMaxClockInfo, handle, pynvml.NVML_CLOCK_SM),
        )


def _describe_cpu() -> DeviceInfo:
    memory_bytes = None
    with contextlib.suppress(AttributeError, ValueError, OSError):  # POSIX only
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # a process may be confined to fewer cores than the machine has
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return DeviceInfo(kind="cpu", name=_cpu_name(), memory_bytes=memory_bytes, cores=cores)


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        if match:  # Arm's kernel writes none
            return match[1].strip()
    return platform.processor() or platform.machine() or "CPU"


def _kernel_version() -> str:
    """The number alone: what a distribution or cloud appends may name a machine or its owner."""
    found = re.match(r"[\d.]*\d", platform.release())
    return found[0] if found else ""


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()
