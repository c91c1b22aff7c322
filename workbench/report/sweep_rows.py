"""What the page of a sweep says of its cells: rows and sentences, made from its table alone."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, Final

import pandas as pd

from workbench.figures.classes import label_of_verdict
from workbench.figures.metrics import format_metric
from workbench.report.redact import without_folders
from workbench.tuning.sweep import KNEE_SHARE, Best, Cell

HEAD: Final = ("batch", "callers", "calls", "P50", "P90", "P99", "throughput", "device memory", "host memory")
_UNITS: Final = {
    **dict.fromkeys(("p50_ns", "p90_ns", "p99_ns"), "ns"),
    "items_per_s": "items/s",
    **dict.fromkeys(("peak_device_bytes", "peak_host_bytes"), "bytes"),
}
_SAID: Final = (("throughput", "items_per_s"), ("P50 latency", "p50_ns"), ("P99 latency", "p99_ns"))


def cell_rows(cells: pd.DataFrame, device_kind: str) -> list[tuple[list[str], str, str]]:
    """Each cell: its numbers in the order of `HEAD`, its class, and what is missing and why."""
    shown = cells.astype(object).where(cells.notna(), None)
    return [_row(row, device_kind) for row in shown.to_dict("records")]


def knee_sentence(cells: pd.DataFrame, knee: Cell | None) -> str:
    """Where more load stops paying, or why that is not known."""
    if cells["items_per_s"].isna().all():
        return "No cell was measured, so that there is no knee."
    if knee is None:
        return "There is no knee: the largest loads are the best, so that throughput may still grow beyond the sweep."
    share = f"{100 * KNEE_SHARE:.0f} %"
    return f"The knee is {cell_words(knee)}: the smallest load with {share} of the best throughput."


def best_sentence(cells: pd.DataFrame, best: Best | None, constraints: Sequence[str]) -> str:
    """What the cell to take gives, and how it stands to the constraints."""
    if best is None:
        return "No cell could be measured: the table says why."
    (row,) = cells[(cells["batch"] == best.cell.batch) & (cells["concurrency"] == best.cell.concurrency)].to_dict(
        "records"
    )
    said = [
        f"{name} {format_metric(None if pd.isna(row[column]) else row[column], _UNITS[column])}"
        for name, column in _SAID
    ]
    return f"{', '.join(said)}. {best.sentence if constraints else 'The highest throughput of all cells.'}"


def repeat_command(cells: pd.DataFrame, constraints: Sequence[str]) -> str:
    """The command that measures the same cells again from the configuration of the best."""
    axes = (("--batches", "batch"), ("--callers", "concurrency"))
    words = ["workbench", "tune", "--config", "best.yaml", "--sweep"]
    for option, axis in axes:
        words += [option, ",".join(str(value) for value in sorted(cells[axis].unique()))]
    return shlex.join([*words, *(word for text in constraints for word in ("--constraint", text))])


def cell_words(cell: Cell) -> str:
    """`batch 8 with 2 callers`."""
    return f"batch {cell.batch} with {cell.concurrency} caller{'' if cell.concurrency == 1 else 's'}"


def _row(row: dict[Any, Any], device_kind: str) -> tuple[list[str], str, str]:
    measured = row["error_kind"] is None
    numbers = [format_metric(row[name], unit) for name, unit in _UNITS.items()]
    calls = f"{row['calls']:,}" if measured and row["calls"] is not None else ""
    why = row["note"] if measured else row["error"]
    klass = label_of_verdict(row["klass"], device_kind) if row["klass"] else ""
    return [str(row["batch"]), str(row["concurrency"]), calls, *numbers], klass, without_folders(why or "")
