"""A run whose activity pass was slowed down, as a profiler slows it: the device works as fast, and waits longer."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray

from workbench.runs.manifest import Manifest

PASS = "activity"
_WORK = ("kernels", "copies", "memsets", "graphs")
_MOMENTS = ("start_ns", "end_ns", "time_ns")


class Dilated:
    """`factor`: how many times as long the idle time of each call becomes, or with `of="call"` the whole call.

    Time is bent inside the measured calls: no piece of device work gets longer, whatever lies between two of them does
    in proportion, and every row of the pass moves along, so that launches keep their place beside the work.
    """

    def __init__(self, run, factor: float, of: Literal["idle", "call"]) -> None:
        self._run, self._tables = run, {}
        self._edges, self._added = _bends(run, factor, of)

    @property
    def manifest(self) -> Manifest:
        """The manifest with the pass's own median and dilation, which a slower pass would have."""
        whole = self._run.manifest
        latency, calls = self.table("latency"), whole.passes[PASS]
        mine = latency[(latency["pass"] == PASS) & (latency["phase"] == "measured")]
        median = float(mine["duration_ns"].median())
        slower = calls.model_copy(update={"median_ns": median, "dilation": median / whole.latency.median_ns})
        return whole.model_copy(update={"passes": {**whole.passes, PASS: slower}})

    @property
    def graph(self) -> onnx.ModelProto | None:
        return self._run.graph

    @property
    def model_graph(self) -> onnx.ModelProto | None:
        return self._run.model_graph

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        if name not in self._tables:
            self._tables[name] = self._bent(self._run.table(name).copy())
        found = self._tables[name]
        return found if columns is None else found[list(columns)]

    def _bent(self, table: pd.DataFrame) -> pd.DataFrame:
        mine = (table["pass"] == PASS).to_numpy()
        if "duration_ns" in table:
            starts = table.loc[mine, "start_ns"].to_numpy(np.int64)
            ends = starts + table.loc[mine, "duration_ns"].to_numpy(np.int64)
            table.loc[mine, "duration_ns"] = self._moved(ends) - self._moved(starts)
        for column in (name for name in _MOMENTS if name in table):
            known = mine & table[column].notna().to_numpy()
            table.loc[known, column] = self._moved(table.loc[known, column].to_numpy(np.int64))
        return table

    def _moved(self, moments: NDArray[np.int64]) -> NDArray[np.int64]:
        """Distances from the first edge are below 2^53, so that float64 holds them exactly."""
        added = np.interp(
            (moments - self._edges[0]).astype(float), (self._edges - self._edges[0]).astype(float), self._added
        )
        return moments + np.rint(added).astype(np.int64)


def _bends(run, factor: float, of: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Edges of the idle stretches of all measured calls, and how much time was added by each of them."""
    latency = run.table("latency")
    calls = latency[(latency["pass"] == PASS) & (latency["phase"] == "measured")].sort_values("start_ns")
    busy = _busy(run)
    edges, lengths = [], []
    for start, duration in calls[["start_ns", "duration_ns"]].itertuples(index=False):
        idle = _gaps(busy, start, start + duration)
        total = sum(end - begin for begin, end in idle)
        wanted = (factor - 1) * (duration if of == "call" else total)
        for begin, end in idle:
            edges += [begin, end]
            lengths += [0.0, wanted * (end - begin) / total]
    return np.array(edges, np.int64), np.cumsum(lengths)


def _busy(run) -> list[tuple[int, int]]:
    """The union of the pass's device work, in order."""
    rows = [run.table(name)[["pass", "start_ns", "end_ns"]] for name in _WORK]
    every = pd.concat(rows)
    work = every[every["pass"] == PASS].sort_values("start_ns")
    found: list[tuple[int, int]] = []
    for start, end in work[["start_ns", "end_ns"]].itertuples(index=False):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _gaps(busy: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """What of [start, end) no work covers."""
    at, found = start, []
    for begin, until in busy:
        if until <= at:
            continue
        if begin >= end:
            break
        if begin > at:
            found.append((at, begin))
        at = until
    return [*found, (at, end)] if at < end else found
