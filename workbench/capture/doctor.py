"""What profiling needs on this machine, whether it is there, and how to get it."""

from __future__ import annotations

import importlib.util
import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pynvml

from workbench.capture import machine, probes

State = Literal["ok", "missing", "wrong", "not applicable"]

PYTHON_FROM: Final = (3, 11)
PYTHON_BELOW: Final = (3, 14)  # the versions that ONNX Runtime and cupti-python both have wheels for
# an Nsight export takes 0.12 GB per million kernels, and a search keeps several runs
MIN_FREE_BYTES: Final = 2_000_000_000
PROBE_TIMEOUT_S: Final = 60.0  # a first CUDA context takes seconds, tens of them from a cold network disk

_CAP_SYS_ADMIN: Final = 1 << 21  # linux/capability.h
_DRIVER_PARAMETERS: Final = Path("/proc/driver/nvidia/params")
_NVIDIA_PCI_VENDOR: Final = "0x10de"
_GPU_EXTRA: Final = "pip install 'ort-workbench[gpu]'"


@dataclass(frozen=True)
class Check:
    """One thing that was examined. `remedy` says how to get it, and is empty when nothing is to be done."""

    name: str
    state: State
    detail: str
    remedy: str = ""


class _Finding(NamedTuple):  # a check before `examine` gives it its name
    state: State
    detail: str
    remedy: str = ""


def examine() -> list[Check]:
    """Examine this machine and its first GPU; never raises. Without a GPU, what serves only one is `not applicable`."""
    on_gpu = machine.gpu_present()
    return [_examine_one(name, look, on_gpu or not gpu_only) for name, gpu_only, look in _EXAMINATIONS]


def to_rows(checks: list[Check]) -> list[dict[str, str]]:
    """The checks as JSON-ready rows with the keys name, state, detail and remedy."""
    return [asdict(check) for check in checks]


def _examine_one(name: str, look: Callable[[], _Finding], applicable: bool) -> Check:
    if not applicable:
        return Check(name, "not applicable", "Needs an NVIDIA GPU, and none is in use here.")
    try:
        return Check(name, *look())
    except Exception as error:  # one broken part must not hide what the others have to say
        detail = f"The examination itself failed: {type(error).__name__}: {error}."
        return Check(name, "wrong", detail, "Report this line as a defect of the workbench.")


def _python() -> _Finding:
    low, high = (".".join(map(str, version)) for version in (PYTHON_FROM, PYTHON_BELOW))
    detail = f"Python {platform.python_version()}."
    if PYTHON_FROM <= sys.version_info[:2] < PYTHON_BELOW:
        return _Finding("ok", detail)
    return _Finding("wrong", detail, f"Make a virtual environment with Python {low} or newer, but older than {high}.")


def _onnxruntime() -> _Finding:
    packages = sorted(set(metadata.packages_distributions().get("onnxruntime", [])))
    detail = ", ".join(f"{name} {metadata.version(name)}" for name in packages) or "no installed package"
    if len(packages) > 1:
        others = " ".join(name for name in packages if name != "onnxruntime-gpu")
        remedy = f"pip uninstall {others}, then pip install --force-reinstall --no-deps onnxruntime-gpu."
        return _Finding("wrong", f"{detail}: they overwrite one another's files.", remedy)
    cuda = machine.ort_cuda_version()
    if cuda is None and machine.gpu_present():
        remedy = f"pip uninstall onnxruntime, then {_GPU_EXTRA}."
        return _Finding("wrong", f"{detail} is built without CUDA, and this machine has a GPU.", remedy)
    return _Finding("ok", f"{detail}, built {f'for CUDA {cuda}' if cuda else 'without CUDA'}.")


def _driver() -> _Finding:
    if not machine.gpu_present():
        if not _nvidia_on_pci():
            return _Finding("not applicable", "No NVIDIA GPU on the PCI bus: runs are profiled on the CPU.")
        return _Finding(
            "missing",
            "An NVIDIA GPU is on the PCI bus, but no driver offers it to this process.",
            "Install the driver; start a container with its GPUs; do not hide them with CUDA_VISIBLE_DEVICES.",
        )
    device = machine.describe_device("cuda")
    return _Finding("ok", f"{device.name}, driver {device.driver}, CUDA {device.cuda_driver_version}.")


def _cuda_versions() -> _Finding:
    driver, built = machine.describe_device("cuda").cuda_driver_version, machine.ort_cuda_version()
    if built is None or driver is None:
        return _Finding("wrong", "ONNX Runtime or the driver tells no CUDA version.", f"{_GPU_EXTRA}.")
    detail = f"The driver runs CUDA {driver}, ONNX Runtime is built for CUDA {built}."
    # within one major version, an older driver runs a newer runtime (CUDA minor version compatibility)
    if int(driver.partition(".")[0]) >= int(built.partition(".")[0]):
        return _Finding("ok", detail)
    return _Finding("wrong", detail, f"Install a driver for CUDA {built.partition('.')[0]} or newer.")


def _cuda_provider() -> _Finding:
    answer = _probe(probes.provider)
    if "missing" in answer:
        detail = f"The CUDA provider does not load, so ONNX Runtime would use the CPU; missing: {answer['missing']}."
        return _Finding("missing", detail, f"{_GPU_EXTRA}, or put these libraries on LD_LIBRARY_PATH.")
    if "error" in answer:
        detail = f"A session on the GPU fails, so ONNX Runtime may use the CPU: {answer['error']}"
        return _Finding("wrong", detail, "Cure the cause above; `workbench doctor` then shows this line as ok.")
    return _Finding("ok", f"A session ran on {answer['provider']} with the CPU fall-back switched off.")


def _tensorrt() -> _Finding:
    answer = _probe(probes.tensorrt)
    if "error" in answer:
        return _Finding("wrong", f"The examination of TensorRT failed: {answer['error']}", "Use provider 'cuda'.")
    cause, _, remedy = answer["problem"].partition(": ")
    if cause:
        return _Finding("missing", f"Only provider 'tensorrt' needs it; {cause}.", f"{remedy}.")
    return _Finding("ok", "TensorRT and ONNX Runtime's provider for it load.")


def _cudnn() -> _Finding:
    answer = _probe(probes.cudnn)
    if "error" in answer:
        detail = f"cuDNN 9 does not load, so the nodes that use it are slow or fail: {answer['error']}"
        return _Finding("missing", detail, f"{_GPU_EXTRA}, which brings cuDNN.")
    return _Finding("ok", f"cuDNN {answer['version']}.")


def _nvml() -> _Finding:
    questions: dict[str, Callable[[Any], Any]] = {
        "utilisation": pynvml.nvmlDeviceGetUtilizationRates,
        "power": pynvml.nvmlDeviceGetPowerUsage,
        "SM clock": lambda handle: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "throttle reasons": pynvml.nvmlDeviceGetCurrentClocksThrottleReasons,
    }
    refused: list[str] = []
    with machine.nvml():
        handle = machine.nvml_handle(0)
        for name, question in questions.items():
            try:
                question(handle)
            except pynvml.NVMLError as error:
                refused.append(f"{name} ({error})")
    if refused:
        remedy = "Nothing to install: these columns stay empty; on a MIG slice or in a container, ask the host."
        return _Finding("wrong", f"NVML refuses {', '.join(refused)}.", remedy)
    return _Finding("ok", f"NVML answers on {', '.join(questions)}.")


def _gpm() -> _Finding:
    with machine.nvml():
        handle = machine.nvml_handle(0)
        try:
            if not pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
                return _Finding("not applicable", "This GPU has no GPM counters; Hopper and newer have them.")
            sample = pynvml.nvmlGpmSampleAlloc()
            try:
                pynvml.nvmlGpmSampleGet(handle, sample)
            finally:
                pynvml.nvmlGpmSampleFree(sample)
        except pynvml.NVMLError as error:
            remedy = "Run as root on the host, or give the container CAP_SYS_ADMIN; else the counters pass is skipped."
            return _Finding("wrong", f"GPM is refused: {error}.", remedy)
    return _Finding("ok", "GPM counters are supported and answer.")


def _cupti() -> _Finding:
    if importlib.util.find_spec("cupti") is None:
        remedy = f"{_GPU_EXTRA}; without it, nsys gives the activity."
        return _Finding("missing", "The package cupti-python is not installed.", remedy)
    answer = _probe(probes.cupti)
    if "error" in answer:
        remedy = f"End other profilers of the GPU (nsys, ncu), or {_GPU_EXTRA} for a version that fits."
        return _Finding("wrong", answer["error"], remedy)
    return _Finding("ok", f"cupti-python {answer['version']} starts.")


def _nsys() -> _Finding:
    version = machine.nsys_version()
    if version is not None:
        return _Finding("ok", f"Nsight Systems {version}.")
    remedy = "Install Nsight Systems and put nsys on PATH; without it, CUPTI gives the activity."
    return _Finding("missing", "No nsys on PATH tells its version.", remedy)


def _permission() -> _Finding:
    text = _DRIVER_PARAMETERS.read_text(encoding="ascii", errors="replace") if _DRIVER_PARAMETERS.exists() else ""
    match = re.search(r"^RmProfilingAdminOnly:\s*(\d)", text, re.MULTILINE)
    if match is None:
        return _Finding("not applicable", "The driver does not tell here who may read hardware counters.")
    if match[1] == "0":
        return _Finding("ok", "Every user may read hardware counters.")
    if _capabilities() & _CAP_SYS_ADMIN:
        return _Finding("ok", "Only administrators may read hardware counters, and this process is one.")
    return _Finding(
        "wrong",
        "Only administrators may read hardware counters; tracing of kernels and copies works without them.",
        "Run with CAP_SYS_ADMIN, or load the driver with NVreg_RestrictProfilingToAdminUsers=0.",
    )


def _disk() -> _Finding:
    free_bytes = shutil.disk_usage(".").free
    detail = f"{free_bytes / 1e9:.1f} GB free in the current folder."
    if free_bytes >= MIN_FREE_BYTES:
        return _Finding("ok", detail)
    return _Finding("wrong", detail, f"Free {MIN_FREE_BYTES / 1e9:.0f} GB, or work in a folder on another disk.")


_EXAMINATIONS: Final[tuple[tuple[str, bool, Callable[[], _Finding]], ...]] = (  # name, serves only a GPU, function
    ("Python", False, _python),
    ("ONNX Runtime", False, _onnxruntime),
    ("NVIDIA driver", False, _driver),
    ("CUDA versions", True, _cuda_versions),
    ("CUDA provider", True, _cuda_provider),
    ("cuDNN", True, _cudnn),
    ("TensorRT", True, _tensorrt),
    ("NVML", True, _nvml),
    ("GPM", True, _gpm),
    ("CUPTI", True, _cupti),
    ("Nsight Systems", False, _nsys),
    ("profiling permission", True, _permission),
    ("disk", False, _disk),
)


def _probe(look: Callable[[], dict[str, str]]) -> dict[str, str]:
    """The answer of a probe run in a process of its own, since it may crash or leave libraries behind.

    A failure is `{"error": sentence}`: what ORT logged about a library that failed, then the exception's message.
    """
    code = f"import json; from {look.__module__} import {look.__name__} as look; print(json.dumps(look()))"
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(command, input="", capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PROBE_TIMEOUT_S:.0f} s."}
    if done.returncode == 0:
        answer: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        return answer
    if done.returncode < 0:
        return {"error": f"the process was ended by signal {-done.returncode}."}
    lines = re.sub(r"\x1b\[[\d;]*m", "", done.stderr).splitlines() or ["no message"]
    logged = next((line.rpartition("] ")[2] for line in lines if "] Failed to" in line), "")
    raised = re.sub(r"^[\w.]+: ", "", lines[-1])  # without the class of the exception
    return {"error": f"{logged} {raised}".strip()}


def _nvidia_on_pci() -> bool:
    return any(file.read_text().strip() == _NVIDIA_PCI_VENDOR for file in Path("/sys/bus/pci/devices").glob("*/vendor"))


def _capabilities() -> int:
    match = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(match[1], 16) if match else 0
