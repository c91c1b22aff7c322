"""Before anything runs: the model is read and checked, its batch set, its inputs made and written for the workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import onnx

from workbench.capture.feeds import make_feeds, save_feeds
from workbench.capture.model import has_fixed_batch, model_inputs, read_model, rebatch, sha256, type_and_shape
from workbench.config import RunConfig
from workbench.runs.manifest import ModelInfo, TensorInfo
from workbench.runs.writer import full_disk_is_said

_REBATCHED = "model.onnx"
_FEEDS = "feeds.npz"


@dataclass(frozen=True)
class Prepared:
    """Files for the workers, and what is known of them; `model_path` is the user's own unless its batch was changed."""

    model_path: Path
    feeds_path: Path
    info: ModelInfo
    notes: list[str] = field(default_factory=list)

    def remove_files(self) -> None:
        """Remove what `prepare` wrote; feeds are remade from the seed, the model stays the user's."""
        self.feeds_path.unlink(missing_ok=True)
        if self.info.rebatched_to is not None:
            self.model_path.unlink(missing_ok=True)


def prepare(config: RunConfig, folder: Path) -> Prepared:
    """Check the model and write the workers' files into `folder`.

    Raises `ModelError`, `FeedError` or `DiskFullError` before any worker starts.
    """
    path = Path(config.model)
    model = read_model(path)
    path = path.resolve()
    digest, size = sha256(path), path.stat().st_size
    rebatched_to = None
    if config.batch is not None and config.feeds is None and has_fixed_batch(model, config.batch):
        model = rebatch(model, config.batch)
        rebatched_to = config.batch
        path = folder / _REBATCHED
        with full_disk_is_said(folder):
            onnx.save_model(model, path)
    feeds, notes = make_feeds(model, config)
    feeds_path = folder / _FEEDS
    with full_disk_is_said(folder):
        save_feeds(feeds_path, feeds)
    held = {tensor.name for tensor in model.graph.initializer}
    if rebatched_to:
        notes.append(f"The model's batch is fixed in the file; it was changed to {rebatched_to} in a copy.")
    info = ModelInfo(
        name=Path(config.model).stem,
        sha256=digest,
        file_bytes=size,
        inputs=[TensorInfo(name=i.name, type=i.dtype, shape=list(i.shape)) for i in model_inputs(model)],
        outputs=[_output(value) for value in model.graph.output if value.name not in held],
        rebatched_to=rebatched_to,
        feed_shapes={name: list(array.shape) for name, array in feeds.items()},
        feed_dtypes={name: array.dtype.name for name, array in feeds.items()},
    )
    return Prepared(path, feeds_path, info, notes)


def _output(value: onnx.ValueInfoProto) -> TensorInfo:
    dtype, shape = type_and_shape(value)
    return TensorInfo(name=value.name, type=dtype, shape=list(shape))
