"""Before anything runs: the model is read, cut and converted, its inputs made, and all written for the workers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import onnx

from workbench.capture.convert.border import cast_feeds
from workbench.capture.convert.cached import convert
from workbench.capture.feeds import Feeds, make_feeds, save_feeds
from workbench.capture.model import has_fixed_batch, model_inputs, read_model, rebatch, sha256, type_and_shape
from workbench.capture.part import WEIGHTS_FILE, cut_part
from workbench.capture.resolve import Device
from workbench.capture.skeleton import write_skeleton
from workbench.config import Part, RunConfig
from workbench.runs.manifest import ModelInfo, TensorInfo
from workbench.runs.writer import MODEL_GRAPH, full_disk_is_said

DEFAULT_TIMEOUT_S: Final = 600.0

CALIBRATION_SAMPLES: Final = 8
"""Made inputs that static quantization sees: the extremes of normal noise hardly move after a few."""

_REBATCHED = "rebatched.onnx"
_FEEDS = "feeds.npz"


@dataclass(frozen=True)
class Prepared:
    """Files for the workers, and what is known of them.

    model_path: the user's own file; or a copy, its batch changed or a part cut out of it; or a converted model in the
    user's cache. later_feeds: a file for each of `RunConfig.later_shapes`. optimized: the model is the graph that ONNX
    Runtime optimised, and has to be loaded with optimisation off. written: what `remove_files` removes.
    """

    model_path: Path
    feeds_path: Path
    info: ModelInfo
    notes: list[str] = field(default_factory=list)
    later_feeds: list[Path] = field(default_factory=list)
    optimized: bool = False
    written: list[Path] = field(default_factory=list)

    def remove_files(self) -> None:
        """Remove what `prepare` wrote into its folder; all of it can be made again from the model and the seed."""
        for file in self.written:
            file.unlink(missing_ok=True)


@dataclass
class _Work:
    """The model and its feeds on their way through the steps, each of which changes them."""

    path: Path
    model: onnx.ModelProto
    feeds: Feeds = field(default_factory=dict)
    later_feeds: list[Feeds] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)


def prepare(
    config: RunConfig, folder: Path, device: Device = "cpu", *, timeout_s: float | None = DEFAULT_TIMEOUT_S
) -> Prepared:
    """Check the model, change it as the configuration says, and write the workers' files and its graph into `folder`.

    The batch is set first, then feeds are made, the part is cut out, and the conversions follow in their order.
    device: where the model will run. timeout_s holds for the part and for each conversion. Raises `ModelError`,
    `FeedError`, `ConfigError`, `WorkerTimeoutError`, `OutOfMemoryError` or `DiskFullError` before any worker starts.
    """
    path = Path(config.model)
    work = _Work(path.resolve(), read_model(path))
    digest, size = sha256(work.path), work.path.stat().st_size
    rebatched_to = _set_batch(work, config, folder)
    work.feeds, said = make_feeds(work.model, config)
    work.notes += said
    for shapes in config.later_shapes:
        changed = config.changed(shapes={**config.shapes, **shapes}, later_shapes=[])
        work.later_feeds.append(make_feeds(work.model, changed)[0])
    if config.part is not None:
        _cut(work, config.part, folder, timeout_s)
    if config.conversions:
        _convert(work, config, folder, device, timeout_s)
    feeds_path, *later_paths = _write_feeds(work, folder)
    held = {tensor.name for tensor in work.model.graph.initializer}
    info = ModelInfo(
        name=Path(config.model).stem,
        sha256=digest,
        file_bytes=size,
        inputs=[TensorInfo(name=i.name, type=i.dtype, shape=list(i.shape)) for i in model_inputs(work.model)],
        outputs=[_output(value) for value in work.model.graph.output if value.name not in held],
        rebatched_to=rebatched_to,
        part=config.part.model_dump(exclude_defaults=True) if config.part else None,
        conversions=list(config.conversions),
        feed_shapes={name: list(array.shape) for name, array in work.feeds.items()},
        feed_dtypes={name: array.dtype.name for name, array in work.feeds.items()},
    )
    write_skeleton(work.model, folder / MODEL_GRAPH)
    return Prepared(
        work.path, feeds_path, info, work.notes, later_paths, "optimized" in config.conversions, work.written
    )


def _set_batch(work: _Work, config: RunConfig, folder: Path) -> int | None:
    if config.batch is None or config.feeds is not None or not has_fixed_batch(work.model, config.batch):
        return None
    work.model = rebatch(work.model, config.batch)
    work.path = folder / _REBATCHED
    work.written.append(work.path)
    with full_disk_is_said(folder):
        onnx.save_model(work.model, work.path)
    work.notes.append(f"The model's batch is fixed in the file; it was changed to {config.batch} in a copy.")
    return config.batch


def _cut(work: _Work, part: Part, folder: Path, timeout_s: float | None) -> None:
    work.path, work.feeds, said = cut_part(work.path, part, work.feeds, folder, timeout_s=timeout_s)
    work.written += [work.path, folder / WEIGHTS_FILE]
    work.notes += said
    work.model = read_model(work.path)


def _convert(work: _Work, config: RunConfig, folder: Path, device: Device, timeout_s: float | None) -> None:
    shapes = {name: list(array.shape) for name, array in work.feeds.items()}
    samples: list[Path] = []
    try:
        if "int8_static" in config.conversions:
            for sample in _samples(work, config):
                samples.append(folder / f"sample_{len(samples)}.npz")
                with full_disk_is_said(folder):
                    save_feeds(samples[-1], sample)
        for conversion in config.conversions:
            converted = convert(
                work.path, conversion, config, device=device, shapes=shapes, samples=samples, timeout_s=timeout_s
            )
            work.path = converted.path
            work.notes += converted.notes
    finally:
        for file in samples:
            file.unlink(missing_ok=True)
    work.model = read_model(work.path)
    work.feeds = cast_feeds(work.feeds, work.model)
    work.later_feeds = [cast_feeds(each, work.model) for each in work.later_feeds]


def _samples(work: _Work, config: RunConfig) -> Iterator[Feeds]:
    """The run's own feeds, then others of the same shapes from later seeds where feeds are made at all."""
    yield work.feeds
    if config.feeds is None and config.part is None:
        for seed in range(config.seed + 1, config.seed + CALIBRATION_SAMPLES):
            yield make_feeds(work.model, config.changed(seed=seed))[0]


def _write_feeds(work: _Work, folder: Path) -> list[Path]:
    """Files of the first feeds and of each later ones, in their order."""
    paths = [folder / _FEEDS, *(folder / f"later_feeds_{index}.npz" for index in range(len(work.later_feeds)))]
    work.written += paths
    with full_disk_is_said(folder):
        for path, feeds in zip(paths, [work.feeds, *work.later_feeds], strict=True):
            save_feeds(path, feeds)
    return paths


def _output(value: onnx.ValueInfoProto) -> TensorInfo:
    dtype, shape = type_and_shape(value)
    return TensorInfo(name=value.name, type=dtype, shape=list(shape))
