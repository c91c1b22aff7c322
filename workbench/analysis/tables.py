"""The tables of a run as the analysis sees them, and the rows of one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

import pandas as pd

WORK_TABLES: Final = ("kernels", "copies", "memsets", "graphs")
"""What the device did."""


class Tables(Protocol):
    """Anything that gives the tables of a run by name."""

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table with its declared columns, or with those chosen; empty when the run lacks it."""


@runtime_checkable
class KnowsPasses(Protocol):
    """Tables that know which pass recorded them without being read."""

    def only_pass(self, name: str) -> str | None:
        """The pass that recorded every row of the table; None where there are several, or none, or it is not known."""


def rows_of(run: Tables, name: str, pass_name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows of one table that one pass recorded, with all columns or those chosen; index labels are the table's.

    Chosen columns alone are read from the file. Where the pass recorded every row, nothing is copied.
    """
    if columns is not None and isinstance(run, KnowsPasses) and run.only_pass(name) == pass_name:
        return run.table(name, columns)
    table = run.table(name) if columns is None else run.table(name, ["pass", *columns])
    mine = (table["pass"] == pass_name).to_numpy()
    if columns is not None:
        table = table[list(columns)]
    return table if mine.all() else table[mine]


def measured_calls(run: Tables, pass_name: str) -> pd.DataFrame:
    """Rows of `latency`: the measured calls of one pass, in order."""
    calls = rows_of(run, "latency", pass_name)
    return calls[calls["phase"] == "measured"].sort_values("call")
