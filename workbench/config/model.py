"""What is made of the model file before it is run: a piece of it, or what ONNX Runtime's own tools convert it to."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from workbench.config.strict import Strict
from workbench.errors import ConfigError

Conversion = Literal[
    "float16", "float16_io", "bfloat16", "int8_dynamic", "int8_static", "int8_weights", "int4_weights", "fixed_shapes",
    "optimized",
]  # fmt: skip
"""What ONNX Runtime's own tools can make of a model before it is run (`workbench.capture.convert`)."""


class Part(Strict):
    """A piece of the model that is run alone, on the values that reach it in the whole model.

    node: name of one node. Or inputs and outputs: the tensors that bound a block.
    """

    node: str | None = None
    inputs: list[str] = []
    outputs: list[str] = []

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.node) == bool(self.inputs or self.outputs):
            raise ConfigError("Option 'part' names either one 'node', or the 'inputs' and 'outputs' of a block.")
        if not self.node and not (self.inputs and self.outputs):
            raise ConfigError("Option 'part' needs both 'inputs' and 'outputs' to bound a block: name its tensors.")
        return self
