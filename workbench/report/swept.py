"""A sweep of batch × concurrency for a terminal: a line for each cell, the knee and the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.figures.classes import label_of_verdict
from workbench.figures.units import UNKNOWN, format_bytes, format_ns, format_rate
from workbench.report.sweep_rows import best_sentence, cell_words, knee_sentence
from workbench.tuning.sweep import Best, Cell

if TYPE_CHECKING:
    import pandas as pd

_HEAD = ("batch", "callers", "P50", "P99", "throughput", "memory", "held back by")
_NOTE = ["batch", "concurrency", "note"]


def sweep_summary(
    cells: pd.DataFrame, knee: Cell | None, best: Best | None, constraints: Sequence[str], device_kind: str = "cuda"
) -> str:
    """The cells with their numbers, or why they have none; what is missing; the knee and the best cell."""
    rows = [_HEAD, *(_cells(row, device_kind) for row in cells.to_dict("records"))]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD) - 1)]
    lines = ["  ".join([*map(str.rjust, row, widths), row[-1]]) for row in rows]
    noted = cells[cells["note"].notna()]
    lines += ["", *(f"{cell_words(Cell(*key))}: {note}." for *key, note in noted[_NOTE].itertuples(index=False))]
    lines.append(knee_sentence(cells, knee))
    where = "" if best is None else f"The best is {cell_words(best.cell)}: "
    return "\n".join([*lines, f"{where}{best_sentence(cells, best, constraints)}"])


def _cells(row: dict[Any, Any], device_kind: str) -> tuple[str, ...]:
    import pandas as pd

    def shown(name: str, text: Any) -> str:
        return UNKNOWN if pd.isna(row[name]) else str(text(row[name]))

    klass = shown("klass", lambda klass: label_of_verdict(klass, device_kind))
    memory = "peak_host_bytes" if pd.isna(row["peak_device_bytes"]) else "peak_device_bytes"
    return (
        str(row["batch"]),
        str(row["concurrency"]),
        shown("p50_ns", format_ns),
        shown("p99_ns", format_ns),
        shown("items_per_s", format_rate),
        shown(memory, format_bytes),
        row["error"] if isinstance(row["error"], str) else klass,
    )
