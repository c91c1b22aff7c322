"""The tables of a run as the analysis sees them, and the rows of one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import pandas as pd

WORK_TABLES: Final = ("kernels", "copies", "memsets", "graphs")
"""What the device did."""


class Tables(Protocol):
    """Anything that gives the tables of a run by name."""

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table with its declared columns, or with those chosen; empty when the run lacks it."""


def rows_of(run: Tables, name: str, pass_name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows of one table that one pass recorded, with all columns or those chosen; index labels are the table's.

    Chosen columns alone are read from the file. Where the pass recorded every row, nothing is copied.
    """
    table = run.table(name) if columns is None else run.table(name, ["pass", *columns])
    mine = (table["pass"] == pass_name).to_numpy()
    if columns is not None:
        table = table[list(columns)]
    return table if mine.all() else table[mine]


def measured_calls(run: Tables, pass_name: str) -> pd.DataFrame:
    """Rows of `latency`: the measured calls of one pass, in order."""
    calls = rows_of(run, "latency", pass_name)
    return calls[calls["phase"] == "measured"].sort_values("call")
