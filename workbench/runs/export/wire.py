"""Protobuf messages by the column: a million packets are encoded as a few byte matrices, not one by one.

Records of one layout are a matrix of bytes, one row each. Every field then has one width in all rows, which the wire
format allows: a varint may carry padding, groups of zeroes with the continuation bit set
(https://protobuf.dev/programming-guides/encoding/; Perfetto's own writer pads its message lengths in this way).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Records: TypeAlias = npt.NDArray[np.uint8]
"""Encoded bytes, shape (rows, bytes of each row)."""

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2


def tag(number: int, wire_type: int) -> bytes:
    """The key that stands before the value of field `number`."""
    return scalar(number << 3 | wire_type)


def scalar(value: int) -> bytes:
    """One non-negative integer as the shortest varint."""
    return varint(np.array([value], np.uint64)).tobytes()


def varint(values: npt.NDArray[np.uint64]) -> Records:
    """Encode `values` (rows,) as varints, all of the width that the largest one needs.

    A negative int64 is given as its two's complement, as the wire format wants it.
    """
    width = max(1, -(-int(values.max(initial=np.uint64(0))).bit_length() // 7))
    groups = values[:, None] >> np.arange(0, 7 * width, 7, dtype=np.uint64)
    out: Records = (groups & np.uint64(0x7F)).astype(np.uint8)
    out[:, :-1] |= 0x80
    return out


def fixed64(values: npt.NDArray[np.float64] | npt.NDArray[np.uint64]) -> Records:
    """Encode `values` (rows, count), 8 bytes each, as little-endian words: shape (rows, count, 8)."""
    return values.astype(values.dtype.newbyteorder("<")).view(np.uint8).reshape(*values.shape, 8)


def concatenate(rows: int, parts: Sequence[bytes | Records]) -> Records:
    """The parts of each record one after the other; bytes stand the same in every row."""
    columns = [
        np.broadcast_to(np.frombuffer(part, np.uint8), (rows, len(part))) if isinstance(part, bytes) else part
        for part in parts
    ]
    return np.concatenate(columns, axis=1)


def message(number: int, rows: int, parts: Sequence[bytes | Records]) -> Records:
    """Field `number` of each record as a nested message of these parts."""
    length = sum(len(part) if isinstance(part, bytes) else part.shape[1] for part in parts)
    return concatenate(rows, [tag(number, LENGTH) + scalar(length), *parts])


def interleave(pieces: Sequence[tuple[npt.NDArray[np.intp], Records]]) -> bytes:
    """One stream of records of several layouts.

    Each piece is (positions, records): row `i` of the records stands at `positions[i]` of the stream. Together the
    positions are 0, 1, … without a gap.
    """
    widths = np.empty(sum(len(positions) for positions, _ in pieces), np.intp)
    for positions, records in pieces:
        widths[positions] = records.shape[1]
    ends = np.cumsum(widths)
    out = np.empty(ends[-1] if len(ends) else 0, np.uint8)
    for positions, records in pieces:
        first = ends[positions] - records.shape[1]
        out[first[:, None] + np.arange(records.shape[1])] = records
    return out.tobytes()
