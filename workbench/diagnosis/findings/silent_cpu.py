"""A model that was meant for the GPU and ran on the CPU provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.situation import CPU_PROVIDER
from workbench.runs.manifest import FELL_BACK

RULE: Final = "silent-cpu"
_REMEDY: Final = (
    "Let `workbench doctor` say which library of the GPU's provider is missing, and set "
    "session.disable_cpu_ep_fallback so that the session fails instead of falling back."
)


def rule(case: Case) -> Iterator[Finding]:
    """No node ran on a GPU's provider, although a GPU was asked for or seen; of an imported capture, whatever for."""
    manifest = case.manifest
    providers = set(case.nodes["provider"].dropna().astype(str)) if len(case.nodes) else set(manifest.providers)
    if not providers or providers != {CPU_PROVIDER}:
        return
    if case.on_gpu:
        why = "although the device of the run is a GPU"
    elif any(note.startswith(FELL_BACK) for note in manifest.notes):
        why = "because the GPU's provider did not load"
    elif manifest.imported is None and case.config.provider in ("cuda", "tensorrt"):
        why = f"although provider {case.config.provider!r} was asked for"
    elif manifest.imported is not None:
        why = "which is right only if no GPU was meant"
    else:
        return
    if not len(case.nodes):
        said = f"The session had the CPU provider alone, {why}."
        yield Finding.of(RULE, said, _REMEDY, pd.DataFrame({"provider": [CPU_PROVIDER]}))
        return
    said = f"Every node ({len(case.nodes)}) ran on the CPU provider, {why}."
    groups = case.nodes.groupby(["provider", "op_type"], observed=True, as_index=False)
    evidence = groups.agg(nodes=("name", "size"), host_ns=("host_ns", "sum"))
    yield Finding.of(RULE, said, _REMEDY, evidence.sort_values("host_ns", ascending=False))
