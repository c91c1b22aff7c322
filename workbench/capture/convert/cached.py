"""Converts in a child process, and keeps what it made in the user's cache under a hash of all that decides it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import onnx

from workbench import user_cache
from workbench.capture.convert.files import external_files
from workbench.capture.convert.request import MODEL, NOTES, Request
from workbench.capture.machine import describe_device
from workbench.capture.model import sha256
from workbench.capture.resolve import Device
from workbench.config import RunConfig
from workbench.config.model import Conversion
from workbench.errors import ConfigError, ModelError, OutOfMemoryError, WorkbenchError, WorkerTimeoutError, from_kind
from workbench.runs.writer import full_disk_is_said
from workbench.version import __version__

_PACKAGE_PARENT: Final = Path(__file__).resolve().parents[3]
_TOOLS: Final = ("onnxruntime-gpu", "onnxruntime", "onnx", "onnx-ir", "sympy")  # distributions that decide the result


@dataclass(frozen=True)
class Converted:
    """A model in the user's cache, and what its conversion has to say."""

    path: Path
    notes: list[str]


def convert(
    source: Path,
    conversion: Conversion,
    config: RunConfig,
    *,
    device: Device,
    shapes: dict[str, list[int]],
    samples: Sequence[Path] = (),
    timeout_s: float | None,
) -> Converted:
    """The model `source` after one conversion, from the cache or made now.

    shapes: dimensions of every input of the run, for `fixed_shapes`. samples: files written by `save_feeds`, for
    `int8_static`. A folder is filled beside its final place and renamed, so that a killed conversion leaves nothing
    there and of two at once the second finds the work done. Raises `ModelError` when the model cannot be converted or
    nothing in it can, `WorkerTimeoutError`, `OutOfMemoryError`, `DiskFullError`, and `ConfigError` when the cache
    cannot be written.
    """
    key = _key(source, conversion, config, device, shapes, samples)
    final = user_cache.root() / "models" / "converted" / key
    if not (final / MODEL).is_file():
        try:
            with full_disk_is_said(final):
                final.parent.mkdir(parents=True, exist_ok=True)
                partial = Path(tempfile.mkdtemp(prefix=f".{key[:12]}-", dir=final.parent))
        except OSError as error:
            raise ConfigError(
                f"The cache {final.parent} cannot be written ({error.strerror}): set WORKBENCH_CACHE."
            ) from None
        try:
            request = Request(
                conversion=conversion,
                source=source,
                folder=partial,
                config=config,
                device=device,
                shapes=shapes,
                samples=list(samples),
            )
            _run(request, timeout_s)
            _publish(partial, final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return Converted(final / MODEL, json.loads((final / NOTES).read_bytes()))


def _publish(partial: Path, final: Path) -> None:
    try:
        partial.rename(final)
    except OSError:  # another process was quicker: a folder that is not empty is never replaced
        if not (final / MODEL).is_file():
            raise


def _key(
    source: Path,
    conversion: Conversion,
    config: RunConfig,
    device: Device,
    shapes: dict[str, list[int]],
    samples: Sequence[Path],
) -> str:
    beside = external_files(onnx.load(source, load_external_data=False))
    parts: dict[str, object] = {
        "model": [sha256(source), *(sha256(source.parent / name) for name in beside)],
        "conversion": conversion,
        "workbench": __version__,
        "tools": {name: version for name in _TOOLS if (version := _version(name))},
    }
    if conversion == "fixed_shapes":
        parts["shapes"] = shapes
    if conversion == "int8_static":
        parts["samples"] = [sha256(file) for file in samples]
    if conversion == "optimized":
        parts["device"] = describe_device(device, config.cuda.device_id).model_dump()
        parts["options"] = config.model_dump(
            mode="json", include={"provider", "cuda", "tensorrt", "session", "cuda_graph"}
        )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _run(request: Request, timeout_s: float | None) -> None:
    paths = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "workbench.capture.convert"],
            input=request.model_dump_json(),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WorkerTimeoutError(
            f"Conversion {request.conversion!r} reached its limit of {timeout_s:g} s: allow more time, or leave it out."
        ) from None
    if ended.returncode != 0:
        raise _reported(request.conversion, ended)


def _reported(conversion: Conversion, ended: subprocess.CompletedProcess[str]) -> WorkbenchError:
    last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
    try:
        report = json.loads(last)
        return from_kind(report["kind"], report["message"])
    except (ValueError, TypeError, KeyError):
        pass
    if ended.returncode == -signal.SIGKILL:
        return OutOfMemoryError(
            f"Conversion {conversion!r} was killed, often because memory ran out: free memory or leave it out."
        )
    how = signal.Signals(-ended.returncode).name if ended.returncode < 0 else f"status {ended.returncode}"
    return ModelError(
        f"ONNX Runtime's tool for {conversion!r} ended with {how} on this model ({last[-200:]}): leave it out."
    )
