"""Converts in a child process, and keeps what it made in the user's cache under a hash of all that decides it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import filelock
import onnx

from workbench import user_cache
from workbench.capture.child import run_child
from workbench.capture.convert.files import external_files
from workbench.capture.convert.request import MODEL, NOTES, Request
from workbench.capture.machine import describe_device
from workbench.capture.model import sha256
from workbench.capture.resolve import Device
from workbench.config import RunConfig
from workbench.config.model import Conversion
from workbench.errors import ConfigError, WorkerTimeoutError
from workbench.runs.writer import full_disk_is_said
from workbench.version import __version__

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
    there; of two at once the second waits under a lock and finds the work done. Raises `ModelError` when the model
    cannot be converted or nothing in it can, `WorkerTimeoutError`, `OutOfMemoryError`, `WorkerError`, `DiskFullError`,
    and `ConfigError` when the cache cannot be written.
    """
    key = _key(source, conversion, config, device, shapes, samples)
    final = user_cache.root() / "models" / "converted" / key
    if not _is_whole(final):
        with _alone(final, timeout_s), _filled(final) as folder:
            if folder is not None:
                request = Request(
                    conversion=conversion,
                    source=source,
                    folder=folder,
                    config=config,
                    device=device,
                    shapes=shapes,
                    samples=list(samples),
                )
                run_child(
                    "workbench.capture.convert",
                    given=request.model_dump_json(),
                    what=f"Conversion {conversion!r}",
                    otherwise="leave it out",
                    timeout_s=timeout_s,
                )
    return Converted(final / MODEL, json.loads((final / NOTES).read_bytes()))


def _is_whole(folder: Path) -> bool:
    return (folder / MODEL).is_file() and (folder / NOTES).is_file()


@contextlib.contextmanager
def _alone(final: Path, timeout_s: float | None) -> Iterator[None]:
    """Hold the lock of one conversion, which the system frees when its holder dies; raises as `convert` does."""
    locks = user_cache.root() / "locks"
    lock = filelock.FileLock(locks / f"{final.name}.lock", timeout=-1 if timeout_s is None else timeout_s)
    try:
        with _refusal_is_said(locks):
            locks.mkdir(parents=True, exist_ok=True)
            lock.acquire()
    except filelock.Timeout:
        raise WorkerTimeoutError(
            f"Another process still makes the same conversion after {timeout_s:g} s: raise --timeout, or end it."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _refusal_is_said(folder: Path) -> Iterator[None]:
    try:
        with full_disk_is_said(folder):
            yield
    except filelock.Timeout:  # which is an OSError, too
        raise
    except OSError as error:
        raise ConfigError(f"The cache {folder} cannot be written ({error.strerror}): set WORKBENCH_CACHE.") from None


@contextlib.contextmanager
def _filled(final: Path) -> Iterator[Path | None]:
    """A folder to fill, which becomes `final` when the block ends well; None when another process made it meanwhile."""
    if _is_whole(final):
        yield None
        return
    prefix = f".{final.name}-"
    for left in (final, *final.parent.glob(f"{prefix}*")):  # damaged, or left by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with _refusal_is_said(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        # of a new name, because the child of a killed process may still write into the old one
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=final.parent))
    try:
        yield folder
        folder.rename(final)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
