"""Where an imported run comes from, for the page: files, the part that was taken, clocks."""

from __future__ import annotations

from typing import Final

from workbench.figures.units import format_bytes, format_ns, format_percent
from workbench.report.redact import without_folders
from workbench.runs.manifest import ClockJoinInfo, ImportInfo

_KINDS: Final = {
    "nsight": "Nsight Systems export",
    "ort profile": "ONNX Runtime profile",
    "kineto": "PyTorch trace",
    "cupti rows": "CUPTI records",
}


def import_line(info: ImportInfo) -> list[str]:
    """What a reader has to know first, in the place of a configuration."""
    parts = [f"imported from {' and '.join(file.name for file in info.files)}"]
    if info.range is not None:
        parts.append(f"range {info.range}")
    if info.calls is not None:
        parts.append(f"calls {info.calls}")
    return parts


def import_rows(info: ImportInfo) -> list[tuple[str, str]]:
    """Every choice of the import, and how the clocks were joined."""
    rows = []
    for file in info.files:
        version = f", schema {file.version}" if file.version else ""
        rows.append((_KINDS[file.kind], f"{file.name} ({format_bytes(file.size_bytes)}{version})"))
    chosen = {
        "range": info.range,
        "calls": info.calls,
        "a call is": info.calls_marked_by,
        "window": None if info.window_ns is None else format_ns(info.window_ns[1] - info.window_ns[0]),
        "process": info.process if info.process is not None else info.subject_process,
        "device": info.device if info.device is not None else info.subject_device,
    }
    rows += [(name, str(value)) for name, value in chosen.items() if value not in (None, "")]
    return rows + [(f"clock of {clock.profile}", _joined(clock)) for clock in info.clocks]


def _joined(clock: ClockJoinInfo) -> str:
    if clock.offset_ns is None or clock.residual_ns is None or clock.inside is None:
        return without_folders(clock.reason)
    return (
        f"began at {clock.offset_ns:,} ns on the export's clock, ± {format_ns(clock.residual_ns)}; "
        f"{format_percent(clock.inside)} of the launches made in its calls lie in a node"
    )
