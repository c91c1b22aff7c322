"""Writes a run folder beside its final place and renames it, so that a killed process leaves a whole run or none."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.errors import DiskFullError, RunFolderError, WorkbenchError
from workbench.runs.manifest import Manifest
from workbench.runs.schema import TABLES

MANIFEST = "manifest.json"
GRAPH = "graph.onnx"
MODEL_GRAPH = "model.onnx"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PROBE_BYTES = 64 << 10  # more than a block of any file system


@contextmanager
def full_disk_is_said(where: Path) -> Iterator[None]:
    """Turn the system's "no space left" into a `DiskFullError`; other errors pass through."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(
                f"The disk that holds {where} is full: free some space or choose another folder with --out."
            ) from None
        raise


@contextmanager
def full_disk_is_suspected(folder: Path) -> Iterator[None]:
    """For a library that writes into `folder` and fails without a reason: try whether its largest file can grow.

    Raises `DiskFullError` in the place of another `WorkbenchError`, and damages that file; other errors pass through.
    """
    try:
        yield
    except WorkbenchError:
        largest = max(folder.iterdir(), key=lambda file: file.stat().st_size)
        with full_disk_is_said(folder), largest.open("ab") as file:
            file.write(bytes(_PROBE_BYTES))
        raise


def to_table(
    name: str, columns: Mapping[str, Sequence[Any]] | pa.Table, chosen: Sequence[str] | None = None
) -> pa.Table:
    """A table of the declared schema, or of those columns `chosen` from it.

    Columns that the source lacks become null; unknown ones raise `KeyError`.
    """
    declared = TABLES[name]
    schema = declared if chosen is None else pa.schema([declared.field(column) for column in chosen])
    given = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    unknown = set(given.column_names) - set(declared.names)
    if unknown:
        raise KeyError(f"table {name!r} has no column {sorted(unknown)}")
    arrays = [
        given[field.name].cast(field.type) if field.name in given.column_names else pa.nulls(len(given), field.type)
        for field in schema
    ]
    return pa.table(arrays, schema=schema)


def write_table(folder: Path, name: str, columns: Mapping[str, Sequence[Any]] | pa.Table) -> None:
    """Write one table as `<name>.parquet`; raises `DiskFullError`."""
    table = to_table(name, columns)
    with full_disk_is_said(folder), open_table(folder, name) as writer:
        writer.write_table(table)


def open_table(folder: Path, name: str) -> pq.ParquetWriter:
    """A writer of `<name>.parquet`, for tables that come in parts.

    Times and ids grow slowly, so their differences take few bits (Parquet's DELTA_BINARY_PACKED); words are stored
    once. On a million kernels this is half the time of the defaults and two thirds of the size.
    """
    schema = TABLES[name]
    integers = [field.name for field in schema if pa.types.is_integer(field.type)]
    words = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    return pq.ParquetWriter(
        folder / f"{name}.parquet",
        schema,
        compression="lz4",
        use_dictionary=words,
        column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
    )


@contextmanager
def new_run_folder(target: Path) -> Iterator[Path]:
    """A folder to fill, renamed to `target` when the block ends well and removed when it does not.

    Raises `RunFolderError` when `target` exists already (a run is immutable) or cannot be made.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with refusal_is_said(target):
            if target.exists():
                raise RunFolderError(
                    f"The folder {target} exists already: remove it or choose another name with --out."
                )
            partial.mkdir(parents=True)
        with full_disk_is_said(target):
            yield partial
        with refusal_is_said(target):
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def refusal_is_said(target: Path) -> Iterator[None]:
    """Turn the system's refusal to make a folder into a `RunFolderError`, a full disk into a `DiskFullError`."""
    try:
        with full_disk_is_said(target):
            yield
    except OSError as error:
        raise RunFolderError(
            f"The folder {target} cannot be made ({error.strerror}): choose another place with --out."
        ) from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`; raises `DiskFullError`."""
    with full_disk_is_said(folder):
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
