"""Keeps what was measured: every block with every call in `blocks.parquet`, results as JSON, both written at once."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from workbench.errors import RunFolderError
from workbench.runs.writer import full_disk_is_said
from workbench.tuning.blocks import Block

BLOCKS: Final = "blocks.parquet"
_AS_JSON: Final = ("steps_ns", "again_ns", "providers", "options", "disturbances", "error")
_SERIES: Final = ("starts_ns", "durations_ns")
_CALLS_NS: Final = pa.list_(pa.field("item", pa.int64(), nullable=False))
_TYPES: Final = {
    "arm": pa.string(),
    "round": pa.int32(),
    "position": pa.int32(),
    "starts_ns": _CALLS_NS,
    "durations_ns": _CALLS_NS,
    "calls_per_s": pa.float64(),
    "batch": pa.int64(),
    "warmup_calls": pa.int64(),
    "peak_device_bytes": pa.int64(),
    "peak_host_bytes": pa.int64(),
    "outputs": pa.string(),
    **dict.fromkeys(_AS_JSON, pa.string()),
}
_UNKNOWN: Final = ("peak_device_bytes", "peak_host_bytes", "outputs")
_SCHEMA: Final = pa.schema([pa.field(name, kind, nullable=name in _UNKNOWN) for name, kind in _TYPES.items()])
Result = TypeVar("Result")


def save_blocks(folder: Path, blocks: Sequence[Block]) -> None:
    """Write all blocks as `blocks.parquet`, one row each; raises `DiskFullError`."""
    rows = [{each.name: _plain(each.name, getattr(block, each.name)) for each in fields(Block)} for block in blocks]
    partial = folder / f".{BLOCKS}.{os.getpid()}"
    with full_disk_is_said(folder):
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), partial, compression="zstd")
        partial.replace(folder / BLOCKS)


def load_blocks(folder: Path) -> list[Block]:
    """The blocks that `save_blocks` wrote, paths of outputs left out; raises `RunFolderError`."""
    try:
        rows = pq.read_table(folder / BLOCKS).cast(_SCHEMA).to_pylist()
        return [Block(**{name: _rich(name, value) for name, value in row.items() if name != "outputs"}) for row in rows]
    except (OSError, pa.ArrowException, ValueError, TypeError):
        raise RunFolderError(f"{folder} holds no readable {BLOCKS}: measure again, or copy the folder again.") from None


def save_result(file: Path, kind: type[Result], result: Result) -> None:
    """Write a result (a dataclass of plain data) as JSON, whole or not at all; raises `DiskFullError`."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with full_disk_is_said(file):
            partial.write_bytes(TypeAdapter(kind).dump_json(result, indent=1))
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def load_result(file: Path, kind: type[Result]) -> Result:
    """The result that `save_result` wrote; raises `RunFolderError`."""
    try:
        return TypeAdapter(kind).validate_json(file.read_bytes())
    except OSError:
        raise RunFolderError(f"{file.parent} holds no readable {file.name}: it is no result of `tune`.") from None
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise RunFolderError(f"{file} is damaged at {where!r}: measure again, or copy the folder again.") from None


def _plain(name: str, value: Any) -> Any:
    if name in _AS_JSON:
        return json.dumps(value)
    return str(value) if isinstance(value, Path) else value


def _rich(name: str, value: Any) -> Any:
    if name in _AS_JSON:
        found = json.loads(value)
        return tuple(found) if name == "error" and found is not None else found
    return np.array(value, np.int64) if name in _SERIES else value
