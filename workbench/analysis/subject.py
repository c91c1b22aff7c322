"""The part of a run that a diagnosis is about, where a trace holds several processes or devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import onnx
import pandas as pd

from workbench.analysis.device_work import device_work
from workbench.analysis.intervals import union
from workbench.analysis.node_times import RunLike
from workbench.analysis.tables import Tables
from workbench.runs.manifest import Manifest
from workbench.runs.schema import TABLES


class WholeRun(RunLike, Protocol):
    """A run with its manifest."""

    @property
    def manifest(self) -> Manifest:
        """What was run, where, with what."""


def subject(run: Tables, pass_name: str) -> tuple[int | None, int | None]:
    """The process and the device with the most busy device time in a pass; None for what the source does not know.

    Busy is the union of kernels, copies, memsets and graph replays of that process on that device.
    """
    work = device_work(run, pass_name, ("start_ns", "end_ns", "process", "device"))
    groups = work.groupby(["process", "device"], dropna=False, sort=True)
    lengths = (work["end_ns"] - work["start_ns"]).groupby(groups.ngroup()).sum().sort_values(ascending=False)
    pairs, rows = list(groups.indices), list(groups.indices.values())
    starts, ends = work["start_ns"].to_numpy(np.int64), work["end_ns"].to_numpy(np.int64)
    best, found = -1, (None, None)
    for group, length in zip(lengths.index.tolist(), lengths.tolist(), strict=True):
        if length <= best:  # a union is never longer than the sum, and the sums only fall from here on
            break
        busy = union(starts[rows[group]], ends[rows[group]]).length_ns
        if busy > best:
            best, found = busy, pairs[group]
    process, device = (None if pd.isna(value) else int(value) for value in found)
    return process, device


class Restricted:
    """A run of which only one process and one device are seen, in every table that has such a column.

    Rows that know no process or device stay. Tables keep their index labels, so that rows are found again.
    """

    def __init__(self, run: WholeRun, process: int | None, device: int | None) -> None:
        self._run = run
        self._wanted = {"process": process, "device": device}

    @property
    def manifest(self) -> Manifest:
        """What was run, where, with what."""
        return self._run.manifest

    @property
    def graph(self) -> onnx.ModelProto | None:
        """The optimised graph without weights."""
        return self._run.graph

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table, or the columns chosen of it, without the rows of other processes and devices."""
        wanted = {key: value for key, value in self._wanted.items() if value is not None and key in TABLES[name].names}
        if columns is None:
            table = self._run.table(name)
        else:
            table = self._run.table(name, [*columns, *(key for key in wanted if key not in columns)])
        kept = np.ones(len(table), np.bool_)
        for key, value in wanted.items():
            kept &= ((table[key] == value) | table[key].isna()).to_numpy()
        table = table if columns is None else table[list(columns)]
        return table if kept.all() else table[kept]
