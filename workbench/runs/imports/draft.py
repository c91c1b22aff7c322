"""A run while it is being imported: what is known so far, and how it becomes a manifest."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from workbench.runs.imports.calls import Calls
from workbench.runs.manifest import (
    Ceilings,
    DeviceInfo,
    ImportedFile,
    ImportInfo,
    LatencyInfo,
    Manifest,
    ModelInfo,
    PassInfo,
    SourceInfo,
)
from workbench.runs.writer import write_manifest, write_table
from workbench.version import __version__

CeilingsOf = Callable[[DeviceInfo], tuple[Ceilings, SourceInfo]]
"""Gives the measured limits of a device, and where they come from or why there are none."""

_NO_BARE_PASS: Final = "an imported capture holds no bare pass, so times are as traced"
_NO_NVML: Final = "an imported capture holds no NVML samples"


@dataclass(frozen=True)
class Selection:
    """Which part of the files is wanted; None for all of it.

    range: name of NVTX ranges, the run reaches from the first to the last of them. calls: (first, last), both included,
    counted from 0 inside the range. call_range: name of the ranges that mark calls. process: system process id.
    device: CUDA device number in that process.
    """

    range: str | None = None
    calls: tuple[int, int] | None = None
    call_range: str | None = None
    process: int | None = None
    device: int | None = None


@dataclass
class Draft:
    """Filled step by step; `finish` writes the manifest and the table of calls."""

    folder: Path
    selection: Selection
    name: str
    device: DeviceInfo
    info: ImportInfo
    passes: dict[str, PassInfo] = field(default_factory=dict)
    sources: dict[str, SourceInfo] = field(default_factory=dict)
    providers: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    latency: LatencyInfo | None = None

    def set_calls(self, calls: Calls, pass_name: str) -> None:
        """Write the table of calls of one pass; the first set decides T."""
        whole = self.selection.range is None and self.selection.calls is None
        warmup = calls.warmup(whole=whole)
        phases = np.where(np.arange(len(calls)) < warmup, "warm-up", "measured").astype(object)
        durations = calls.ends_ns - calls.starts_ns
        rows = {"start_ns": calls.starts_ns, "duration_ns": durations, "call": calls.numbers, "phase": phases.tolist()}
        write_table(self.folder, "latency", {"pass": [pass_name] * len(calls), **rows})
        median_ns, low_ns, high_ns = calls.time_per_call(warmup)
        measured = len(calls) - warmup
        self.passes[pass_name] = PassInfo(
            name=pass_name, state="complete", calls=len(calls), measured_calls=measured, median_ns=median_ns
        )
        if self.latency is None:
            self.latency = LatencyInfo(
                median_ns=median_ns,
                ci_low_ns=low_ns,
                ci_high_ns=high_ns,
                measured_calls=measured,
                warmup_calls=warmup,
                stopped_by="the capture's end",
                traced=True,
                notes=[_overlap_note(calls, median_ns)] if calls.overlap else [],
            )
        self.info.calls_marked_by = self.info.calls_marked_by or calls.marked_by

    def finish(self, ceilings_of: CeilingsOf) -> None:
        """Write `manifest.json`."""
        ceilings, source = ceilings_of(self.device)
        self.sources |= {
            "wall_clock": SourceInfo(state="absent", reason=_NO_BARE_PASS),
            "nvml": SourceInfo(state="absent", reason=_NO_NVML),
            "ceilings": source,
        }
        write_manifest(
            self.folder,
            Manifest(
                workbench_version=__version__,
                created_ns=time.time_ns(),
                complete=True,
                config={},
                model=ModelInfo(name=self.name),
                device=self.device,
                providers=self.providers,
                latency=self.latency,
                passes=self.passes,
                sources=self.sources,
                ceilings=ceilings,
                imported=self.info,
                notes=self.notes,
            ),
        )


def described(path: Path, kind: str, version: str = "") -> ImportedFile:
    """A file of the import; a folder counts with all that it holds."""
    files = [path] if path.is_file() else [each for each in path.iterdir() if each.is_file()]
    size = sum(each.stat().st_size for each in files)
    return ImportedFile.model_validate({"name": path.name, "kind": kind, "size_bytes": size, "version": version})


def _overlap_note(calls: Calls, per_call_ns: float) -> str:
    median_ns = float(np.median(calls.ends_ns - calls.starts_ns))
    return (
        f"The calls overlap, as several threads make them: T is the time in which any ran over their number, "
        f"{per_call_ns:,.0f} ns; the median call took {median_ns:,.0f} ns."
    )
