"""Numbers that stand for names, as dictionary-encoded text: each distinct name once, however many rows use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class Names:
    """The export's table `StringIds`."""

    def __init__(self, ids: NDArray[np.int64], values: list[str]) -> None:
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        self._values = [values[at] for at in order]

    def __len__(self) -> int:
        return len(self._values)

    def words(self, ids: pa.Array, change: Callable[[str], str] = str) -> pa.DictionaryArray:
        """The names behind a column of ids; null stays null, and an id without a name is shown as its number.

        Raises `pyarrow.ArrowInvalid` where the column holds no integers.
        """
        found = ids.cast(pa.int64()).dictionary_encode()
        numbers = found.dictionary.to_numpy(zero_copy_only=False)
        places = np.searchsorted(self._ids, numbers)
        names = [
            change(self._values[place]) if place < len(self._ids) and self._ids[place] == number else str(number)
            for place, number in zip(places.tolist(), numbers.tolist(), strict=True)
        ]
        return encoded(found.indices, names)


def words(numbers: pa.Array, names: Mapping[int, str], otherwise: str | None) -> pa.DictionaryArray:
    """Names of a small enumeration; an unknown number is `<otherwise> <number>`, or null where `otherwise` is None."""
    found = numbers.cast(pa.int64()).dictionary_encode()
    unknown = "" if otherwise is None else f"{otherwise} "
    named = [names.get(number, f"{unknown}{number}" if unknown else None) for number in found.dictionary.to_pylist()]
    return encoded(found.indices, named)


def encoded(indices: pa.Array, names: Sequence[str | None]) -> pa.DictionaryArray:
    """Indices into `names`; rows whose name is None are null, and names that are equal share one entry."""
    distinct = list(dict.fromkeys(name for name in names if name is not None))
    if len(distinct) < len(names):
        place = {name: at for at, name in enumerate(distinct)}
        indices = pa.array([None if name is None else place[name] for name in names], pa.int32()).take(indices)
    return pa.DictionaryArray.from_arrays(indices.cast(pa.int32()), pa.array(distinct, pa.string()))


def pairs(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[list[tuple[int, int]], NDArray[np.int32]]:
    """Distinct pairs of two columns and the place of each row's among them: int32[n]."""
    one, other = (pa.array(values).dictionary_encode() for values in (first, second))
    width = max(len(other.dictionary), 1)
    codes = one.indices.to_numpy().astype(np.int64) * width + other.indices.to_numpy()
    joint = pa.array(codes).dictionary_encode()
    a, b = one.dictionary.to_pylist(), other.dictionary.to_pylist()
    found = [(a[code // width], b[code % width]) for code in joint.dictionary.to_pylist()]
    return found, joint.indices.to_numpy()


def one_line(text: str, longest: int) -> str:
    """What a file or a library says, as a sentence can hold it: without line breaks and control characters, and cut."""
    words = " ".join(text[: 4 * longest].split())
    return "".join(char if char.isprintable() else "\ufffd" for char in words)[:longest]


def plain_api_name(name: str) -> str:
    """`cudaLaunchKernel_v7000`, `cudaLaunchKernel_ptsz_v7000` → `cudaLaunchKernel`; driver names stay as they are."""
    if not name.startswith("cuda"):
        return name
    return name.rpartition("_v")[0].removesuffix("_ptsz") or name
