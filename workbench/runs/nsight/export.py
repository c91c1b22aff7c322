"""Nsight Systems' own program around its files: a report becomes an export, and an export the tables of one process."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

import pyarrow as pa

from workbench.errors import SourceError
from workbench.runs.nsight.file import NsightFile
from workbench.runs.nsight.syncs import named_by_caller

REPORT_SUFFIXES: Final = (".nsys-rep", ".qdrep")
EXPORT_TIMEOUT_S: Final = 3600
_TABLES: Final = ("kernels", "copies", "memsets", "graphs", "graph_nodes", "launches", "syncs")


def sqlite_of_report(report: Path, target: Path) -> Path:
    """Have `nsys export` write a report as SQLite to `target`; raises `SourceError` when it is not there or fails."""
    if shutil.which("nsys") is None:
        raise SourceError(
            f"{report.name} can only be read by nsys, which is not on PATH: install Nsight Systems, or run "
            f"`nsys export --type=sqlite {report.name}` where it is installed and import that file."
        )
    command = ["nsys", "export", "--type=sqlite", "--force-overwrite=true", f"--output={target}", str(report)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=EXPORT_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise SourceError(
            f"nsys took more than {EXPORT_TIMEOUT_S} s to export {report.name}: export it by hand."
        ) from None
    if done.returncode or not target.is_file():
        said = " ".join((done.stderr or done.stdout).split())[-200:]
        raise SourceError(f"nsys could not export {report.name} ({said}): update Nsight Systems.")
    return target


def read_nsight(path: Path, process: int) -> dict[str, pa.Table]:
    """Device work and host calls of one process, without the columns `pass` and `call`; raises `SourceError`.

    process: system process id. Rows of other processes are left out, because correlation ids repeat between them.
    """
    file = NsightFile(path, process=process)
    if not file.has_epoch:
        raise SourceError(f"{path.name} says no start time, so its clock cannot be joined: export it again.")
    if file.unreadable:
        raise SourceError(f"{path.name}: {file.unreadable[0].rstrip('.')}, so export it again.")
    found = {}
    for name in _TABLES:
        parts = [table for reading in file.readings(name, None, 1 << 40) for table in file.read(reading)]
        if parts:
            found[name] = pa.concat_tables(parts, promote_options="default").unify_dictionaries()
    if "syncs" in found and "launches" in found:
        found["syncs"] = named_by_caller(found["syncs"], found["launches"])
    return found
