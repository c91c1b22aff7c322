"""When levers apply: each returns None, or one sentence why not. What is not known holds no lever back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workbench.config import Conversion
from workbench.diagnosis.situation import CONTROL_FLOW, MEMCPY, Situation

Condition = Callable[[Situation], str | None]

CONVOLUTIONS: Final = frozenset(("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "ConvTranspose"))
PRODUCTS: Final = frozenset(("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "GemmFastGelu", "TransposeMatMul"))
ATTENTION: Final = frozenset(
    ("Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention", "PackedMultiHeadAttention",
     "DecoderMaskedMultiHeadAttention", "DecoderMaskedSelfAttention")
)  # fmt: skip
HALVES: Final[tuple[Conversion, ...]] = ("float16", "float16_io", "bfloat16")
INT8: Final[tuple[Conversion, ...]] = ("int8_dynamic", "int8_static")
"""The scales of ONNX Runtime's quantizers are float32, so that neither of the two groups takes what the other made."""
TF32_SINCE: Final = (8, 0)  # tensor cores take TF32 since Ampere (CUDA C++ Programming Guide)
BFLOAT16_SINCE: Final = (8, 0)


def all_of(*conditions: Condition) -> Condition:
    """The reason of the first condition that has one."""

    def reason(situation: Situation) -> str | None:
        return next((said for condition in conditions if (said := condition(situation)) is not None), None)

    return reason


def on_gpu(situation: Situation) -> str | None:
    """The run is on a CUDA device."""
    return None if situation.on_gpu else "The run is on a CPU: profile it on a GPU first."


def on_cpu(situation: Situation) -> str | None:
    """The run is on a CPU."""
    return "The run is on a GPU, where this changes nothing." if situation.on_gpu else None


def holds(operators: frozenset[str], called: str) -> Condition:
    """The graph has at least one of these operators."""

    def reason(situation: Situation) -> str | None:
        if situation.graph is None or situation.graph.op_types & operators:
            return None
        return f"The graph has no {called}."

    return reason


def whole_graph_on_cuda(situation: Situation) -> str | None:
    """Every node runs on CUDA, without control flow and without copies between providers."""
    if situation.cpu_nodes:
        first = situation.cpu_nodes[0]
        return (
            f"A CUDA graph cannot hold nodes on the CPU, of which there are {len(situation.cpu_nodes)}, as {first!r}."
        )
    for operators, said in ((CONTROL_FLOW, "control flow"), (MEMCPY, "Memcpy nodes")):
        found = sorted(operators & situation.graph.op_types) if situation.graph is not None else []
        if found:
            return f"The graph has {said} ({', '.join(found)}), which a CUDA graph cannot hold."
    return None


def one_caller(situation: Situation) -> str | None:
    """One call at a time on each session."""
    return None if situation.config.concurrency == 1 else "Calls overlap on one session: set 'concurrency: 1' first."


def capability(least: tuple[int, int], called: str) -> Condition:
    """The device has at least this compute capability."""

    def reason(situation: Situation) -> str | None:
        known = situation.device.compute_capability
        if known is None or tuple(map(int, known.split("."))) >= least:
            return None
        return f"{called} needs compute capability {least[0]}.{least[1]}, and the device has {known}."

    return reason


def float32_products(situation: Situation) -> str | None:
    """Some matrix work is in float32."""
    if situation.matrix_dtypes is None or "float32" in situation.matrix_dtypes:
        return None
    return f"No matrix work is in float32, but in {', '.join(sorted(situation.matrix_dtypes)) or 'none at all'}."


def float32_model(situation: Situation) -> str | None:
    """Weights or matrix work in float32; in a model that has neither, the inputs."""
    found = set(situation.matrix_dtypes or ()) | set(situation.graph.weight_dtypes if situation.graph else ())
    found = found or {each.type for each in situation.model.inputs}
    if "float32" in found or (situation.matrix_dtypes is None and situation.graph is None):
        return None
    return "Neither weights nor matrix work are in float32."


def no_batch_norm(situation: Situation) -> str | None:
    """The file has no batch normalisation, of which the CUDA provider of ONNX Runtime 1.31 has no bfloat16 kernel."""
    if situation.graph is None or not situation.graph.batch_norm:
        return None
    return "CUDA has no bfloat16 kernel of BatchNormalization: export the model with it folded into the convolutions."


def float_weights(situation: Situation) -> str | None:
    """Some weights are floating-point."""
    if situation.graph is None or situation.graph.weight_dtypes:
        return None
    return "The graph has no floating-point weights."


def float32_weights(situation: Situation) -> str | None:
    """Some weights are in float32."""
    if situation.graph is None or "float32" in situation.graph.weight_dtypes:
        return None
    return f"No weights are in float32, but in {', '.join(sorted(situation.graph.weight_dtypes)) or 'no float at all'}."


def not_converted(*conversions: Conversion) -> Condition:
    """None of these conversions is made already."""

    def reason(situation: Situation) -> str | None:
        made = [each for each in conversions if each in situation.config.conversions]
        return f"The model is already converted to {made[0]!r}." if made else None

    return reason


def conv_1d(situation: Situation) -> str | None:
    """A convolution over one spatial dimension."""
    if situation.graph is None or not situation.graph.conv_ranks or 3 in situation.graph.conv_ranks:
        return None
    return "No convolution of the graph runs over one dimension only."


def open_dimension(situation: Situation) -> str | None:
    """An input has a dimension without a fixed size."""
    return None if situation.open_dimensions else "Every dimension of the inputs is fixed already."
