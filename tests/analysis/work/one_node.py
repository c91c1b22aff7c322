"""One executed node for the work counter, written in a line."""

from __future__ import annotations

import json
from typing import Any

import onnx
import pandas as pd
from onnx import helper

from workbench.analysis.work import AMOUNTS, count_work

MS: dict[str, Any] = {"domain": "com.microsoft"}


def tensors(text: str) -> list[dict[str, list[int]]]:
    """Shapes as the profiler writes them, from "2x3 int64:4 scalar"; float unless said."""
    entries = [entry.rpartition(":") for entry in text.split()]
    return [
        {kind or "float": [] if dims == "scalar" else [int(d) for d in dims.split("x")]} for kind, _, dims in entries
    ]


def row(op_type: str, inputs: str, outputs: str, name: str = "n") -> dict[str, Any]:
    shapes = {"input_shapes": json.dumps(tensors(inputs)), "output_shapes": json.dumps(tensors(outputs))}
    return {"name": name, "op_type": op_type, "duration_ns": 1000, **shapes}


def node(op_type: str, slots: str, outputs: str = "y", *, domain: str = "", opset: int = 18, **attributes: Any) -> Any:
    """A graph of one node, its slots named, "-" where absent; "w3x4" is a float weight of that shape."""
    names = [[name.replace("-", "") for name in text.split()] for text in (slots, outputs)]
    built = helper.make_node(op_type, *names, name="n", domain=domain, **attributes)
    fixed = {name: name[1:].split("x") for name in slots.split() if name.startswith("w")}
    weights = [helper.make_tensor_value_info(name, 1, [int(d) for d in dims]) for name, dims in fixed.items()]
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(helper.make_graph([built], "g", weights, []), opset_imports=opsets)


def on(slots: str, outputs: str = "y", **attributes: Any) -> dict[str, Any]:
    return {"slots": slots, "outputs": outputs, **attributes}


def count(op_type: str, inputs: str, outputs: str, graph: onnx.ModelProto | None = None) -> pd.Series:
    return count_work(pd.DataFrame([row(op_type, inputs, outputs)]), graph).iloc[0]


def amounts(work: pd.Series) -> tuple[float, ...]:
    return tuple(work[list(AMOUNTS)])
