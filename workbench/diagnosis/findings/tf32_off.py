"""float32 matrix work that TF32 tensor cores could do, where TF32 is off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.finding import Case, Finding

RULE: Final = "tf32-off"
LEAST_SHARE: Final = 0.02
"""Of T in float32 matrix work; below, nobody would notice."""


def rule(case: Case) -> Iterator[Finding]:
    """TF32 was off by configuration, on a GPU that has it (compute capability 8.0), and matrix work ran in float32."""
    capability = case.manifest.device.compute_capability
    off = case.situation.cuda_options.get("use_tf32") == "0"
    if not case.on_gpu or not off or capability is None or float(capability) < 8.0 or not len(case.nodes):
        return
    rates = case.manifest.ceilings.flops_per_s
    fast, slow = rates.get("tensor:tf32"), rates.get("fp:float32")
    matrix = case.nodes[(case.nodes["tensor_flops"] > 0) & (case.nodes["dtype"] == "float32")]
    time_ns = float(matrix["time_ns"].sum())
    if time_ns < LEAST_SHARE * case.latency_ns:
        return
    saves = time_ns * (1 - slow / fast) if fast and slow and fast > slow else None
    said = f"TF32 is off, and {len(matrix)} nodes spend {time_ns / 1e6:.3g} ms a call on float32 matrix work."
    yield Finding.of(
        RULE, said, "Turn TF32 on (cuda.use_tf32), unless the model needs full float32 products.",
        matrix.sort_values("time_ns", ascending=False)[["name", "op_type", "dtype", "time_ns", "tensor_flops"]],
        lever="tf32-on", saves_ns=saves,
    )  # fmt: skip
