"""INT8 activations and weights: ONNX Runtime's dynamic and static quantizers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import onnx
from numpy.typing import NDArray

from workbench.capture.convert.border import cast_feeds
from workbench.capture.convert.files import MOST_IN_ONE_FILE_BYTES, opset, total_bytes
from workbench.capture.convert.request import Request
from workbench.capture.feeds import load_feeds
from workbench.capture.subgraph import all_nodes
from workbench.errors import ModelError

_FIRST_PER_CHANNEL_OPSET: Final = 13
"""Of DequantizeLinear with an axis, which a scale for each output channel needs."""


def int8_dynamic(request: Request) -> list[str]:
    """Write the model with INT8 weights and activations whose scale is found in every call; return notes.

    Convolutions get unsigned weights: ONNX Runtime has no ConvInteger of unsigned activations and signed weights.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared, notes = _pre_processed(request)
    held = {node.op_type for node in all_nodes(onnx.load(prepared, load_external_data=False).graph)}
    quantize_dynamic(
        prepared,
        request.target,
        weight_type=QuantType.QUInt8 if "Conv" in held else QuantType.QInt8,
        use_external_data_format=_is_large(prepared),
    )
    made = _count(request.target, "DynamicQuantizeLinear")
    if not made:
        raise ModelError(
            "There is nothing to convert to 'int8_dynamic': the model has no MatMul or Conv with a float32 weight."
        )
    return [*notes, f"Conversion 'int8_dynamic' scales {made} activations in every call."]


def int8_static(request: Request) -> list[str]:
    """Write the model with QuantizeLinear and DequantizeLinear around INT8 operators; return notes.

    Symmetric and signed, which is what GPUs run; a scale for each output channel where the opset has it. The range of
    each activation is the least and largest value over the samples.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    prepared, notes = _pre_processed(request)
    model = onnx.load(prepared, load_external_data=False)

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # here, where its base is imported
        """One sample at a time, in the types that the model takes."""

        def __init__(self) -> None:
            self._samples = _samples(model, request.samples)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            return next(self._samples, None)

    quantize_static(
        prepared,
        request.target,
        Reader(),
        per_channel=opset(model) >= _FIRST_PER_CHANNEL_OPSET,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        use_external_data_format=_is_large(prepared),
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    made = _count(request.target, "QuantizeLinear")
    if not made:
        raise ModelError(
            "There is nothing to convert to 'int8_static': the model has no operator that ONNX Runtime quantizes."
        )
    samples = len(request.samples)
    return [*notes, f"Conversion 'int8_static' added {made} QuantizeLinear nodes; calibration samples: {samples}."]


def _samples(model: onnx.ModelProto, files: Sequence[Path]) -> Iterator[dict[str, NDArray[Any]]]:
    for file in files:
        yield cast_feeds(load_feeds(file), model)


def _pre_processed(request: Request) -> tuple[Path, list[str]]:
    """The model as the quantizer wants it: shapes inferred, batch normalisation folded into convolutions."""
    from onnxruntime.quantization import quant_pre_process

    target = request.scratch / "pre_processed.onnx"
    large = _is_large(request.source)
    options: dict[str, Any] = {
        "auto_merge": True,
        "skip_optimization": large,  # the tool's own advice above 2 GB
        "save_as_external_data": large,
    }
    try:
        quant_pre_process(str(request.source), str(target), **options)
    except Exception:  # symbolic inference gives up on operators that it does not know
        quant_pre_process(str(request.source), str(target), skip_symbolic_shape=True, **options)
        return target, [
            f"Before {request.conversion!r}, symbolic shape inference failed: unknown shapes stay in float32."
        ]
    return target, []


def _is_large(path: Path) -> bool:
    return total_bytes(path) > MOST_IN_ONE_FILE_BYTES


def _count(path: Path, op_type: str) -> int:
    graph = onnx.load(path, load_external_data=False).graph
    return sum(node.op_type == op_type for node in all_nodes(graph))
