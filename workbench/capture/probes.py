"""What the doctor asks of libraries that may crash: each function runs in a process of its own."""

from __future__ import annotations

import ctypes
import sys
from importlib import metadata

from workbench.capture import libraries
from workbench.capture.tensorrt import tensorrt_problem


def provider() -> dict[str, str]:
    """Run a one-node model on the CUDA provider alone. Gives `provider`, or the `missing` libraries; else raises."""
    missing = libraries.missing_cuda_libraries()
    if missing:
        return {"missing": ", ".join(missing)}
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "probe", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")  # else a CPU session comes in silence
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CUDAExecutionProvider"])
    session.run(None, {"x": np.zeros(1, np.float32)})
    return {"provider": session.get_providers()[0]}


def tensorrt() -> dict[str, str]:
    """Load TensorRT as a session does. Gives the `problem`, which is empty when there is none."""
    return {"problem": tensorrt_problem()}


def cudnn() -> dict[str, str]:
    """Load cuDNN 9, which ONNX Runtime opens only when a node needs it. Gives its `version`; else raises `OSError`."""
    libraries.preload_cuda_libraries()
    get_version = ctypes.CDLL("cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9").cudnnGetVersion
    get_version.restype = ctypes.c_size_t
    number = get_version()
    return {"version": f"{number // 10_000}.{number % 10_000 // 100}.{number % 100}"}  # cudnn_version.h, from 9.0 on


def cupti() -> dict[str, str]:
    """Start and stop CUPTI as the activity pass does. Gives the `version`; else raises `SourceError`."""
    from workbench.capture.cupti import CuptiTrace

    with CuptiTrace():
        return {"version": metadata.version("cupti-python")}
