"""Memory that is allocated or freed inside measured calls, long after the arenas should have grown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from workbench.analysis.intervals import union
from workbench.analysis.tables import measured_calls, rows_of
from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.findings.placement import host_saving_ns
from workbench.diagnosis.findings.wording import milliseconds
from workbench.diagnosis.passes import ACTIVITY_PASS, detailed_pass

RULE: Final = "allocations"
LEAST_SHARE: Final = 0.02
"""Of T in them; below, nobody would notice."""
LEAST_CALLS: Final = 0.5
"""Of the calls that must hold some: an arena that still grows, or a capture of first calls, has them in a few only."""
_ALLOCATES: Final = (
    r"^cuda(?:Malloc|Free|HostAlloc|HostRegister|HostUnregister)|^cuMem(?:Alloc|Free|HostAlloc|HostRegister|"
    r"HostUnregister|Create|Release|Map|Unmap)"
)
"""Functions of the CUDA runtime and driver that take device or page-locked host memory, or give it back."""


def rule(case: Case) -> Iterator[Finding]:
    """The host spends a part of each call in the allocator of CUDA, which waits for the device where it frees."""
    complete = case.manifest.passes.get(ACTIVITY_PASS)
    traced = complete is not None and complete.state == "complete"  # it stretches the host less than the nodes pass
    pass_name = ACTIVITY_PASS if traced else detailed_pass(case.manifest)
    if not case.on_gpu or pass_name is None:
        return
    measured = measured_calls(case.run, pass_name)["call"]
    rows = rows_of(case.run, "launches", pass_name, ("call", "thread", "start_ns", "end_ns", "name"))
    rows = rows[rows["call"].isin(measured) & rows["name"].astype(str).str.contains(_ALLOCATES)]
    if not len(rows) or rows["call"].nunique() < LEAST_CALLS * len(measured):
        return
    busy = union(rows["start_ns"].to_numpy(np.int64), rows["end_ns"].to_numpy(np.int64))  # the runtime calls the driver
    spent_ns = float((busy.ends - busy.starts).sum()) / len(measured)
    saves = host_saving_ns(case, spent_ns)
    if saves < LEAST_SHARE * case.latency_ns:
        return
    table = rows.assign(name=rows["name"].astype(str), time_ns=rows["end_ns"] - rows["start_ns"])
    groups = table.groupby("name")["time_ns"]
    evidence = groups.agg(times="size", time_ns="sum").div(len(measured)).reset_index()
    exact = case.situation.cuda_options.get("arena_extend_strategy") == "kSameAsRequested"
    said = (
        f"Measured calls allocate and free memory through CUDA {len(rows) / len(measured):.3g} times each, for "
        f"{milliseconds(spent_ns)}."
    )
    remedy = (
        "Let the arena keep what it has: no arena shrinkage, growth by powers of two, a gpu_mem_limit that the model "
        "fits into, and warm-up calls with the largest shapes."
    )
    yield Finding.of(
        RULE, said, remedy, evidence.sort_values("time_ns", ascending=False),
        lever="arena-power-of-two" if exact else None, saves_ns=saves,
    )  # fmt: skip
