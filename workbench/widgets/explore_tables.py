"""The tables of the explorer: the nodes and kernels of the window in view."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from workbench.figures.kernels import short_name, tensor_cores
from workbench.figures.units import UNKNOWN, format_ns, format_percent
from workbench.widgets.timeline.table import Column, Table

_NO_NODES: Final = "No node lies in this window; nodes come from ONNX Runtime's profile, which the nodes pass records."
_NO_KERNELS: Final = "No kernel lies in this window; kernels come from the activity pass or an Nsight Systems export."
_WIDE: Final = "minmax(150px, 3fr)"


def node_table(device_kind: str) -> Table:
    """An empty table for `PassTrace.node_table`, with key `node`."""
    timed = "device time" if device_kind == "cuda" else "own time"

    columns = [
        Column("name", "node", _word, _WIDE, number=False),
        Column("op_type", "operator", _word, "minmax(90px, 1.2fr)", number=False),
        Column("time_ns", timed, format_ns),
        Column("share", "of nodes", format_percent),
        Column("limit", "limited by", str, "minmax(120px, 1.3fr)", number=False),
        Column("executions", "runs", _count),
        Column("host_ns", "host time", format_ns),
        Column("provider", "provider", _provider, number=False),
    ]
    return Table(columns, "node", sort_by="time_ns", empty=_NO_NODES)


def kernel_table() -> Table:
    """An empty table for `PassTrace.kernel_table`, with key `kernel`."""
    columns = [
        Column("name", "kernel", lambda name: short_name(_word(name)), _WIDE, number=False),
        Column("family", "family", _word, number=False),
        Column("own_ns", "time", format_ns),
        Column("share", "of kernels", format_percent),
        Column("count", "runs", _count),
        Column("median_ns", "median run", format_ns),
        Column("tensor_cores", "tensor cores", tensor_cores, "minmax(90px, 1fr)", number=False),
    ]
    return Table(columns, "kernel", sort_by="own_ns", empty=_NO_KERNELS)


def pair_table() -> Table:
    """An empty table for `paired`, with key `row`."""
    columns = [
        Column("name", "node", _word, _WIDE, number=False),
        Column("op_type", "operator", _word, "minmax(90px, 1.2fr)", number=False),
        Column("first_ns", "first run", _time, "minmax(100px, 1fr)"),
        Column("second_ns", "second run", _time, "minmax(100px, 1fr)"),
        Column("longer_ns", "second − first", _difference, "minmax(100px, 1fr)"),
    ]
    return Table(columns, "row", sort_by="longer_ns", empty=_NO_NODES)


def paired(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Nodes of two windows matched by name and operator; a node that one of them lacks has no time there (NaN).

    first, second: `PassTrace.node_table`. Columns: `row`, `name`, `op_type`, `first_ns`, `second_ns`, `longer_ns`
    (second - first, what is lacking counted as none).
    """
    sides = (
        side.assign(name=side["name"].astype(object), op_type=side["op_type"].astype(object))
        .groupby(["name", "op_type"], dropna=False, sort=False)["time_ns"]
        .sum()
        .rename(name)
        for side, name in ((first, "first_ns"), (second, "second_ns"))
    )
    table = pd.concat(sides, axis=1).reset_index()
    longer = table["second_ns"].fillna(0) - table["first_ns"].fillna(0)
    return table.assign(row=range(len(table)), longer_ns=longer)


def _word(value: Any) -> str:
    return UNKNOWN if pd.isna(value) else str(value)


def _count(value: int) -> str:
    return f"{value:,}"


def _time(value: float) -> str:
    return UNKNOWN if pd.isna(value) else format_ns(value)


def _difference(value: float) -> str:
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{format_ns(abs(value))}"


def _provider(value: Any) -> str:
    return _word(value).removesuffix("ExecutionProvider")
