"""Part of a run: some of its calls, for captures that are too long to be looked at as a whole.

What is worked out call by call is worked out in blocks of calls, so that memory stays flat; what is worked out over all
calls together is taken from a few stretches of them, spread over the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.tables import WORK_TABLES, KnowsPasses, Tables
from workbench.runs.schema import TABLES

Stretch = tuple[int, int]
"""Call numbers [first, last)."""

@runtime_checkable
class StoredCalls(Protocol):
    """Tables from which the rows of some calls can be read without reading the others."""

    def call_rows(
        self, name: str, columns: Sequence[str], stretches: Sequence[Stretch], *, between: bool = False
    ) -> pd.DataFrame:
        """Rows of the calls with a number [first, last) of any stretch; index labels are the table's.

        between: also the rows outside every call among and around them.
        """


class SomeCalls:
    """A run of which only some calls are seen. Tables keep their index labels, so that rows are found again.

    Host calls are also seen from one call before and from between the calls: they may launch what runs in the next.
    Tables that know no calls, and those of nodes, which may launch what a graph replays in any call, are whole.
    """

    def __init__(self, run: Tables, stretches: Sequence[Stretch]) -> None:
        self._run, self._stretches = run, list(stretches)

    def only_pass(self, name: str) -> str | None:
        """The pass that recorded every row of the whole table, where the run knows it."""
        return self._run.only_pass(name) if isinstance(self._run, KnowsPasses) else None

    @property
    def graph(self) -> onnx.ModelProto | None:
        """The optimised graph without weights, where the run has one."""
        return getattr(self._run, "graph", None)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table, or the columns chosen of it, with the rows of these calls."""
        if "call" not in TABLES[name].names or name in ("nodes", "session_events"):
            return self._run.table(name, columns)
        wanted = list(TABLES[name].names if columns is None else columns)
        launching = name == "launches"
        stretches = [(first - launching, last) for first, last in self._stretches]
        if isinstance(self._run, StoredCalls):
            return self._run.call_rows(name, wanted, stretches, between=launching)
        table: pd.DataFrame = self._run.table(name, [*wanted, "call"] if "call" not in wanted else wanted)
        call = table["call"].to_numpy(np.int64)
        kept = np.logical_or.reduce([(call >= first) & (call < last) for first, last in stretches])
        kept |= (call < 0) & launching
        found: pd.DataFrame = table.loc[kept, wanted]
        return found


def call_blocks(work_of_call: NDArray[np.int64], may_cut: NDArray[np.bool_], most: int) -> list[tuple[int, int]]:
    """Runs of calls [low, high) with about `most` pieces of work each, or one call's where that has more.

    work_of_call: pieces of each call, int64[calls]. may_cut: whether a block may begin at each call.
    """
    if not len(work_of_call):
        return []
    block = np.cumsum(work_of_call) // max(most, 1)
    wanted = np.concatenate(([True], block[1:] != block[:-1]))
    # a cut that falls into calls that belong together moves on to where they end
    groups = np.cumsum(may_cut)
    starts = np.flatnonzero(may_cut)
    first = np.unique(np.searchsorted(groups[starts], groups[np.flatnonzero(wanted)], side="left"))
    cuts = np.unique(np.concatenate(([0], starts[first], [len(work_of_call)])))
    return list(pairwise(cuts.tolist()))


def work_per_call(run: Tables, calls: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pieces of device work of each call, int64[calls]; all passes of the run together."""
    counts = np.zeros(int(calls.max(initial=0)) + 1, np.int64)
    for name in WORK_TABLES:
        call = run.table(name, ["call"])["call"].to_numpy(np.int64)
        counts += np.bincount(call[(call >= 0) & (call < len(counts))], minlength=len(counts))
    return counts[calls]


def spread_stretches(calls: NDArray[np.int64], work_of_call: NDArray[np.int64], most: int, parts: int) -> list[Stretch]:
    """Stretches of calls with about `most` pieces of work in all, spread over the run; the first begins it.

    calls: ascending. Each of the `parts` stretches takes its share from the beginning of its part of the run.
    """
    edges = np.linspace(0, len(calls), parts + 1).astype(int)
    found = []
    for low, high in pairwise(edges.tolist()):
        taken = int(np.searchsorted(np.cumsum(work_of_call[low:high]), most // parts)) + 1
        chosen = calls[low : min(low + taken, high)]
        if len(chosen):
            found.append((int(chosen[0]), int(chosen[-1]) + 1))
    return found
