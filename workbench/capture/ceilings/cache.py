"""Ceilings on disk: one JSON file per device, driver and ONNX Runtime version, in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Final

import onnxruntime as ort
from pydantic import ValidationError

from workbench.capture.ceilings.driver import CudaDevice
from workbench.capture.ceilings.ort_chains import Backend
from workbench.errors import NoDriverError
from workbench.runs.manifest import Ceilings

METHOD: Final = "1"
"""Raise it when a measurement changes its meaning: older files are then measured anew."""


def key_of(backend: Backend) -> dict[str, str]:
    """What the ceilings of a backend depend on, as text.

    Raises `NoDriverError` and `SourceError` where a GPU is asked for and cannot be reached.
    """
    key = {"kind": backend.kind, "ort": ort.__version__, "method": METHOD}
    if backend.kind == "cuda":
        driver = _driver_version()
        return {**key, "device": CudaDevice(backend.device_id).name, "driver": driver}
    threads = "default" if backend.threads is None else str(backend.threads)
    return {**key, "device": _cpu_name(), "cores": str(os.cpu_count()), "threads": threads}


def _driver_version() -> str:
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise NoDriverError(
            f"No NVIDIA driver answers ({error}): install the driver, or measure the CPU with kind 'cpu'."
        ) from error


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def path_of(key: dict[str, str]) -> Path:
    """The file of a key: under `$WORKBENCH_CACHE`, or `$XDG_CACHE_HOME/workbench`, or `~/.cache/workbench`."""
    own, xdg = os.environ.get("WORKBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    root = Path(own) if own else (Path(xdg) if xdg else Path.home() / ".cache") / "workbench"
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return root / "ceilings" / f"{key['kind']}-{digest}.json"


def load(key: dict[str, str]) -> Ceilings | None:
    """The ceilings kept under a key; None if there are none, or the file is unreadable or of another key."""
    try:
        ceilings = Ceilings.model_validate_json(path_of(key).read_bytes())
    except (OSError, ValidationError):
        return None
    return ceilings if ceilings.key == key else None


def store(ceilings: Ceilings, path: Path) -> None:
    """Write ceilings as JSON beside `path` and rename, so that a reader meets the whole file or none.

    Raises `OSError` where the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(ceilings.model_dump_json(indent=1))
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
