"""Exports of a run for other programs: a trace for ui.perfetto.dev, CSV, plain Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from workbench.errors import ConfigError

if TYPE_CHECKING:
    from workbench.runs.reader import RunFolder

ExportFormat = Literal["perfetto", "csv", "parquet"]

_SUFFIX = {"perfetto": ".perfetto-trace", "csv": "-csv", "parquet": "-parquet"}


def export_run(
    run: RunFolder, format: ExportFormat, out: Path | None = None, *, passes: Sequence[str] | None = None
) -> list[Path]:
    """Write `run`, or only the rows recorded in `passes`, in another format; returns the files written.

    perfetto: one trace file `out`, compressed when its name ends in `.gz` (see `workbench.runs.export.perfetto`).
    csv, parquet: a folder `out` with one file per table (see `workbench.runs.export.plain`). Without `out` the
    target stands beside the run: `<run>.perfetto-trace`, `<run>-csv` or `<run>-parquet`.

    The target is written beside its place and renamed. Raises `ConfigError` for an unknown format or pass,
    `RunFolderError` when the target exists, cannot be made, or a table is damaged, `DiskFullError`.
    """
    from workbench.runs.export import perfetto, plain, source

    writers = {"perfetto": perfetto.write_trace, "csv": plain.write_csv, "parquet": plain.write_parquet}
    if format not in writers:
        raise ConfigError(f"The export format {format!r} is unknown: choose from {', '.join(writers)}.")
    source.check_passes(run, passes)
    folder = run.folder.resolve()
    return writers[format](run, out or folder.with_name(folder.name + _SUFFIX[format]), passes)
