"""Models made by construction, each with the class that it must show."""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import onnx

from workbench.config.strict import nearest
from workbench.errors import ConfigError, DiskFullError, ModelError
from workbench.zoo import classifier, families, transformer
from workbench.zoo.classifier import CLASSIFIERS

__all__ = [
    "CLASSIFIERS", "ZooModel", "build", "models", "resnet50_path", "write", "write_classifier", "write_resnet50",
]  # fmt: skip

DTYPES: Final = ("float16", "float32")

MAX_SIZE: Final = 2**31 - 1
"""ONNX Runtime's CUDA kernels index elements with int32."""


@dataclass(frozen=True)
class ZooModel:
    """A family of models.

    shows: the class of a run of its default parameters, at batch 1 where the batch is open.
    binding: the `RunConfig.binding` under which it shows that class; the class belongs to the run, not to the model.
    parameters: name → default. sized_by: the parameter that scales the work.
    """

    name: str
    shows: str
    binding: str
    summary: str
    parameters: dict[str, int | str] = field(hash=False)
    sized_by: str
    _make: Callable[..., onnx.ModelProto] = field(repr=False, compare=False)


def _family(
    make: Callable[..., onnx.ModelProto], *, shows: str, sized_by: str, summary: str, binding: str = "device"
) -> ZooModel:
    parameters = {name: each.default for name, each in inspect.signature(make).parameters.items()}
    return ZooModel(make.__name__, shows, binding, summary, parameters, sized_by, make)


_MODELS: Final = (
    _family(families.compute, shows="compute", sized_by="n", summary="Chained square matrix products."),
    _family(families.memory, shows="memory", sized_by="elements", summary="A chain of unary operators, large array."),
    _family(
        families.pcie,
        shows="pcie",
        sized_by="elements",
        summary="The sum of a large array copied in on every call.",
        binding="numpy",
    ),
    _family(families.launch, shows="launch", sized_by="nodes", summary="Many tiny nodes, each after the other."),
    _family(
        families.narrow,
        shows="launch",
        sized_by="width",
        summary="A chain of row normalisations, one thread block a row; a batch of 1.",
    ),
    _family(
        families.mlp,
        shows="memory",
        sized_by="width",
        summary="Rows times one large weight, again and again; compute from a batch of hundreds.",
    ),
    _family(
        families.conv,
        shows="compute",
        sized_by="channels",
        summary="Convolutions 3×3 by one shared weight; from a batch that fills the GPU.",
    ),
    _family(transformer.encoder, shows="launch", sized_by="layers", summary="A transformer encoder; a batch of 1."),
    _family(
        transformer.decoder,
        shows="launch",
        sized_by="layers",
        summary="One decoder step with a key-value cache; a batch of 1.",
    ),
)
_BY_NAME: Final = {model.name: model for model in _MODELS}


def models() -> tuple[ZooModel, ...]:
    """Every family that `build` knows, the families of one kind of work first."""
    return _MODELS


def build(name: str, **parameters: int | str) -> onnx.ModelProto:
    """The model `name` with `parameters` over its defaults; equal arguments give equal bytes.

    Raises `ConfigError` on an unknown model or parameter, naming the nearest one, and on an impossible value.
    """
    model = _BY_NAME.get(name)
    if model is None:
        raise ConfigError(f"The zoo has no model {name!r}: {nearest(name, _BY_NAME)}")
    for parameter, value in parameters.items():
        if parameter not in model.parameters:
            hint = nearest(parameter, model.parameters)
            raise ConfigError(f"Model '{name}' has no parameter {parameter!r}: {hint}")
        _check(name, parameter, value, model.parameters[parameter])
    return model._make(**parameters)


def write(name: str, path: str | os.PathLike[str], **parameters: int | str) -> Path:
    """Build and write one `.onnx` file atomically, make missing folders on the way, and return its path.

    Raises `ConfigError` as `build` does or when the file cannot be written, `DiskFullError` on a full disk.
    """
    return _write(build(name, **parameters), Path(path))


def write_classifier(name: str, path: str | os.PathLike[str], seed: int = 0) -> Path:
    """Write one of `CLASSIFIERS` (input [batch, 3, 224, 224] float32) with seeded weights atomically; return its path.

    ResNet-50 takes 102 MB, ShuffleNet 6 MB, SqueezeNet 5 MB. The architecture is that of the onnx package's graph,
    whose weights are constants; here outputs vary with the input, so that they can be compared and calibrated on.
    Equal seeds give equal bytes on one kind of CPU. Raises `ConfigError` on an unknown name, naming the nearest one,
    `ModelError` when the onnx package lacks the graph, and as `write` does.
    """
    if name not in CLASSIFIERS:
        raise ConfigError(f"The zoo has no classifier {name!r}: {nearest(name, CLASSIFIERS)}")
    _check(name, "seed", seed, 0)
    return _write(classifier.seeded(onnx.load(_light_path(name)), name, seed), Path(path))


def write_resnet50(path: str | os.PathLike[str], seed: int = 0) -> Path:
    """`write_classifier` of ResNet-50."""
    return write_classifier("resnet50", path, seed)


def _write(model: onnx.ModelProto, target: Path) -> Path:
    data = model.SerializeToString(deterministic=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(data)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFullError(f"The disk is full: free {len(data)} bytes for {target}.") from None
        raise ConfigError(f"Cannot write {target}: {error.strerror}; choose another path.") from None
    return target


def resnet50_path() -> Path:
    """ResNet-50 (input [1, 3, 224, 224] float32) as the onnx package ships it; `ModelError` when it is not there.

    Its weights are constant fills: its values mean nothing, its shapes and its work are those of the real network.
    """
    return _light_path("resnet50")


def _light_path(name: str) -> Path:
    path = Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx"
    if not path.is_file():
        raise ModelError(f"The installed onnx {onnx.__version__} ships no {path.name}: reinstall it from its wheel.")
    return path


def _check(model: str, parameter: str, value: object, default: int | str) -> None:
    if isinstance(default, str):
        if value not in DTYPES:
            raise ConfigError(f"Parameter '{parameter}' of '{model}' cannot be {value!r}: {' or '.join(DTYPES)}.")
        return
    least = 0 if parameter == "seed" else 1
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_SIZE:
        raise ConfigError(
            f"Parameter '{parameter}' of '{model}' cannot be {value!r}: give a whole number from {least} to {MAX_SIZE}."
        )
