"""Nsight Systems around the worker, for the passes that record device work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa

from workbench.errors import SourceError
from workbench.runs.nsight import read_nsight, sqlite_of_report


def nsys_problem() -> str:
    """Why nsys cannot be used here, or an empty string."""
    return "" if shutil.which("nsys") else "nsys is not on PATH: install Nsight Systems"


def nsys_command(report: Path, *, graph_nodes: bool) -> list[str]:
    """The command that goes before the worker's own; it writes `<report>.nsys-rep`.

    graph_nodes: trace replayed CUDA graphs node by node, not as wholes.
    """
    return [
        "nsys", "profile", "--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none", "--force-overwrite=true",
        f"--cuda-graph-trace={'node' if graph_nodes else 'graph'}", f"--output={report}",
    ]  # fmt: skip


def read_report(report: Path, process: int) -> dict[str, pa.Table]:
    """Export the report to SQLite, read the worker's rows and remove both files; raises `SourceError`."""
    source, export = report.with_suffix(".nsys-rep"), report.with_suffix(".sqlite")
    if not source.is_file():
        raise SourceError("nsys wrote no report: run it by hand once to see why, or use --activity cupti.")
    try:
        return read_nsight(sqlite_of_report(source, export), process)
    finally:
        source.unlink(missing_ok=True)
        export.unlink(missing_ok=True)
