"""ONNX Runtime profiles on one clock: their nodes, session events and calls together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from workbench.runs.calls import OUTSIDE
from workbench.runs.imports.calls import Calls, Window
from workbench.runs.imports.sink import complete
from workbench.runs.ort_profile import RUN_EVENT, OrtProfile
from workbench.runs.writer import write_table

NODES: Final = "nodes"
_RESOLUTION_NS: Final = 2000  # starts and durations are cut to whole microseconds, so that ends are up to two late


@dataclass(frozen=True)
class Profiles:
    """Several profiles read together; `session` and `call` are counted over all of them, times are as shifted."""

    nodes: pa.Table
    events: pa.Table
    calls: Calls

    @classmethod
    def of(cls, profiles: Sequence[OrtProfile], offsets_ns: Sequence[int], residual_ns: int = 0) -> Profiles:
        """Read each profile with its own offset added to its times. residual_ns: how far the offsets may be off."""
        parts: dict[str, list[pa.Table]] = {"nodes": [], "session_events": []}
        sessions = calls = 0
        for profile, offset_ns in zip(profiles, offsets_ns, strict=True):
            for name, table in profile.tables(offset_ns).items():
                parts[name].append(_renumbered(table, sessions, calls))
            sessions, calls = sessions + profile.sessions, calls + profile.calls
        events = pa.concat_tables(parts["session_events"]).unify_dictionaries()
        is_run = pc.equal(events["name"].cast(pa.string()), RUN_EVENT)
        runs = events.filter(pc.and_(is_run, pc.not_equal(events["call"], OUTSIDE))).sort_by("call")
        starts, durations = runs["start_ns"].to_numpy(), runs["duration_ns"].to_numpy()
        marked = Calls.of(starts, starts + durations, "the profile's model_run", residual_ns + _RESOLUTION_NS)
        return cls(pa.concat_tables(parts["nodes"]).unify_dictionaries(), events, marked)

    @property
    def providers(self) -> list[str]:
        """Execution providers of the nodes, the most frequent first."""
        counts = pc.value_counts(self.nodes["provider"].cast(pa.string()).drop_null()).to_pylist()
        return [each["values"] for each in sorted(counts, key=lambda each: -each["counts"])]

    def write(self, folder: Path, calls: Calls, window: Window | None, *, whole: bool) -> None:
        """Write `nodes` and `session_events`, with the numbers of the calls chosen.

        whole: also rows outside the window, because a CUDA graph may have been captured there.
        """
        for name, table in (("nodes", self.nodes), ("session_events", self.events)):
            numbers = _numbers(table, calls, self.calls)
            kept = np.ones(len(table), bool)
            if window is not None and not whole:
                start = table["start_ns"].to_numpy()
                kept = (start >= window.start_ns) & (start < window.end_ns)
            rows = table.drop_columns("call").filter(pa.array(kept))
            if len(rows):
                write_table(folder, name, complete(name, rows, NODES, numbers[kept]))


def damage(profiles: Sequence[OrtProfile]) -> list[str]:
    """What the profiles lack, a sentence each."""
    said = []
    for profile in profiles:
        name = profile.path.name
        if profile.loss is not None:
            said.append(profile.loss)
        if profile.cut:
            said.append(f"{name} ends in the middle: what was complete was read.")
        if profile.nodes_outside_calls:
            said.append(f"{name}: {profile.nodes_outside_calls:,} nodes belong to no complete call.")
        if profile.skipped:
            said.append(f"{name}: {profile.skipped:,} records are no events of the profiler.")
    return said


def _renumbered(table: pa.Table, sessions: int, calls: int) -> pa.Table:
    session = pc.add(table["session"].cast(pa.int32()), pa.scalar(sessions, pa.int32()))
    call = table["call"].to_numpy()
    return table.drop_columns(["session", "call"]).append_column("session", session).append_column(
        "call", pa.array(np.where(call == OUTSIDE, OUTSIDE, call + calls).astype(np.int32))
    )  # fmt: skip


def _numbers(table: pa.Table, chosen: Calls, all_calls: Calls) -> NDArray[np.int32]:
    """The number, among the calls chosen, of each row's call; `OUTSIDE` for the calls left out."""
    if chosen.marked_by != all_calls.marked_by:  # calls are NVTX ranges: the clock decides
        return chosen.numbers_of(table["start_ns"].to_numpy())
    number = np.full(len(all_calls) + 1, OUTSIDE, np.int32)  # the last entry serves rows outside every call
    number[chosen.rows] = chosen.numbers
    places: NDArray[np.int32] = number[table["call"].to_numpy()]
    return places
