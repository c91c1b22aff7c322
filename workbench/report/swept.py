"""A sweep of batch × concurrency for a terminal: a line for each cell, the knee and the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workbench.figures.units import UNKNOWN, format_bytes, format_ns, format_rate
from workbench.tuning.sweep import Best, Cell

if TYPE_CHECKING:
    import pandas as pd

_HEAD = ("batch", "callers", "P50", "P99", "throughput", "memory", "held back by")


def sweep_summary(cells: pd.DataFrame, knee: Cell | None, best: Best | None, constraints: Sequence[str]) -> str:
    """The cells with their numbers, or why they have none; then what the knee and the best cell are."""
    rows = [_HEAD, *(_cells(row) for row in cells.to_dict("records"))]
    widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD) - 1)]
    lines = ["  ".join([*map(str.rjust, row, widths), row[-1]]) for row in rows]
    lines.append("")
    if knee is not None:
        where = f"batch {knee.batch}, callers {knee.concurrency}"
        lines.append(f"knee: {where}: the smallest load with nine tenths of the best throughput")
    if best is not None:
        under = f" under {', '.join(constraints)}" if constraints else ""
        lines.append(f"best{under}: batch {best.cell.batch}, callers {best.cell.concurrency}. {best.sentence}")
    return "\n".join(lines)


def _cells(row: dict[Any, Any]) -> tuple[str, ...]:
    import pandas as pd

    def shown(name: str, text: Any) -> str:
        return UNKNOWN if pd.isna(row[name]) else str(text(row[name]))

    memory = "peak_host_bytes" if pd.isna(row["peak_device_bytes"]) else "peak_device_bytes"
    return (
        str(row["batch"]),
        str(row["concurrency"]),
        shown("p50_ns", format_ns),
        shown("p99_ns", format_ns),
        shown("items_per_s", format_rate),
        shown(memory, format_bytes),
        row["error"] if isinstance(row["error"], str) else shown("klass", str),
    )
