"""A trace of the PyTorch profiler as a run: its operators stand in the place of ONNX Runtime's nodes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import SourceError
from workbench.runs.imports.calls import Calls, RangeIndex, Window
from workbench.runs.imports.choose import call_of, choose_calls, find_phase
from workbench.runs.imports.draft import Draft
from workbench.runs.imports.profiles import NODES
from workbench.runs.imports.sink import complete
from workbench.runs.kineto import PROVIDER, KinetoTrace, read_kineto
from workbench.runs.manifest import WHOLE_WINDOW, DeviceInfo, SourceInfo
from workbench.runs.writer import write_table

_DEVICE_WORK = ("kernels", "copies", "memsets")


def import_kineto(path: Path, draft: Draft, progress: Callable[[str, float], None]) -> None:
    """Fill the draft's folder; raises `SourceError` and `ConfigError`."""
    progress("trace", 0.0)
    trace = read_kineto(path)
    tables = trace.tables
    ranges = None
    if len(tables["ranges"]):
        write_table(draft.folder, "ranges", complete("ranges", tables["ranges"], NODES))
        ranges = RangeIndex(draft.folder / "ranges.parquet")
    window = find_phase(ranges, draft)
    steps = None if trace.calls is None else Calls.of(*trace.calls, "the profiler's steps")
    calls, window = choose_calls(ranges, steps, window, None, draft)
    calls = calls or _whole(trace, window)
    for name, table in tables.items():
        rows = table
        if window is not None:
            start = table["start_ns"].to_numpy()
            rows = table.filter((start >= window.start_ns) & (start < window.end_ns))
        if len(rows):
            write_table(draft.folder, name, complete(name, rows, NODES, call_of(name, rows, calls)))
    draft.set_calls(calls, NODES)
    draft.info.window_ns = None if window is None else (window.start_ns, window.end_ns)
    draft.providers = [PROVIDER]
    draft.device = _device(trace)
    draft.info.skipped += _damage(trace, path.name)
    draft.sources["kineto"] = SourceInfo(state="present")
    if not any(len(tables[name]) for name in _DEVICE_WORK):
        reason = "the trace holds no kernel and no copy: record it with ProfilerActivity.CUDA"
        draft.sources["activity"] = SourceInfo(state="absent", reason=reason)
    progress("trace", 1.0)


def _whole(trace: KinetoTrace, window: Window | None) -> Calls:
    if window is None:
        parts = [table for name, table in trace.tables.items() if len(table) and name != "ranges"]
        if not parts:
            raise SourceError("The trace holds neither operators nor device work: record it again.")
        starts = [int(np.min(table["start_ns"])) for table in parts]
        ends = [int(np.max(_ends(table))) for table in parts]
        window = Window(min(starts), max(ends) + 1)
    return Calls.of(np.array([window.start_ns]), np.array([window.end_ns]), WHOLE_WINDOW)


def _ends(table: Any) -> Any:
    if "end_ns" in table.column_names:
        return table["end_ns"].to_numpy()
    return table["start_ns"].to_numpy() + table["duration_ns"].to_numpy()


def _device(trace: KinetoTrace) -> DeviceInfo:
    """The first GPU of the trace, or the CPU of a trace without device work."""
    if not any(len(trace.tables[name]) for name in _DEVICE_WORK):
        return DeviceInfo(kind="cpu", name="a CPU that the trace does not name")
    found = trace.device_properties[0] if trace.device_properties else {}
    major, minor = found.get("computeMajor"), found.get("computeMinor")
    numbers = {"sm_count": found.get("numSms"), "memory_bytes": found.get("totalGlobalMem")}
    return DeviceInfo(
        kind="cuda",
        name=trace.device_name or "a GPU that the trace does not name",
        compute_capability=f"{major}.{minor}" if type(major) is int and type(minor) is int else None,
        **{name: value for name, value in numbers.items() if type(value) is int},
    )


def _damage(trace: KinetoTrace, name: str) -> list[str]:
    said = []
    if trace.cut:
        said.append(f"{name} ends in the middle: what was complete was read.")
    if trace.skipped:
        said.append(f"{name}: {trace.skipped:,} records are damaged.")
    if not trace.on_epoch:
        said.append(f"{name} does not say when its clock began: its times count from there.")
    return said
