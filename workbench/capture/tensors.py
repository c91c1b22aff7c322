"""Values of a model's outputs on the CPU provider: ``python -m workbench.capture.tensors MODEL WEIGHTS FEEDS VALUES``.

In a process of its own, because a model can take all memory, run for ever or crash the process. An error is printed
as one line ``{"kind": class of workbench.errors, "message": sentence}``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

import onnx

from workbench.capture.feeds import Feeds, load_feeds, save_feeds
from workbench.errors import ModelError, OutOfMemoryError, WorkbenchError, WorkerError, WorkerTimeoutError, from_kind
from workbench.runs.writer import full_disk_is_said

FAILED: Final = 3  # exit status when the error was printed

_PACKAGE_PARENT: Final = Path(__file__).resolve().parents[2]
_LAST_WORDS: Final = 300
# NumPy holds these and bfloat16; ONNX Runtime gives 8-bit floats as bare bytes, and a string is no work for a GPU.
_FEEDABLE: Final = frozenset(
    f"tensor({name})"
    for name in "float float16 bfloat16 double bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()
)


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
        _run_child([model_file, weights_folder, feeds_file, values_file], timeout_s)
        return load_feeds(values_file)


def _run_child(arguments: list[Path], timeout_s: float | None) -> None:
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    paths = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WorkerTimeoutError(
            f"The values that reach the part were not computed within {timeout_s:g} s on the CPU: raise --timeout, or "
            "bound the part by inputs of the model."
        ) from None
    if done.returncode == FAILED:
        said = json.loads(done.stdout.splitlines()[-1])
        raise from_kind(said["kind"], said["message"])
    if done.returncode == -signal.SIGKILL:
        raise OutOfMemoryError(
            "The process that computes the values that reach the part was killed, as the system does when memory runs "
            "out: use a smaller batch or free memory."
        )
    if done.returncode:
        words = " ".join(done.stderr.split())[-_LAST_WORDS:]
        raise WorkerError(
            f"The process that computes the values that reach the part ended with status {done.returncode}: bound the "
            f"part by inputs of the model. Its last words: {words}"
        )


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
            if output.type not in _FEEDABLE:
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
    except (WorkbenchError, MemoryError) as error:
        kind = type(error) if isinstance(error, WorkbenchError) else OutOfMemoryError
        message = str(error) or "The host's memory is full: use a smaller batch."
        print(json.dumps({"kind": kind.__name__, "message": message}))
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
