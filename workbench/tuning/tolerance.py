"""How far outputs may move before a variant is said to compute something else, from the precisions in use.

A tolerance bounds max|error| / max|base| of an output. Rounding errors of successive layers are nearly independent and
add up as a random walk (Higham and Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis"), so that
√64 = 8 times the spacing of the numbers is what 64 layers lead to. Measured on chains of 64 matrix products of width
512 with random weights, with and without residual sums: TF32 2^-8, FP16 2^-8 to 2^-7, BF16 2^-5 to 2^-4, INT8 2^-3 to
2^-2, 8-bit weights 2^-4, 4-bit weights (blocks of 32) 2^-1. Floating-point types get 4 times that, because outputs are
often a softmax, where the relative error is the absolute error of the logits, and these reach 3 to 4 times their spread
(the largest of a thousand normal ones is at 3.2): ResNet-50 with random weights gave 0.010 for TF32, 0.017 for FP16.
These bounds catch conversions that broke a model. Whether an application can live with what they let pass is for its
own metric to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workbench.config import RunConfig


@dataclass(frozen=True)
class Tolerance:
    """scaled: largest max|variant - base| / max|base| of an output. reason: which precision it allows for."""

    scaled: float
    reason: str


# float32 sums in another order: √4096 terms and √64 layers of units of 2^-24, and 4 for algorithms such as Winograd's
FLOAT32: Final = Tolerance(2.0**-11, "float32 sums in another order")
TF32: Final = Tolerance(2.0**-5, "TF32 in matrix products (32 times its spacing, 2^-10)")
FLOAT16: Final = Tolerance(2.0**-5, "float16 (32 times its spacing, 2^-10)")
BFLOAT16: Final = Tolerance(2.0**-2, "bfloat16 (32 times its spacing, 2^-7)")
INT8_WEIGHTS: Final = Tolerance(2.0**-4, "8-bit weights (8 times their step, 2^-7)")
INT8: Final = Tolerance(2.0**-3, "8-bit weights and activations (twice that of weights alone)")
# 16 times the step of 8 bits would allow any output; random weights move more than this, trained ones should not
INT4_WEIGHTS: Final = Tolerance(2.0**-2, "4-bit weights (twice their step, 2^-3)")

_OF_CONVERSION: Final = {
    "float16": FLOAT16,
    "float16_io": FLOAT16,
    "bfloat16": BFLOAT16,
    "int8_weights": INT8_WEIGHTS,
    "int8_dynamic": INT8,
    "int8_static": INT8,
    "int4_weights": INT4_WEIGHTS,
}


def tolerance_of(config: RunConfig, base: RunConfig) -> Tolerance:
    """The tolerance of the coarsest precision that either of the two uses.

    TF32 counts wherever a GPU may run float32 and it was not turned off, which is ONNX Runtime's default.
    """
    return max([FLOAT32, *_precisions(config), *_precisions(base)], key=lambda each: each.scaled)


def _precisions(config: RunConfig) -> list[Tolerance]:
    found = [_OF_CONVERSION[name] for name in config.conversions if name in _OF_CONVERSION]
    if config.provider != "cpu" and config.cuda.use_tf32 is not False:
        found.append(TF32)
    if config.provider == "tensorrt":
        used = {
            FLOAT16: config.tensorrt.trt_fp16_enable,
            BFLOAT16: config.tensorrt.trt_bf16_enable,
            INT8: config.tensorrt.trt_int8_enable,
        }
        found += [tolerance for tolerance, is_used in used.items() if is_used]
    return found
