"""Every rule, and what they find in a run."""

from __future__ import annotations

from typing import Final

from workbench.diagnosis.findings import (
    allocations,
    cold_start,
    concurrency_no_scaling,
    control_flow_sync,
    cpu_nodes,
    dominant_copies,
    fallback_convolution,
    fp16_casts,
    host_late,
    idle_clocks,
    inefficient_kernels,
    int8_on_cpu,
    layout_changes,
    memcpy_nodes,
    misaligned_gemm,
    other_process,
    outputs_copied,
    pageable_copies,
    shape_search,
    silent_cpu,
    small_batch,
    sync_inside,
    tensor_cores_unused,
    tf32_off,
    throttling,
    truncated_profile,
    under_filled,
    unstable_latency,
    weights_reread,
)
from workbench.diagnosis.findings.finding import Case, Finding, Rule
from workbench.diagnosis.result import Diagnosis
from workbench.runs.reader import RunFolder

RULES: Final[tuple[Rule, ...]] = tuple(
    each.rule
    for each in (
        allocations,
        cold_start,
        concurrency_no_scaling,
        control_flow_sync,
        cpu_nodes,
        dominant_copies,
        fallback_convolution,
        fp16_casts,
        host_late,
        idle_clocks,
        inefficient_kernels,
        int8_on_cpu,
        layout_changes,
        memcpy_nodes,
        misaligned_gemm,
        other_process,
        outputs_copied,
        pageable_copies,
        shape_search,
        silent_cpu,
        small_batch,
        sync_inside,
        tensor_cores_unused,
        tf32_off,
        throttling,
        truncated_profile,
        under_filled,
        unstable_latency,
        weights_reread,
    )
)


def findings(run: RunFolder, diagnosis: Diagnosis) -> list[Finding]:
    """What every rule finds, that which would save most first; what cannot be given in time comes last.

    Raises `RunFolderError` when a table of the run is damaged.
    """
    case = Case(run, diagnosis)
    found = [each for rule in RULES for each in rule(case)]
    return sorted(found, key=lambda each: -1.0 if each.saves_ns is None else each.saves_ns, reverse=True)
