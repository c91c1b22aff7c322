"""How inputs reach the model and outputs leave it: one callable per binding, the same call in every pass."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from workbench.capture.feeds import Feeds
from workbench.config import RunConfig
from workbench.errors import FeedError, OutOfMemoryError, SourceError, UnsupportedModelError

if TYPE_CHECKING:
    import onnxruntime as ort

Call = Callable[[], Any]
_GRAPH_ID: Final = "gpu_graph_id"
_BFLOAT16: Final = "tensor(bfloat16)"
# NumPy holds these and bfloat16; ONNX Runtime gives 8-bit floats as bare bytes, and a string is no work for a GPU.
NUMERIC: Final = frozenset(
    f"tensor({name})"
    for name in "float float16 bfloat16 double bool int8 int16 int32 int64 uint8 uint16 uint32 uint64".split()
)
"""ONNX Runtime's names of the types whose values can be fed, kept and compared."""


@dataclass(frozen=True)
class Bound:
    """A session with its inputs in place. `call` runs the model once and returns when its outputs are ready;
    `outputs` does the same and gives them by name, as host arrays; raises `UnsupportedModelError` for one that is no
    tensor of numbers.
    """

    call: Call
    outputs: Callable[[], Feeds]


def bind(
    session: ort.InferenceSession, feeds: Feeds, config: RunConfig, device: str, options: ort.RunOptions | None
) -> Bound:
    """The call as the configuration's binding makes it.

    `numpy`: `session.run` on NumPy arrays. `device`: inputs and outputs stay on the device; ONNX Runtime allocates
    the outputs, except under a CUDA graph, which needs fixed addresses. `pinned`: page-locked host arrays. To learn the
    outputs' shapes, `pinned` and the CUDA graph run the model once while binding. Raises `FeedError` for bfloat16
    outside `device`, `UnsupportedModelError` for outputs that cannot be page-locked.
    """
    foreign = [("Input", name) for name, array in feeds.items() if array.dtype.name == "bfloat16"]
    foreign += [("Output", output.name) for output in session.get_outputs() if output.type == _BFLOAT16]
    if foreign and config.binding != "device":
        kind, name = foreign[0]
        raise FeedError(f"{kind} {name!r} is bfloat16, a type that NumPy lacks: use binding 'device'.")
    if config.binding == "numpy" or (config.binding == "pinned" and device == "cpu"):
        names = [output.name for output in session.get_outputs()]

        def outputs() -> Feeds:
            _require_numbers(session)
            return dict(zip(names, session.run(names, feeds, options), strict=True))

        return Bound(lambda: session.run(names, feeds, options), outputs)
    if config.binding == "pinned":
        _require_numbers(session)
        return _pinned(session, feeds, options)
    return _on_device(session, feeds, config, device, options)


def _require_numbers(session: ort.InferenceSession) -> None:
    for output in session.get_outputs():
        if output.type not in NUMERIC:
            raise UnsupportedModelError(
                f"Output {output.name!r} is {output.type} and no tensor of numbers, so that it can be neither "
                "page-locked nor compared: profile the model with binding 'numpy', or take a part that ends before it."
            )


def _on_device(
    session: ort.InferenceSession, feeds: Feeds, config: RunConfig, device: str, options: ort.RunOptions | None
) -> Bound:
    where = (device, config.cuda.device_id if device == "cuda" else 0)
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, _to_device(array, *where))
    for output in session.get_outputs():
        binding.bind_output(output.name, *where)
    if config.cuda_graph and device == "cuda":
        _fix_output_addresses(session, binding)

    def outputs() -> Feeds:
        _require_numbers(session)
        session.run_with_iobinding(binding, options)
        return {
            output.name: _to_host(value, output.type)
            for output, value in zip(session.get_outputs(), binding.get_outputs(), strict=True)
        }

    return Bound(lambda: session.run_with_iobinding(binding, options), outputs)


def _to_host(value: ort.OrtValue, ort_type: str) -> NDArray[Any]:
    """The value as an array of its own; ONNX Runtime gives no NumPy array of bfloat16, so its bytes are copied."""
    import onnx
    import onnxruntime as ort

    if ort_type != _BFLOAT16:
        array: NDArray[Any] = value.numpy()
        return array
    host = value
    if value.device_name() != "cpu":
        host = ort.OrtValue.ortvalue_from_shape_and_type(value.shape(), onnx.TensorProto.BFLOAT16)
        ort.copy_tensors([value], [host])
    raw = ctypes.string_at(host.data_ptr(), 2 * int(np.prod(value.shape())))
    return np.frombuffer(raw, ml_dtypes.bfloat16).reshape(value.shape())


def _to_device(array: NDArray[Any], device: str, device_id: int) -> ort.OrtValue:
    import onnx
    import onnxruntime as ort

    if array.dtype.name != "bfloat16":
        return ort.OrtValue.ortvalue_from_numpy(array, device, device_id)
    kind = onnx.TensorProto.BFLOAT16
    host = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), kind)
    if device == "cpu":
        return host
    value = ort.OrtValue.ortvalue_from_shape_and_type(array.shape, kind, device, device_id)
    ort.copy_tensors([host], [value])
    return value


def _fix_output_addresses(session: ort.InferenceSession, binding: ort.IOBinding) -> None:
    """Run once without capture, to learn the outputs' shapes, and keep those buffers bound."""
    import onnxruntime as ort

    eager = ort.RunOptions()
    eager.add_run_config_entry(_GRAPH_ID, "-1")
    session.run_with_iobinding(binding, eager)
    values = binding.get_outputs()
    binding.clear_binding_outputs()
    for output, value in zip(session.get_outputs(), values, strict=True):
        binding.bind_ortvalue_output(output.name, value)


def _pinned(session: ort.InferenceSession, feeds: Feeds, options: ort.RunOptions | None) -> Bound:
    """Inputs are bound anew in each call, because ONNX Runtime copies them to the device when they are bound."""
    import onnxruntime as ort

    binding = session.io_binding()
    locked = {name: _page_lock(array.copy()) for name, array in feeds.items()}
    inputs = [(name, ort.OrtValue.ortvalue_from_numpy(array)) for name, array in locked.items()]
    shapes = [array.shape for array in session.run(None, feeds, options)]
    outputs = []
    for output, shape in zip(session.get_outputs(), shapes, strict=True):
        outputs.append(_page_lock(np.zeros(shape, _numpy_type(output.type))))
        binding.bind_ortvalue_output(output.name, ort.OrtValue.ortvalue_from_numpy(outputs[-1]))

    def call() -> list[NDArray[Any]]:
        for name, value in inputs:
            binding.bind_ortvalue_input(name, value)
        session.run_with_iobinding(binding, options)
        return outputs

    names = [output.name for output in session.get_outputs()]
    return Bound(call, lambda: {name: array.copy() for name, array in zip(names, call(), strict=True)})


def _numpy_type(ort_type: str) -> np.dtype[Any]:
    name = ort_type.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))


def _page_lock(array: NDArray[Any]) -> NDArray[Any]:
    """Page-lock the array's memory with cuMemHostRegister (CUDA driver API); raises `OutOfMemoryError`."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise SourceError("Binding 'pinned' needs the CUDA driver's libcuda.so.1: use binding 'numpy'.") from None
    if array.nbytes:
        result = driver.cuMemHostRegister_v2(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), 0)
        if result:
            raise OutOfMemoryError(
                f"{array.nbytes} bytes cannot be page-locked (CUDA error {result}): raise the limit or bind 'numpy'."
            )
    return array
