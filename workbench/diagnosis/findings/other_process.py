"""Another process was on the GPU while the latency was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.bare_samples import PROCESSES, bare_samples
from workbench.diagnosis.findings.finding import Case, Finding

RULE: Final = "other-process"
LEAST_SAMPLES: Final = 0.10
"""Of the samples; a process that only looked in (a monitor, one that was ending) disturbs few calls."""
_SHOWN: Final = [PROCESSES, "memory_used_bytes", "gpu_kernel_running_percent"]


def rule(case: Case) -> Iterator[Finding]:
    """NVML counted more compute processes than the worker, which is one."""
    samples = bare_samples(case.run)
    if PROCESSES not in samples.columns:
        return
    shared = samples[samples[PROCESSES] > 1]
    if not len(samples) or len(shared) < LEAST_SAMPLES * len(samples):
        return
    said = (
        f"Up to {int(shared[PROCESSES].max()) - 1} other process(es) held the GPU in "
        f"{100 * len(shared) / len(samples):.0f} % of {len(samples)} samples while the latency was measured."
    )
    yield Finding.of(
        RULE, said,
        "Measure again with the GPU to yourself; where it has to be shared, give each process a part of it (MIG, MPS).",
        shared.reindex(columns=_SHOWN).reset_index().sort_values(PROCESSES, ascending=False),
    )  # fmt: skip
