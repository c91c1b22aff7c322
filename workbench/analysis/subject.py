"""The part of a run that a diagnosis is about, where a trace holds several processes or devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import onnx
import pandas as pd

from workbench.analysis.node_times import RunLike
from workbench.runs.manifest import Manifest
from workbench.runs.schema import TABLES


class WholeRun(RunLike, Protocol):
    """A run with its manifest."""

    @property
    def manifest(self) -> Manifest:
        """What was run, where, with what."""

    @property
    def model_graph(self) -> onnx.ModelProto | None:
        """The graph that ONNX Runtime was given, without weights."""


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

    @property
    def model_graph(self) -> onnx.ModelProto | None:
        """The graph that ONNX Runtime was given, without weights."""
        return self._run.model_graph

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
