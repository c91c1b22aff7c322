"""Fixed shapes: every open dimension of the inputs gets the size that it has in the run."""

from __future__ import annotations

import onnx

from workbench.capture.convert.files import MOST_IN_ONE_FILE_BYTES, weights_bytes, write
from workbench.capture.convert.request import Request
from workbench.capture.model import model_inputs
from workbench.errors import ModelError


def fixed_shapes(request: Request) -> list[str]:
    """Write the model with the shapes of the run's inputs, and of the outputs where they follow; return notes.

    Above 2 GB the outputs keep their names for sizes; ONNX Runtime infers them in any case.
    """
    from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_input_shape_fixed

    model = onnx.load(request.source)
    opened = [each.name for each in model_inputs(model) if any(not isinstance(size, int) for size in each.shape)]
    if not opened:
        raise ModelError("There is nothing to convert to 'fixed_shapes': the model's inputs have no open dimension.")
    for name in opened:
        make_input_shape_fixed(model.graph, name, request.shapes[name])
    if weights_bytes(model) <= MOST_IN_ONE_FILE_BYTES:  # it infers shapes in memory
        fix_output_shapes(model)
    write(model, request.target)
    return [f"Conversion 'fixed_shapes' fixed the shapes of {len(opened)} inputs: the model takes no other sizes."]
