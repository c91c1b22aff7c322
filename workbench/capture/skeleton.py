"""The optimised graph without its weights: what the analysis needs to count work, small enough for a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import helper, numpy_helper

from workbench.runs.writer import full_disk_is_said

KEPT_BYTES: Final = 1024  # small integer initializers are shapes, axes and indices: they stay


def write_skeleton(optimized: Path, target: Path) -> None:
    """Write the graph with every large initializer turned into a typed graph input; remove the original.

    Raises `DiskFullError`.
    """
    model = onnx.load_model(optimized, load_external_data=False)
    held = {value.name for value in model.graph.input}
    kept = []
    for tensor in model.graph.initializer:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        integer = np.issubdtype(dtype, np.integer)
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if integer and not external and numpy_helper.to_array(tensor).nbytes <= KEPT_BYTES:
            kept.append(tensor)
        elif tensor.name not in held:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    with full_disk_is_said(target):
        target.write_bytes(model.SerializeToString(deterministic=True))
    optimized.unlink()
    optimized.with_name("weights.bin").unlink(missing_ok=True)
