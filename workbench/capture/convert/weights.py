"""Weight-only quantization: INT8 or INT4 weights that a kernel widens as it multiplies (MatMulNBits)."""

from __future__ import annotations

from typing import Final

import onnx

from workbench.capture.convert.files import write
from workbench.capture.convert.request import Request
from workbench.capture.subgraph import all_nodes
from workbench.errors import ModelError

_BLOCK_SIZE: Final = 32
"""Weights that share a scale: what ONNX Runtime's own command takes; larger blocks are smaller and less exact."""


def int8_weights(request: Request) -> list[str]:
    """Write the model with 8-bit weights of its MatMul nodes; return notes."""
    return _quantized(request, 8)


def int4_weights(request: Request) -> list[str]:
    """Write the model with 4-bit weights of its MatMul nodes; return notes."""
    return _quantized(request, 4)


def _quantized(request: Request, bits: int) -> list[str]:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    # symmetric: no zero points to read, and weights scatter around zero
    quantizer = MatMulNBitsQuantizer(onnx.load(request.source), bits=bits, block_size=_BLOCK_SIZE, is_symmetric=True)
    quantizer.process()
    model = quantizer.model.model
    made = sum(node.op_type == "MatMulNBits" for node in all_nodes(model.graph))
    if not made:
        raise ModelError(
            f"There is nothing to convert to {request.conversion!r}: the model has no MatMul with a constant weight."
        )
    write(model, request.target)
    return [f"Conversion {request.conversion!r} keeps the weights of {made} MatMul nodes in blocks of {_BLOCK_SIZE}."]
