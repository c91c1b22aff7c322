"""What the explorer knows of one traced pass of a run: its timeline, and every call of it with its device work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import pandas as pd

from workbench.analysis.levels import Levels
from workbench.analysis.node_times import RunLike, node_times
from workbench.analysis.pass_trace import pass_trace
from workbench.analysis.run_levels import levels_of
from workbench.analysis.some_calls import SomeCalls, spread_stretches, work_per_call
from workbench.analysis.subject import Restricted
from workbench.analysis.tables import measured_calls, rows_of
from workbench.analysis.window import PassTrace
from workbench.diagnosis.passes import ACTIVITY_PASS, detailed_pass
from workbench.runs.reader import RunFolder

MOST_WORK: Final = 1 << 22
"""Pieces of device work that are attributed at once, in some seconds and a gigabyte; of more, some calls are taken."""
_STRETCHES: Final = 8
_TRACED: Final = ("nodes", ACTIVITY_PASS)
_BARE: Final = "latency"


class EveryCall:
    """A run in which the cold call and those of the warm-up count like measured ones, to be looked at as well."""

    def __init__(self, run: RunLike) -> None:
        self._run = run

    @property
    def graph(self) -> onnx.ModelProto | None:
        """The optimised graph without weights."""
        return self._run.graph

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The table, or the columns chosen of it; of `latency` every call is measured."""
        table = self._run.table(name, columns)
        return table.assign(phase="measured") if name == "latency" and "phase" in table else table


@dataclass(frozen=True)
class Traced:
    """One pass of a run. trace: None where nothing but the calls was recorded. calls: all of them, by number.

    partly: a sentence where the tables hold only some of the calls, else empty.
    """

    run: RunFolder
    pass_name: str
    levels: Levels
    trace: PassTrace | None
    calls: pd.DataFrame
    partly: str

    @property
    def measured_ns(self) -> tuple[int, int]:
        """From the first measured call to the last; where there is none, everything."""
        rows = self.calls[self.calls["phase"] == "measured"]
        if not len(rows):
            return self.levels.start_ns, self.levels.end_ns
        return int(rows["start_ns"].min()), int((rows["start_ns"] + rows["duration_ns"]).max())

    def call_ns(self, number: int) -> tuple[int, int] | None:
        """The edges of a call; None where there is no such call."""
        found = self.calls[self.calls["call"] == number]
        if not len(found):
            return None
        start = int(found["start_ns"].iloc[0])
        return start, start + int(found["duration_ns"].iloc[0])


def passes_of(run: RunFolder) -> list[str]:
    """The passes that have a timeline, that which knows most first; the bare one, which has only calls, without any."""
    passes = run.manifest.passes
    found = [name for name in _TRACED if name in passes and len(measured_calls(run, name))]
    first = detailed_pass(run.manifest)
    return sorted(found, key=lambda name: name != first) or [_BARE]


def traced(run: RunFolder, pass_name: str) -> Traced:
    """Open a pass. Raises `RunFolderError` when a table is damaged."""
    levels = levels_of(run, pass_name)
    calls = rows_of(run, "latency", pass_name).sort_values("call")
    if pass_name == _BARE:
        return Traced(run, pass_name, levels, None, calls, "")
    trace, some = _trace(run, pass_name)
    partly = f"The tables are of {some:,} of the {len(calls):,} calls." if some < len(calls) else ""
    return Traced(run, pass_name, levels, trace, calls, partly)


def _trace(run: RunFolder, pass_name: str) -> tuple[PassTrace, int]:
    """The calls of a pass, ready for windows, and how many they are."""
    manifest = run.manifest
    every: RunLike = EveryCall(_subject(run))
    calls = measured_calls(every, pass_name)
    numbers = calls["call"].to_numpy(np.int64)
    work = work_per_call(run, numbers) if len(numbers) > 1 else np.zeros(len(numbers), np.int64)
    if int(work.sum()) > MOST_WORK:
        every = SomeCalls(every, spread_stretches(numbers, work, MOST_WORK, _STRETCHES))
        calls = measured_calls(every, pass_name)
    nodes = node_times(
        every,
        manifest.device,
        manifest.ceilings,
        tf32=manifest.uses_tf32,
        input_bytes={},  # which input a copy carries is not shown here
        output_names=[output.name for output in manifest.model.outputs],
        pass_name=pass_name,
    )
    return pass_trace(every, pass_name, calls, nodes, manifest.device.kind), len(calls)


def _subject(run: RunFolder) -> RunLike:
    """Of an imported trace only the process and device that the diagnosis is about."""
    made = run.manifest.imported
    if made is None or made.subject_process is None:
        return run
    return Restricted(run, made.subject_process, made.subject_device)
