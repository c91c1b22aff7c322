"""Matrix work that tensor cores could do and that ran on CUDA cores, by the names of the kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.finding import Case, Finding

RULE: Final = "tensor-cores-unused"
LEAST_SHARE: Final = 0.02
"""Of T that may be saved; below, nobody would notice."""
SINCE: Final = {"float16": 7.0, "bfloat16": 8.0, "float32": 8.0}
"""Compute capability whose tensor cores take the type; float32 as TF32 (CUDA C++ Programming Guide, warp matrix
functions)."""
MATRIX: Final = ("GEMM", "convolution", "attention")


def rule(case: Case) -> Iterator[Finding]:
    """Matrix nodes without any kernel on tensor cores, where the arithmetic of CUDA cores takes longer than the bytes.

    A product with one row is bound by its weights' bytes whatever the unit, and is no finding. What may be saved is the
    part of the time by which the bound on tensor cores lies below that on CUDA cores.
    """
    capability = case.manifest.device.compute_capability
    slow = case.manifest.ceilings.flops_per_s.get("fp:float32")
    if not case.on_gpu or capability is None or not slow or not len(case.nodes):
        return
    tf32 = case.situation.cuda_options.get("use_tf32") == "1"
    able = [name for name, since in SINCE.items() if float(capability) >= since and (name != "float32" or tf32)]
    kernels = case.kernels
    kernels = kernels[(kernels["node"] >= 0) & kernels["family"].isin(MATRIX)]
    on_tensor_cores = kernels.loc[kernels["tensor_cores"].fillna(True).astype(bool), "node"]
    plain = kernels[~kernels["node"].isin(on_tensor_cores)]
    nodes = case.nodes.rename(columns={"time_ns": "node_ns"}).join(plain.groupby("node")["time_ns"].sum(), how="inner")
    nodes = nodes.join(plain.drop_duplicates("node").set_index("node")[["kernel"]])
    slow_ns = nodes["tensor_flops"] / slow * 1e9
    nodes["faster_bound_ns"] = nodes[["compute_bound_ns", "memory_bound_ns"]].max(axis=1, skipna=False)
    nodes["cuda_core_bound_ns"] = slow_ns
    nodes = nodes[nodes["dtype"].isin(able) & (slow_ns > nodes["faster_bound_ns"])]
    time_ns = float(nodes["time_ns"].sum())
    saves = float((nodes["time_ns"] * (1 - nodes["faster_bound_ns"] / nodes["cuda_core_bound_ns"])).sum())
    if saves < LEAST_SHARE * case.latency_ns:
        return
    said = (
        f"{len(nodes)} matrix nodes in {' and '.join(sorted(nodes['dtype'].unique()))} run on CUDA cores, "
        f"{time_ns / 1e6:.3g} ms a call, although the tensor cores take that type."
    )
    yield Finding.of(
        RULE, said, "Give the libraries what their tensor-core kernels need: sizes that are multiples of 16 bytes, and "
        "for convolutions the algorithm search EXHAUSTIVE or HEURISTIC.",
        nodes.sort_values("time_ns", ascending=False)[
            ["name", "op_type", "dtype", "kernel", "time_ns", "cuda_core_bound_ns", "faster_bound_ns"]
        ],
        saves_ns=min(saves, case.latency_ns),
    )  # fmt: skip
