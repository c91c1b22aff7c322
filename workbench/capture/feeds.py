"""The inputs of a run: made from the model's signature with a seed, or read from a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import ml_dtypes  # comes with onnx
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from workbench.capture.model import Input, model_inputs
from workbench.config import RunConfig
from workbench.config.strict import nearest
from workbench.errors import FeedError, OutOfMemoryError

Feeds = dict[str, NDArray[Any]]

# Sizes for open dimensions whose name says what they are; any other name has to be given.
DEFAULT_DIMS: Final = (("batch", 1), ("past", 128), ("seq", 128), ("length", 128), ("height", 224), ("width", 224))
_MAKEABLE: Final = frozenset(
    f"{kind}{bits}"
    for kind, sizes in (("int", (8, 16, 32, 64)), ("uint", (8, 16, 32, 64)), ("float", (16, 32, 64)))
    for bits in sizes
) | {"bfloat16", "bool"}
_PREFIX: Final = "input "  # keeps an input called "file" apart from numpy.savez's own parameters
_CARRIERS: Final = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def make_feeds(model: onnx.ModelProto, config: RunConfig) -> tuple[Feeds, list[str]]:
    """Arrays for every input, by name, and a note for every choice that was made on the user's behalf.

    Floating point inputs are standard normal noise; integers that index a Gather stay inside its table; masks are
    ones, positions count up, other integers are 0. Raises `FeedError`: an unknown input or dimension, a shape that
    contradicts the signature, an open dimension without a size, or a damaged feed file; `OutOfMemoryError` when an
    input is larger than the host's memory.
    """
    inputs = model_inputs(model)
    _refuse_unknown(config, inputs)
    if config.feeds is not None:
        return _checked(read_feeds(Path(config.feeds), inputs), inputs), []
    notes: list[str] = []
    dims = dict(config.dims)
    bounds = _gather_bounds(model)
    feeds = {}
    for index, given in enumerate(inputs):
        shape = _shape(given, config, dims, notes)
        try:
            rng = np.random.default_rng((config.seed, index))
            feeds[given.name] = _values(given, shape, bounds.get(given.name), rng)
        except (MemoryError, OverflowError, ValueError):  # NumPy's words for an array beyond memory or address space
            raise OutOfMemoryError(
                f"Input {given.name!r} of shape {list(shape)} does not fit the host's memory: use a smaller one."
            ) from None
    return _checked(feeds, inputs), notes


def _refuse_unknown(config: RunConfig, inputs: list[Input]) -> None:
    names = [given.name for given in inputs]
    for name in config.shapes:
        if name not in names:
            raise FeedError(f"The model has no input {name!r}: {nearest(name, names)}")
    symbols = {symbol for given in inputs for symbol in given.shape if isinstance(symbol, str)}
    words = {word for symbol in symbols for word in (symbol, *re.findall(r"[A-Za-z_]\w*", symbol))}
    for name in config.dims:
        if name not in words:
            remedy = nearest(name, words) if words else "all are fixed."
            raise FeedError(f"The model has no dimension {name!r}: {remedy}")


def _shape(given: Input, config: RunConfig, dims: dict[str, int], notes: list[str]) -> tuple[int, ...]:
    if given.name in config.shapes:
        return tuple(config.shapes[given.name])
    sizes = []
    for axis, dim in enumerate(given.shape):
        if isinstance(dim, int):
            sizes.append(dim)
        elif axis == 0 and config.batch is not None and dim not in config.dims:
            sizes.append(config.batch)
            if dim:
                dims[dim] = config.batch
        elif dim is None:
            if axis:
                raise FeedError(f"Dimension {axis} of input {given.name!r} is open: give --shape {given.name}:….")
            sizes.append(1)
        else:
            sizes.append(_size_of(dim, given, dims, notes))
    return tuple(sizes)


def _size_of(symbol: str, given: Input, dims: dict[str, int], notes: list[str]) -> int:
    """The size of a symbol, or of a sum such as `past_sequence + 1`."""
    if symbol in dims:
        return dims[symbol]
    total = 0
    for term in symbol.split("+"):
        word = term.strip()
        if word.isdecimal():
            total += int(word)
        elif word in dims:
            total += dims[word]
        else:
            default = next((size for part, size in DEFAULT_DIMS if part in word.lower()), None)
            if default is None:
                raise FeedError(f"Dimension {word!r} of input {given.name!r} is open: give it with --dim {word}=SIZE.")
            dims[word] = default
            notes.append(f"Dimension {word!r} is open in the model: {default} was taken.")
            total += default
    return total


def _gather_bounds(model: onnx.ModelProto) -> dict[str, int]:
    """For each tensor that indexes a Gather over an initializer: the smallest table it must stay inside."""
    sizes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    bounds: dict[str, int] = {}
    for node in reversed(model.graph.node):
        if node.op_type == "Gather" and node.input[0] in sizes:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            size = sizes[node.input[0]][axis]
            bounds[node.input[1]] = min(size, bounds.get(node.input[1], size))
        elif node.op_type in _CARRIERS and node.output[0] in bounds:
            found = bounds[node.output[0]]
            bounds[node.input[0]] = min(found, bounds.get(node.input[0], found))
    return bounds


def _values(given: Input, shape: tuple[int, ...], bound: int | None, rng: np.random.Generator) -> NDArray[Any]:
    name = given.name.lower()
    if given.dtype not in _MAKEABLE:
        raise FeedError(f"Input {given.name!r} has type {given.dtype}, which cannot be made: give --feeds.")
    dtype = np.dtype(ml_dtypes.bfloat16 if given.dtype == "bfloat16" else given.dtype)
    if dtype.kind == "f" or given.dtype == "bfloat16":
        return rng.standard_normal(shape, np.float32).astype(dtype)
    if dtype.kind == "b" or "mask" in name:
        return np.ones(shape, dtype)
    if "position" in name and shape:
        steps = np.arange(shape[-1]) if bound is None else np.arange(shape[-1]) % bound
        return np.broadcast_to(steps.astype(dtype), shape).copy()
    if bound is not None:
        return rng.integers(0, bound, shape).astype(dtype)
    if dtype.itemsize == 1:  # quantised images and activations
        return rng.integers(0, 128, shape).astype(dtype)
    return np.zeros(shape, dtype)


def save_feeds(path: Path, feeds: Feeds) -> None:
    """Write the arrays for the workers; `load_feeds` reads them back. Raises `OSError` when the disk is full."""
    np.savez(path, **{f"{_PREFIX}{name}": array for name, array in feeds.items()})  # type: ignore[arg-type]


def load_feeds(path: Path) -> Feeds:
    """Read what `save_feeds` wrote; NumPy keeps bfloat16 as raw two-byte items, which get their type back."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name.removeprefix(_PREFIX): archive[name] for name in archive.files}
    return {
        name: array.view(ml_dtypes.bfloat16) if array.dtype.kind == "V" else array for name, array in arrays.items()
    }


def read_feeds(path: Path, inputs: list[Input]) -> Feeds:
    """Read a `.npz` (names are input names) or a folder of `input_<i>.pb`; raises `FeedError`."""
    if path.is_dir():
        files = sorted(path.glob("input_*.pb"), key=lambda file: int(re.sub(r"\D", "", file.stem) or 0))
        if not files:
            raise FeedError(f"The folder {path} holds no input_0.pb: give the data set folder of an ONNX test.")
        feeds = {}
        for file, given in zip(files, inputs, strict=False):
            tensor = onnx.TensorProto()
            try:
                tensor.ParseFromString(file.read_bytes())
                feeds[tensor.name or given.name] = numpy_helper.to_array(tensor)
            except Exception as error:
                raise FeedError(f"The feed {file} holds no tensor ({type(error).__name__}): copy it again.") from None
        return feeds
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("not an .npz archive")
        with archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:
        raise FeedError(f"The feeds {path} cannot be read ({error}): save them with numpy.savez.") from None


def _checked(feeds: Mapping[str, NDArray[Any]], inputs: list[Input]) -> Feeds:
    names = [given.name for given in inputs]
    for name in feeds:
        if name not in names:
            raise FeedError(f"The feeds hold {name!r}, which is no input of the model: {nearest(name, names)}")
    for given in inputs:
        if given.name not in feeds:
            raise FeedError(f"The feeds lack the input {given.name!r}: add it.")
        array = feeds[given.name]
        fits = len(array.shape) == len(given.shape) and all(
            not isinstance(dim, int) or dim == size for dim, size in zip(given.shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("?" if dim is None else str(dim) for dim in given.shape)
            got = list(array.shape)
            raise FeedError(f"Input {given.name!r} takes shape [{wanted}], not {got}: give one that fits.")
        if array.dtype.name != given.dtype:
            raise FeedError(f"Input {given.name!r} takes {given.dtype}, not {array.dtype.name}: convert the feed.")
    return {given.name: np.asarray(feeds[given.name], order="C") for given in inputs}
