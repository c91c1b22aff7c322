"""`python -m workbench.capture.convert`: one conversion in a process of its own, with a request on standard input."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from typing import Final

from workbench.capture.child import say_failed
from workbench.capture.convert.failures import failure
from workbench.capture.convert.optimized import optimized
from workbench.capture.convert.precision import bfloat16, float16, float16_io
from workbench.capture.convert.quantize import int8_dynamic, int8_static
from workbench.capture.convert.request import NOTES, Request
from workbench.capture.convert.shapes import fixed_shapes
from workbench.capture.convert.weights import int4_weights, int8_weights
from workbench.capture.libraries import preload_cuda_libraries
from workbench.capture.session import CPU, CUDA
from workbench.config.model import Conversion

_TOOLS: Final[dict[Conversion, Callable[[Request], list[str]]]] = {
    "float16": float16,
    "float16_io": float16_io,
    "bfloat16": bfloat16,
    "int8_dynamic": int8_dynamic,
    "int8_static": int8_static,
    "int8_weights": int8_weights,
    "int4_weights": int4_weights,
    "fixed_shapes": fixed_shapes,
    "optimized": optimized,
}


def main() -> int:
    """Carry out the request; returns the exit status."""
    request = Request.model_validate_json(sys.stdin.buffer.read())
    try:
        carry_out(request)
    except Exception as error:
        return say_failed(failure(request.conversion, error))
    return 0


def carry_out(request: Request) -> None:
    """Convert, check that the result loads, and write the notes; raises whatever the tool raises."""
    if request.device == "cuda":
        preload_cuda_libraries()
    request.scratch.mkdir()
    notes = _TOOLS[request.conversion](request)
    shutil.rmtree(request.scratch)
    _check_that_it_loads(request)
    (request.folder / NOTES).write_text(json.dumps(notes), encoding="utf-8")


def _check_that_it_loads(request: Request) -> None:
    """Raises what ONNX Runtime says of a node whose types or kernel do not fit, on the device of the run.

    The tools check little of what they write. Without optimisation, because only the nodes are in question.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    cuda = [(CUDA, {"device_id": str(request.config.cuda.device_id)})] if request.device == "cuda" else []
    ort.InferenceSession(str(request.target), options, providers=[*cuda, CPU], enable_fallback=False)


if __name__ == "__main__":
    sys.exit(main())
