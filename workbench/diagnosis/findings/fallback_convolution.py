"""Convolutions run by cuDNN's fallback kernels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.levers import lever

RULE: Final = "fallback-convolution"
LEAST_SHARE: Final = 0.02
"""Of T. The first convolution of an image model, with three channels, often has no other kernel and stays below."""
FALLBACK: Final = r"implicit_convolve_sgemm|precomputed_convolve_sgemm|explicit_convolve_sgemm"
"""cuDNN's kernels for any GPU and any layout, on CUDA cores: on an H200 the algorithm search DEFAULT ran no others, and
the searches EXHAUSTIVE and HEURISTIC ran them for one or two convolutions of 53."""
BETTER: Final = ("conv-search-exhaustive", "float16")


def rule(case: Case) -> Iterator[Finding]:
    """Fallback kernels take part of T; what they take beyond the ceilings of their nodes may go."""
    kernels = case.kernels
    used = kernels[kernels["kernel"].astype(str).str.contains(FALLBACK)]
    time_ns = float(used["time_ns"].sum())
    if not case.on_gpu or time_ns < LEAST_SHARE * case.latency_ns:
        return
    per_node = used.groupby("node", as_index=False)[["kernels", "time_ns"]].sum()
    evidence = used.drop_duplicates("node")[["node", "name", "op_type", "kernel"]].merge(per_node, on="node")
    bounds = case.nodes[["compute_bound_ns", "memory_bound_ns"]].max(axis=1) if len(case.nodes) else None
    known = bounds is not None and bool((used["node"] >= 0).all())
    least_ns = float(bounds.reindex(per_node["node"]).sum()) if known and bounds is not None else 0.0
    search = case.situation.cuda_options.get("cudnn_conv_algo_search")
    said = (
        f"{len(per_node)} convolution{'s run' if len(per_node) > 1 else ' runs'} cuDNN's fallback kernels, "
        f"{time_ns / 1e6:.3g} ms a call{f', with algorithm search {search}' if search else ''}."
    )
    remedy = (
        "Set cuda.cudnn_conv_algo_search to EXHAUSTIVE or HEURISTIC."
        if search == "DEFAULT"
        else "Give cuDNN a type or shape that it has better kernels for: half precision, channels in multiples of 8."
    )
    chosen = BETTER[0] if search == "DEFAULT" else BETTER[1]
    yield Finding.of(
        RULE, said, remedy, evidence.drop(columns="node").sort_values("time_ns", ascending=False),
        lever=chosen if lever(chosen).why_not(case.situation) is None else None,
        saves_ns=min(max(time_ns - least_ns, 0.0), case.latency_ns) if known else None,
    )  # fmt: skip
