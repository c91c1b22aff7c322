"""Matrix products with sizes that are no multiples of what one load of a tensor-core kernel takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from workbench.analysis.work.shapes import GraphNodes, NodeShapes, ShapesMissingError, parse_shapes
from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.levers import lever
from workbench.diagnosis.levers.conditions import PRODUCTS

RULE: Final = "misaligned-gemm"
LEAST_SHARE: Final = 0.02
"""Of T that may be saved; below, nobody would notice."""
MULTIPLE: Final = {"float16": 8, "bfloat16": 8, "float32": 4}
"""Elements in 16 bytes, one load of a thread; float32 as TF32 (NVIDIA, "Matrix Multiplication Background User's Guide",
section "Tensor Core Requirements")."""
CONVOLUTIONS: Final = ("Conv", "FusedConv")
"""With channels first; a 1×1 kernel makes them products whose rows are the pixels of an image."""
_NODE_KEY: Final = ["node_index", "name", "op_type"]


def rule(case: Case) -> Iterator[Finding]:
    """Nodes that run GEMM kernels with a misaligned contiguous dimension.

    What may be saved is at most what these kernels take beyond the ceilings of their nodes.
    """
    found = case.diagnosis.nodes
    if not case.on_gpu or found is None or not len(found.executions):
        return
    tf32 = case.situation.cuda_options.get("use_tf32") == "1"
    able = [name for name in MULTIPLE if name != "float32" or tf32]
    kernels = case.kernels
    products = kernels["op_type"].isin((*PRODUCTS, *CONVOLUTIONS)) & kernels["dtype"].isin(able)
    kernels = kernels[products & (kernels["family"] == "GEMM")]
    longest = kernels.drop_duplicates("node").set_index("node")["kernel"]
    times = kernels.groupby("node")["time_ns"].sum()
    nodes = found.nodes.rename(columns={"time_ns": "node_ns"}).join(times, how="inner")
    shapes = found.executions.drop_duplicates(_NODE_KEY)[[*_NODE_KEY, "input_shapes", "output_shapes"]]
    table = nodes.join(longest).merge(shapes, on=_NODE_KEY)
    graph = GraphNodes(case.run.graph)
    columns = ["name", "op_type", "dtype", "input_shapes", "output_shapes"]
    table["misaligned"] = [  # a row is a distinct node
        _misaligned(graph.bind(name, op_type, parse_shapes(inputs), parse_shapes(outputs)), MULTIPLE[dtype])
        for name, op_type, dtype, inputs, outputs in table[columns].astype(object).itertuples(index=False)
    ]
    table = table[table["misaligned"] != ""].sort_values("time_ns", ascending=False)
    beyond_ns = table["time_ns"] - table[["compute_bound_ns", "memory_bound_ns"]].max(axis=1)
    saves = float(beyond_ns.clip(lower=0).sum())
    if not len(table) or saves < LEAST_SHARE * case.latency_ns:
        return
    pixels = bool(table["op_type"].isin(CONVOLUTIONS).any())
    said = (
        f"{len(table)} matrix products, {table['time_ns'].sum() / 1e6:.3g} ms a call, have sizes that are no multiples "
        f"of 16 bytes, as {table['misaligned'].iloc[0]}."
    )
    remedy = "Pad these sizes to multiples of 8 elements (4 for TF32)"
    remedy += ", or run convolutions with channels last, where the pixels of an image do not matter." if pixels else "."
    nhwc = pixels and lever("prefer-nhwc").why_not(case.situation) is None
    yield Finding.of(
        RULE, said, remedy, table[["name", "op_type", "dtype", "misaligned", "kernel", "time_ns"]],
        lever="prefer-nhwc" if nhwc else None, saves_ns=min(saves, case.latency_ns),
    )  # fmt: skip


def _misaligned(node: NodeShapes, multiple: int) -> str:
    """The contiguous sizes that are no multiples, as "4095 columns of A"; empty for none, or where one is unknown."""
    try:
        sizes = _contiguous(node)
    except ShapesMissingError:
        return ""
    return ", ".join(f"{size} {name}" for name, size in sizes.items() if size % multiple)


def _contiguous(node: NodeShapes) -> dict[str, int]:
    """Sizes along which operands and output lie in memory; none for a product with one row or column, a GEMV."""
    out = node.output().shape
    if node.op_type in CONVOLUTIONS:
        weight, pixels = node.input(1).shape, math.prod(out[2:])
        return {"pixels": pixels, "channels": weight[1]} if math.prod(weight[2:]) == 1 and pixels > 1 else {}
    left, right = node.input(0).shape, node.input(1).shape
    if len(left) < 2 or len(right) < 2 or min(out[-2:]) < 2:
        return {}
    return {"columns of A": left[-1], "columns of B": right[-1], "columns of the output": out[-1]}
