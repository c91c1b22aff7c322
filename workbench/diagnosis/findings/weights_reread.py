"""Matrix products whose bytes are mostly weights, read again in each call for very few rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.levers import lever
from workbench.diagnosis.levers.conditions import PRODUCTS

RULE: Final = "weights-reread"
LEAST_SHARE: Final = 0.01
"""Of T that reading the weights needs at the full bandwidth. Small products reached a sixth of that on an H200, so that
this is a twentieth of T in the products themselves."""
WEIGHTS: Final = 0.5
"""Of the bytes of a node: from here on fewer bits of weights save more than anything else."""
BITS: Final = {"float32": 32, "float16": 16, "bfloat16": 16}
SMALL_BITS: Final = 8


def rule(case: Case) -> Iterator[Finding]:
    """Products bound by memory whose bytes are mostly weights.

    Fewer bits shorten the reading: in kernels that fill the GPU the weights' part of their time, in the others no more
    than what the weights need at the full bandwidth.
    """
    bandwidth, graph = case.manifest.ceilings.memory_bytes_per_s, case.situation.graph
    if not case.on_gpu or not bandwidth or graph is None or not len(case.nodes):
        return
    products = case.nodes[case.nodes["op_type"].isin(PRODUCTS) & case.nodes["dtype"].isin(BITS)]
    weight_bytes = products["name"].astype(object).map(graph.weights).fillna(0) * products["executions"]
    products = products.assign(
        weight_bytes=weight_bytes.astype(np.float64), weight_read_ns=weight_bytes.astype(np.float64) / bandwidth * 1e9
    )
    moved = products["read_bytes"] + products["written_bytes"]
    products = products[
        (products["weight_bytes"] > WEIGHTS * moved) & (products["memory_bound_ns"] > products["compute_bound_ns"])
    ]
    time_ns, read_ns = float(products["time_ns"].sum()), float(products["weight_read_ns"].sum())
    if read_ns < LEAST_SHARE * case.latency_ns:
        return
    reading_ns = np.fmax(products["weight_read_ns"], products["memory_ns"] * products["weight_bytes"] / moved)
    saves = float((reading_ns * (1 - SMALL_BITS / products["dtype"].map(BITS).astype(float))).sum())
    said = (
        f"{len(products)} matrix products read {products['weight_bytes'].sum() / 1e6:.3g} MB of weights in each call, "
        f"which takes {read_ns / 1e3:.3g} µs of their {time_ns / 1e3:.3g} µs at the full bandwidth."
    )
    yield Finding.of(
        RULE, said, "Store the weights in fewer bits, or take more items into a call, which read them once together.",
        products.sort_values("weight_read_ns", ascending=False)[
            ["name", "op_type", "dtype", "weight_bytes", "weight_read_ns", "time_ns"]
        ],
        lever="int8-weights" if lever("int8-weights").why_not(case.situation) is None else None,
        saves_ns=min(saves, case.latency_ns),
    )  # fmt: skip
