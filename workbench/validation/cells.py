"""What is recorded: groups of configurations of one model, split by family into those that thresholds were chosen on
and those that are only scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import onnx

from workbench import zoo
from workbench.config import Budget, RunConfig
from workbench.diagnosis.levers.entry import laid_over

MORE: Final = 4
"""How many times as large the batch is in the arms that ask what a larger one costs."""

ON_GPU: Final[Mapping[str, Any]] = {"provider": "cuda"}

_ON_DEVICE: Final = {"binding": "device"}
_GRAPH: Final = {"binding": "device", "cuda_graph": True}

ARMS: Final[Mapping[str, Mapping[str, Any]]] = {
    "numpy": {},
    "pinned": {"binding": "pinned"},
    "device": _ON_DEVICE,
    "graph": _GRAPH,
    "tf32-off": {**_ON_DEVICE, "cuda": {"use_tf32": False}},
    "float16": {**_ON_DEVICE, "conversions": ["float16"]},
    "int8-weights": {**_ON_DEVICE, "conversions": ["int8_weights"]},
    "more": _ON_DEVICE,
    "graph-more": _GRAPH,
}
"""Arm → what it lays over the group's options."""

LARGER: Final = ("more", "graph-more")
"""Arms with `MORE` times the batch."""

TRACED: Final = Budget(
    seconds=1.5, min_seconds=0.6, max_calls=1500, activity_calls=4, nodes_calls=3, counters_seconds=1.0
)
"""Of the runs: few calls in the traced passes keep a run folder small."""

BLOCK: Final = Budget(seconds=1.0, min_seconds=0.2, min_calls=20, max_calls=500)
"""Of the arms that are only timed."""


@dataclass(frozen=True)
class Recipe:
    """A model that can be made anywhere. source: `zoo`, with parameters; `classifier`, a network of the zoo's with
    seeded weights; `light`, a graph that the onnx package ships, with constants for weights.
    """

    source: str
    name: str
    parameters: Mapping[str, int | str] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """A name for the file that tells models apart."""
        return "-".join([self.name, *(f"{name}-{value}" for name, value in self.parameters.items())]) + ".onnx"

    def write(self, folder: Path) -> Path:
        """The model's file in `folder`, made where it is not there yet."""
        path = folder / self.file
        if path.is_file():
            return path
        if self.source == "zoo":
            return zoo.write(self.name, path, **self.parameters)
        if self.source == "classifier":
            return zoo.write_classifier(self.name, path)
        light = Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{self.name}.onnx"
        path.write_bytes(light.read_bytes())
        return path


@dataclass(frozen=True)
class Group:
    """Configurations of one model and one batch, timed in turn so that they can be compared.

    scored: only scored, never looked at when a threshold was chosen. options: of every arm. cells: the arms that are
    also recorded with every pass → the label that the construction gives, None where only interventions can label it;
    two classes joined by `+` are a border between them. timed: the arms that only interventions need.
    """

    name: str
    family: str
    scored: bool
    recipe: Recipe
    cells: Mapping[str, str | None]
    timed: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arms(self) -> tuple[str, ...]:
        """All arms, those that are cells first."""
        return (*self.cells, *self.timed)

    @property
    def real(self) -> bool:
        """Whether it is a network that people run, whose class no construction gives."""
        return all(label is None for label in self.cells.values())

    def config(self, arm: str, models: Path, budget: Budget, device: Mapping[str, Any] = ON_GPU) -> RunConfig:
        """The configuration of an arm; its model has to be in the folder `models`. device: options of where it runs."""
        options = laid_over({"model": str(models / self.recipe.file), **self.options}, ARMS[arm])
        if arm in LARGER:
            options["batch"] = MORE * options.get("batch", 1)
        return RunConfig(**laid_over(options, device), budget=budget)


def cell_name(group: str, arm: str) -> str:
    """The name of a cell, and of its run folder."""
    return f"{group}-{arm}"


def groups() -> tuple[Group, ...]:
    """The whole set, in the order in which it is recorded."""
    return (*_chosen_on(), *_scored())


def _zoo(name: str, **parameters: int | str) -> Recipe:
    return Recipe("zoo", name, parameters)


def _chosen_on() -> tuple[Group, ...]:
    mi = 2**20
    return (
        _group("compute", "n2048", _zoo("compute", n=2048), {"device": "compute"}, ("graph",)),
        _group("compute", "n4096", _zoo("compute", n=4096), {"device": "compute", "numpy": "pcie"}, ("graph",)),
        _group("compute", "n8192", _zoo("compute", n=8192, depth=4), {"device": "compute"}, ("graph",)),
        _group(
            "compute", "n4096-float32", _zoo("compute", n=4096, dtype="float32"), {"device": "compute"},
            ("numpy", "graph", "tf32-off"),
        ),
        _group(
            "compute", "border-pcie", _zoo("compute", n=2048, depth=52), {"numpy": "compute+pcie"}, ("device", "graph")
        ),
        _group("memory", "16mi", _zoo("memory", elements=16 * mi), {"device": "memory"}, ("graph", "float16")),
        _group(
            "memory", "64mi", _zoo("memory"), {"device": "memory", "numpy": "pcie"}, ("graph", "float16"),
        ),
        _group("memory", "64mi-deep", _zoo("memory", depth=32), {"device": "memory"}, ("graph", "float16")),
        _group(
            "memory", "border-pcie", _zoo("memory", elements=16 * mi, depth=384), {"numpy": "memory+pcie"},
            ("device", "graph"),
        ),
        _group(
            "memory", "border-launch", _zoo("memory", elements=5 * mi // 2, depth=100), {"device": "launch+memory"},
            ("graph",),
        ),
        _group("pcie", "4mi", _zoo("pcie", elements=4 * mi), {"numpy": "pcie"}, ("device", "graph")),
        _group("pcie", "64mi", _zoo("pcie"), {"numpy": "pcie", "pinned": "pcie"}, ("device", "graph")),
        _group("launch", "100", _zoo("launch", nodes=100), {"device": "launch"}, ("graph",)),
        _group(
            "launch", "300", _zoo("launch"), {"device": "launch", "numpy": "launch", "graph": "launch"},
        ),
        _group("launch", "1000", _zoo("launch", nodes=1000), {"device": "launch"}, ("graph",)),
        *_network("resnet50", Recipe("classifier", "resnet50"), (1, 4, 16, 64), scored=False, numpy=(1, 64)),
        *_network("encoder", _zoo("encoder"), (1, 8, 32), scored=False, numpy=(8,), dims={"sequence": 128}),
        *_network("decoder", _zoo("decoder"), (1, 8, 32), scored=False, dims={"past_sequence": 128}),
    )  # fmt: skip


def _scored() -> tuple[Group, ...]:
    group = partial(_group, scored=True)
    mlp, mlp_float32 = _zoo("mlp"), _zoo("mlp", width=4096, dtype="float32")
    rows, conv_float32 = _zoo("narrow", width=16384, depth=8), _zoo("conv", dtype="float32")
    return (
        group("mlp", "batch-1", mlp, {"device": "memory"}, ("graph", "int8-weights")),
        group("mlp", "batch-8", mlp, {"device": "memory"}, ("graph",), options={"batch": 8}),
        group("mlp", "batch-192", mlp, {"device": "compute+memory"}, ("graph",), options={"batch": 192}),
        group(
            "mlp", "batch-4096", mlp, {"device": "compute", "numpy": "compute+pcie"}, ("graph",),
            options={"batch": 4096},
        ),
        group("mlp", "float32-1", mlp_float32, {"device": "memory"}, ("graph", "tf32-off", "float16")),
        group(
            "mlp", "float32-4096", mlp_float32, {"device": "compute"}, ("graph", "tf32-off"), options={"batch": 4096}
        ),
        group("mlp", "tiny", _zoo("mlp", width=256, depth=128), {"device": "launch"}, ("graph",)),
        group("narrow", "row-1", _zoo("narrow"), {"device": "launch"}, ("graph", "graph-more", "more")),
        group(
            "narrow", "row-8", _zoo("narrow"), {"device": "launch"}, ("graph", "graph-more", "more"),
            options={"batch": 8},
        ),
        group(
            "narrow", "rows-4096", rows, {"device": "memory", "numpy": "pcie", "pinned": "pcie"}, ("graph", "float16"),
            options={"batch": 4096},
        ),
        group("narrow", "rows-1024", rows, {"device": "memory"}, ("graph", "float16"), options={"batch": 1024}),
        group(
            "conv", "float16", _zoo("conv"), {"device": "compute", "numpy": "pcie"}, ("graph",), options={"batch": 8}
        ),
        group("conv", "float32", conv_float32, {"device": "compute"}, ("graph", "tf32-off"), options={"batch": 8}),
        group(
            "conv", "border-pcie", _zoo("conv", dtype="float32", depth=10), {"pinned": "compute+pcie"},
            ("device", "graph"), options={"batch": 4},
        ),
        group("conv", "tiny", _zoo("conv", channels=16, size=14, depth=100), {"device": "launch"}, ("graph",)),
        group("tiny", "100", _zoo("memory", elements=4096, depth=100), {"device": "launch"}, ("graph",)),
        group(
            "tiny", "300", _zoo("memory", elements=4096, depth=300),
            {"device": "launch", "numpy": "launch", "graph": "launch"},
        ),
        group("tiny", "1000", _zoo("memory", elements=65536, depth=1000), {"device": "launch"}, ("graph",)),
        *_network("squeezenet", Recipe("classifier", "squeezenet"), (1, 4, 16, 64), scored=True, numpy=(16,)),
        *_network("shufflenet", Recipe("classifier", "shufflenet"), (1, 4, 16, 64), scored=True, numpy=(64,)),
        *_network("densenet121", Recipe("light", "densenet121"), (1, 32), scored=True),
        *_network("inception_v1", Recipe("light", "inception_v1"), (1, 32), scored=True, numpy=(32,)),
    )  # fmt: skip


def _group(
    family: str,
    name: str,
    recipe: Recipe,
    cells: Mapping[str, str | None],
    timed: tuple[str, ...] = (),
    *,
    scored: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Group:
    return Group(f"{family}-{name}", family, scored, recipe, cells, timed, options or {})


def _network(
    family: str,
    recipe: Recipe,
    batches: tuple[int, ...],
    *,
    scored: bool,
    numpy: tuple[int, ...] = (),
    dims: Mapping[str, int] | None = None,
) -> tuple[Group, ...]:
    """A network at several batches, on the device and, at some, with NumPy arrays in and out."""
    return tuple(
        _group(
            family,
            f"batch-{batch}",
            recipe,
            {"device": None, **({"numpy": None} if batch in numpy else {})},
            ("graph", *(LARGER if MORE * batch not in batches else ()), "tf32-off"),
            scored=scored,
            options={"batch": batch, **({"dims": dict(dims)} if dims else {})},
        )
        for batch in batches
    )
