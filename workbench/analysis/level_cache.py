"""Levels of a timeline as one file that is mapped into memory, so that a second opening reads only what it shows.

The file holds the arrays one after the other, then a JSON index of them, then the index's length and a checksum of all
that stands before. It is derived from the tables and can be thrown away at any time.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workbench.analysis.dominant import Pyramid
from workbench.analysis.level_lane import Lane
from workbench.analysis.levels import LaneInfo, Levels

LEVELS_VERSION: Final = 1
"""Counts the changes of what is written here; part of the file's name, so that no older file is read."""

_TAIL: Final = struct.Struct("<QI8s")  # bytes of the index, CRC-32 of all before this, magic
_MAGIC: Final = b"WBLEVELS"
_ALIGNED_BYTES: Final = 64  # a cache line, and a multiple of every item's size
_LANE_ARRAYS: Final = [field.name for field in fields(Lane) if field.name != "pyramid"]

Array = NDArray[Any]


def save_levels(levels: Levels, file: Path) -> None:
    """Write `file`, beside its place and renamed; its folder is made. Raises `OSError`."""
    file.parent.mkdir(exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            _write(levels, _Checked(stream))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def load_levels(file: Path) -> Levels | None:
    """The levels of `file`, mapped and read only; None when there is no such file or it is not as it was written."""
    try:
        with file.open("rb") as stream:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return None
    end = len(content) - _TAIL.size
    if end < 0:
        return None
    index_bytes, checksum, magic = _TAIL.unpack_from(content, end)
    if magic != _MAGIC or index_bytes > end or zlib.crc32(memoryview(content)[:end]) != checksum:
        return None
    index = json.loads(content[end - index_bytes : end])
    arrays = (np.frombuffer(content, *place) for place in index["arrays"])
    ends, text = next(arrays), next(arrays)
    names = pa.LargeStringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(text))
    infos = [LaneInfo(**info) for info in index["lanes"]]
    return Levels(infos, names, index["classes"], index["origin_ns"], [_lane(arrays) for _ in infos])


class _Checked:
    """A file that is written once from its start, with the place and the checksum of what has been written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.offset = 0
        self.checksum = 0

    def write(self, data: bytes | memoryview) -> None:
        self.checksum = zlib.crc32(data, self.checksum)
        self.file.write(data)
        self.offset += len(data)

    def write_array(self, array: Array) -> tuple[str, int, int]:
        """Returns dtype, length and offset."""
        self.write(bytes(-self.offset % _ALIGNED_BYTES))
        place = array.dtype.str, len(array), self.offset
        self.write(np.ascontiguousarray(array).view(np.uint8).data)
        return place


def _write(levels: Levels, file: _Checked) -> None:
    written: dict[int, tuple[str, int, int]] = {}  # an array that serves twice is written once
    places = []
    for array in list(_arrays(levels)):  # a list, since ids are told apart only among what is alive
        if id(array) not in written:
            written[id(array)] = file.write_array(array)
        places.append(written[id(array)])
    index = {
        "lanes": [asdict(lane) for lane in levels.lanes],
        "classes": levels.classes,
        "origin_ns": levels.origin_ns,
        "arrays": places,
    }
    content = json.dumps(index).encode()
    file.write(content)
    file.file.write(_TAIL.pack(len(content), file.checksum, _MAGIC))


def _arrays(levels: Levels) -> Iterator[Array]:
    _, ends, text = levels.names.buffers()
    yield np.frombuffer(ends, np.int64)[: len(levels.names) + 1]
    yield np.frombuffer(text, np.uint8)
    for lane in levels.contents:
        for name in _LANE_ARRAYS:
            yield getattr(lane, name)
        yield from lane.pyramid


def _lane(arrays: Iterator[Array]) -> Lane:
    own = {name: next(arrays) for name in _LANE_ARRAYS}
    return Lane(**own, pyramid=Pyramid(*(next(arrays) for _ in Pyramid._fields)))
