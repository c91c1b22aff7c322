"""Values of a model's outputs on the CPU provider: ``python -m workbench.capture.tensors MODEL WEIGHTS FEEDS VALUES``.

In a process of its own (`capture.child`), because a model can take all memory, run for ever or crash the process.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import onnx

from workbench.capture.binding import NUMERIC
from workbench.capture.child import run_child, say_failed
from workbench.capture.feeds import Feeds, load_feeds, save_feeds
from workbench.errors import ModelError, OutOfMemoryError, WorkbenchError
from workbench.runs.writer import full_disk_is_said


def output_values(
    model: onnx.ModelProto, weights_folder: Path, feeds: Feeds, folder: Path, *, timeout_s: float | None
) -> Feeds:
    """Run the model once, in a child process without graph optimisation, and give its outputs by name.

    weights_folder: where the model's external data lies. folder: for temporary files. Raises what ONNX Runtime says
    of the model or its inputs, `ModelError` for an output that cannot be a feed, `WorkerTimeoutError`,
    `OutOfMemoryError`, `DiskFullError`, or `WorkerError` when the process died without a word.
    """
    with full_disk_is_said(folder), tempfile.TemporaryDirectory(dir=folder) as temporary:
        model_file, feeds_file, values_file = (Path(temporary, name) for name in ("m.onnx", "feeds.npz", "values.npz"))
        model_file.write_bytes(model.SerializeToString())
        save_feeds(feeds_file, feeds)
        run_child(
            __name__,
            [str(path) for path in (model_file, weights_folder, feeds_file, values_file)],
            what="The computation of the values that reach the part, on the CPU,",
            otherwise="bound the part by inputs of the model",
            timeout_s=timeout_s,
        )
        return load_feeds(values_file)


def _compute(model: Path, weights_folder: Path, feeds: Feeds) -> Feeds:
    import onnxruntime as ort

    from workbench.capture.binding import bind
    from workbench.capture.session import CPU, explain
    from workbench.config import RunConfig

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(weights_folder))
    try:
        # as bytes, because for a file ONNX Runtime looks for external data beside it and nowhere else
        session = ort.InferenceSession(model.read_bytes(), options, providers=[CPU])
        for output in session.get_outputs():
            if output.type not in NUMERIC:
                raise ModelError(
                    f"Tensor {output.name!r} at the border of the part is {output.type}, which cannot be fed: move "
                    "the border."
                )
        config = RunConfig(model=str(model), provider="cpu", binding="device")  # which gives bfloat16 too
        return bind(session, feeds, config, "cpu", None).outputs()
    except Exception as error:
        raise explain(error) from None


def main(model: str, weights_folder: str, feeds: str, values: str) -> int:
    """Compute the outputs and write them to the file `values`; returns the exit status."""
    try:
        with full_disk_is_said(Path(values).parent):
            save_feeds(Path(values), _compute(Path(model), Path(weights_folder), load_feeds(Path(feeds))))
    except WorkbenchError as error:
        return say_failed(error)
    except MemoryError:
        return say_failed(OutOfMemoryError("The host's memory is full: use a smaller batch."))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
