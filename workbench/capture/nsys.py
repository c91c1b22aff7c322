"""Nsight Systems around the worker, for the passes that record device work."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pyarrow as pa

from workbench.errors import SourceError
from workbench.runs.nsight import read_nsight

_EXPORT_TIMEOUT_S: Final = 300


def nsys_problem() -> str:
    """Why nsys cannot be used here, or an empty string."""
    return "" if shutil.which("nsys") else "nsys is not on PATH: install Nsight Systems"


def nsys_command(report: Path) -> list[str]:
    """The command that goes before the worker's own; it writes `<report>.nsys-rep`."""
    return [
        "nsys", "profile", "--trace=cuda,nvtx", "--sample=none", "--cpuctxsw=none", "--force-overwrite=true",
        f"--output={report}",
    ]  # fmt: skip


def read_report(report: Path, process: int) -> dict[str, pa.Table]:
    """Export the report to SQLite, read the worker's rows and remove both files; raises `SourceError`."""
    source, export = report.with_suffix(".nsys-rep"), report.with_suffix(".sqlite")
    if not source.is_file():
        raise SourceError("nsys wrote no report: run it by hand once to see why, or use --activity cupti.")
    command = ["nsys", "export", "--type=sqlite", "--force-overwrite=true", f"--output={export}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_EXPORT_TIMEOUT_S, check=False)
    if done.returncode or not export.is_file():
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        raise SourceError(f"nsys could not export its report ({said}): update Nsight Systems, or use --activity cupti.")
    try:
        return read_nsight(export, process)
    finally:
        source.unlink(missing_ok=True)
        export.unlink(missing_ok=True)
