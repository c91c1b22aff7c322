"""Pages of an SQLite file, read without SQLite: the b-tree of a table, and where the cells of its leaves lie.

SQLite decodes a row at a time and holds Python's lock meanwhile; here a step is done for all rows of some hundred pages
at once. Only what an ordinary table of a whole file looks like is read: everything else raises `UnusualError`, before
any value is given, and is left to SQLite itself. Section numbers are those of https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]

SMALLEST, LARGEST = -(1 << 63), (1 << 63) - 1  # row ids
BLOCK_BYTES: Final = 1 << 21  # pages that are decoded at once: enough rows for NumPy, and few enough for the cache
_TAIL_BYTES: Final = 16  # after the last page, so that eight bytes from any place in it, and a ninth, can be read
_HEADER_BYTES: Final = 100
_LOCK_BYTE: Final = 1 << 30  # its page holds no data; section 1.4
_INTERIOR, _LEAF = 5, 13  # of a table; section 1.6
_DEEPEST: Final = 20  # levels; SQLite's own limit, BTCURSOR_MAX_DEPTH
_FEWEST_CELL_BYTES: Final = 6  # a pointer of two and a cell of four: SQLite's MX_CELL
_LONGEST_LENGTH: Final = 3  # bytes of a record's length that fits into the largest page
_NOT_LOCAL_BYTES: Final = 35  # a leaf's payload overflows when it is larger than the page less this; section 1.6


class UnusualError(Exception):
    """The file is damaged, or holds something that is left to SQLite."""


class PageFile:
    """A file whose pages are read by number; use it in one thread, and as a context manager.

    Pages are copied rather than mapped: a mapped file counts as memory in use, and kills the process when it is cut.
    """

    def __init__(self, path: Path) -> None:
        """Raises `OSError`, and `UnusualError` for what is no plain SQLite database."""
        self._file = path.open("rb", buffering=0)
        try:
            header = self._file.read(_HEADER_BYTES)
            file_bytes = self._file.seek(0, 2)
            self.page_bytes, self.page_count = _layout(header, file_bytes)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, numbers: Integers) -> Block:
        """These pages, one at least, in the order given; raises `UnusualError` where a number is of no such page."""
        lock_page = _LOCK_BYTE // self.page_bytes + 1
        if numbers.min() < 2 or numbers.max() > self.page_count or (numbers == lock_page).any():
            raise UnusualError("a page number is out of range")
        size = self.page_bytes
        buffer = np.empty(len(numbers) * size + _TAIL_BYTES, np.uint8)
        buffer[-_TAIL_BYTES:] = 0
        runs = np.flatnonzero(np.diff(numbers) != 1) + 1  # neighbours in the file are read together
        for first, end in pairwise([0, *runs.tolist(), len(numbers)]):
            self._file.seek((int(numbers[first]) - 1) * size)
            if self._file.readinto(buffer.data[first * size : end * size]) != (end - first) * size:
                raise UnusualError("the file ends early")
        return Block(buffer, size)


class Block:
    """Some pages, one after the other, as bytes: an offset counts from the first page."""

    def __init__(self, buffer: Bytes, page_bytes: int) -> None:
        self.bytes = buffer
        # At each byte the eight from there on, as one number; NumPy must not be told that it is aligned.
        self._words: NDArray[Any] = np.ndarray((len(buffer) - 7,), ">u8", buffer, 0, (1,))
        self.page_bytes = page_bytes
        self.pages = buffer[:-_TAIL_BYTES].reshape(-1, page_bytes)

    def words(self, at: Integers) -> NDArray[np.uint64]:
        """The eight bytes from each offset on, big-endian as all of SQLite's integers."""
        return self._words[at].astype(np.uint64)

    def varints(self, at: Integers) -> tuple[Integers, Integers]:
        """The variable-length integers at these offsets, and their lengths in bytes, 1 to 9; section 1.6."""
        word = self.words(at)
        value = (word >> np.uint64(56)) & np.uint64(127)
        more = word >> np.uint64(63)
        length = more + np.uint64(1)
        for _ in range(7):
            if not more.any():
                break
            word <<= np.uint64(8)
            value = np.where(more, (value << np.uint64(7)) | ((word >> np.uint64(56)) & np.uint64(127)), value)
            more &= word >> np.uint64(63)
            length += more
        if more.any():  # the ninth byte counts with all its bits
            value = np.where(more, (value << np.uint64(8)) | self.bytes[at + 8], value)
        return value.view(np.int64), length.view(np.int64)

    def cells(self, kind: int) -> tuple[Integers, Integers]:
        """Offsets of all cells, int64[m], in key order, and how many each page has, int64[n], at least 1."""
        pages, header_bytes = self.pages, 12 if kind == _INTERIOR else 8
        counts = (pages[:, 3].astype(np.int64) << 8) | pages[:, 4]
        most = int(counts.max())
        if (pages[:, 0] != kind).any() or counts.min() < 1 or most > (self.page_bytes - 8) // _FEWEST_CELL_BYTES:
            raise UnusualError("a page is not of the kind that its place in the tree asks for")
        offsets = pages[:, header_bytes : header_bytes + 2 * most].view(">u2").astype(np.int64)
        present = np.arange(most) < counts[:, None]
        low = header_bytes + 2 * counts[:, None]
        if (((offsets < low) | (offsets > self.page_bytes - 4)) & present).any():
            raise UnusualError("a cell lies outside its page")
        offsets += self.page_bytes * np.arange(len(pages))[:, None]
        return offsets[present], counts


@dataclass(frozen=True)
class Leaves:
    """The leaf pages of a table in key order: their numbers, and a row id that none of their rows exceeds."""

    numbers: Integers
    last: Integers

    def __len__(self) -> int:
        return len(self.numbers)

    @classmethod
    def of(cls, file: PageFile, root: int) -> Leaves:
        """Walk down from the root page, a level at a time; raises `UnusualError`."""
        numbers, last = np.array([root]), np.array([LARGEST])
        for _ in range(_DEEPEST):
            if file.read(numbers[:1]).pages[0, 0] == _LEAF:
                return cls(numbers, last)
            numbers, last = _children(file, numbers, last)
        raise UnusualError("the tree is too deep")

    def between(self, first: int, last: int) -> slice:
        """The leaves that may have a row id in [first, last]."""
        return slice(int(np.searchsorted(self.last, first)), int(np.searchsorted(self.last, last)) + 1)


@dataclass(frozen=True)
class Cells:
    """Rows of leaf pages: row ids, and where their records begin in the block and how long they are, int64[n] each."""

    rowid: Integers
    record: Integers
    record_bytes: Integers

    @classmethod
    def of(cls, block: Block, last: Integers, before: int) -> Cells:
        """The cells of leaves. last: row ids that no row of a leaf exceeds; before: one that all rows do.

        Raises `UnusualError`.
        """
        offset, counts = block.cells(_LEAF)
        record_bytes, length = block.varints(offset)
        if (length > _LONGEST_LENGTH).any() or (record_bytes > block.page_bytes - _NOT_LOCAL_BYTES).any():
            raise UnusualError("a row is not in one page")
        offset += length
        rowid, length = block.varints(offset)
        record = offset + length
        page_end = block.page_bytes * np.arange(1, len(counts) + 1)
        if (record_bytes < 1).any() or (record + record_bytes > np.repeat(page_end, counts)).any():
            raise UnusualError("a row lies outside its page")
        if record_bytes.sum() > len(block.bytes):  # what is made of the rows would have no limit either
            raise UnusualError("rows lie over one another")
        ends = np.cumsum(counts)
        floor = np.concatenate(([before], last[:-1]))
        risen = (rowid[1:] > rowid[:-1]).all() and (rowid[ends - counts] > floor).all()
        if not risen or (rowid[ends - 1] > last).any():
            raise UnusualError("the row ids are out of order")
        return cls(rowid, record, record_bytes)


def _children(file: PageFile, numbers: Integers, last: Integers) -> tuple[Integers, Integers]:
    """The pages below interior pages, and the largest row id of each."""
    found: list[tuple[Integers, Integers]] = []
    count, step = 0, max(1, BLOCK_BYTES // file.page_bytes)
    for start in range(0, len(numbers), step):
        block = file.read(numbers[start : start + step])
        offset, counts = block.cells(_INTERIOR)
        child = (block.words(offset) >> np.uint64(32)).astype(np.int64)
        rowid, length = block.varints(offset + 4)
        if (offset % file.page_bytes + 4 + length > file.page_bytes).any():
            raise UnusualError("a cell lies outside its page")
        ends = np.cumsum(counts)
        right = block.pages[:, 8:12].copy().view(">u4")[:, 0].astype(np.int64)
        found.append((np.insert(child, ends, right), np.insert(rowid, ends, last[start : start + step])))
        count += len(found[-1][0])
        if count > file.page_count:
            raise UnusualError("the tree has more pages than the file")
    children, limits = (np.concatenate(each) for each in zip(*found, strict=True))
    if (limits[1:] <= limits[:-1]).any():
        raise UnusualError("the keys are out of order")
    return children, limits


def _layout(header: bytes, file_bytes: int) -> tuple[int, int]:
    """(page size in bytes, number of pages); section 1.3."""
    page_bytes = int.from_bytes(header[16:18])
    page_bytes = 1 << 16 if page_bytes == 1 else page_bytes
    plain = header[:16] == b"SQLite format 3\0" and header[18:21] == b"\1\1\0"  # no write-ahead log, none reserved
    if not plain or not 512 <= page_bytes <= 1 << 16 or page_bytes & (page_bytes - 1):
        raise UnusualError("not a plain SQLite database")
    page_count = int.from_bytes(header[28:32])
    if not page_count or page_count * page_bytes > file_bytes:
        raise UnusualError("the file is not whole")
    return page_bytes, page_count
