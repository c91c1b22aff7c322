"""Ceilings on disk: one JSON file per device, driver and ONNX Runtime version, in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Final

import onnxruntime as ort
from pydantic import ValidationError

from workbench import user_cache
from workbench.capture.ceilings.ort_chains import Backend
from workbench.capture.machine import describe_device
from workbench.runs.manifest import Ceilings

METHOD: Final = "2"
"""Raise it when a measurement changes its meaning: older files are then measured anew."""


def key_of(backend: Backend) -> dict[str, str]:
    """What the ceilings of a backend depend on, as text.

    Raises `NoDriverError` where a GPU is asked for and no driver answers.
    """
    device = describe_device(backend.kind, backend.device_id)
    key = {"kind": backend.kind, "ort": ort.__version__, "method": METHOD, "device": device.name}
    if backend.kind == "cuda":
        return {**key, "driver": str(device.driver)}
    threads = "default" if backend.threads is None else str(backend.threads)
    return {**key, "cores": str(device.cores), "threads": threads}


def path_of(key: dict[str, str]) -> Path:
    """The file of a key in the user's cache."""
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return user_cache.root() / "ceilings" / f"{key['kind']}-{digest}.json"


def load(key: dict[str, str]) -> Ceilings | None:
    """The ceilings kept under a key; None if there are none, or the file is unreadable or of another key."""
    try:
        ceilings = Ceilings.model_validate_json(path_of(key).read_bytes())
    except (OSError, ValidationError):
        return None
    return ceilings if ceilings.key == key else None


def of_device(name: str) -> Ceilings | None:
    """The newest ceilings in the user's cache of a device of this name, whatever its driver; None if there are none."""
    found = []
    for file in (user_cache.root() / "ceilings").glob("*.json"):
        try:
            found.append(Ceilings.model_validate_json(file.read_bytes()))
        except (OSError, ValidationError):
            continue
    mine = [ceilings for ceilings in found if ceilings.key.get("device") == name]
    return max(mine, key=lambda ceilings: ceilings.measured_at, default=None)


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
