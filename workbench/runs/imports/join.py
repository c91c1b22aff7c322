"""ONNX Runtime profiles beside an Nsight Systems export: on one clock where the launches allow it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from workbench.runs.clock_join import join_clocks
from workbench.runs.imports.draft import Draft
from workbench.runs.imports.profiles import Profiles, damage
from workbench.runs.imports.sink import PART_ROWS
from workbench.runs.manifest import ClockJoinInfo, SourceInfo
from workbench.runs.nsight.file import NsightFile
from workbench.runs.ort_profile import RUN_EVENT, OrtProfile

MOST_LAUNCHES: Final = 500_000
"""Host calls that the clocks are joined by; more say nothing new, and memory stays bounded."""
_COLUMNS: Final = ["start_ns", "end_ns", "thread", "name"]


def join_profiles(file: NsightFile, paths: Sequence[Path], draft: Draft, process: int | None) -> Profiles | None:
    """The profiles on the export's clock, or None when there are none or any of them cannot be placed.

    Whether and how well is written down in `draft.info.clocks`; raises `SourceError` for a file that is no profile.
    """
    if not paths:
        reason = "no profile was given: record one of the same process to learn which node launched what"
        draft.sources["ort_profiler"] = SourceInfo(state="absent", reason=reason)
        return None
    profiles = [OrtProfile(path) for path in paths]
    draft.info.skipped += damage(profiles)
    launches = _launches(file, process)
    joins = []
    for profile in profiles:
        tables = profile.tables(0)
        events = tables["session_events"]
        runs = events.filter(pc.equal(events["name"].cast(pa.string()), RUN_EVENT))
        found = join_clocks(tables["nodes"], runs, launches)
        joins.append(found)
        draft.info.clocks.append(
            ClockJoinInfo(
                profile=profile.path.name,
                joined=found.offset_ns is not None,
                reason=found.reason,
                offset_ns=found.offset_ns,
                residual_ns=found.residual_ns,
                inside=found.inside,
            )
        )
    refused = next((each.reason for each in joins if each.offset_ns is None), "")
    if refused:
        draft.sources["ort_profiler"] = SourceInfo(state="failed", reason=f"{refused} No node is attributed.")
        return None
    draft.sources["ort_profiler"] = SourceInfo(state="present")
    draft.notes += [
        f"{join.profile} was put on the export's clock to within {(join.residual_ns or 0) / 1e3:.1f} µs; "
        f"{100 * (join.inside or 0.0):.1f} % of the launches made in its calls lie in a node."
        for join in draft.info.clocks
    ]
    residual_ns = max(join.residual_ns or 0 for join in joins)
    return Profiles.of(profiles, [join.offset_ns or 0 for join in joins], residual_ns)


def _launches(file: NsightFile, process: int | None) -> pa.Table:
    """Host calls of the process that put kernels on a stream, the first `MOST_LAUNCHES`."""
    parts, count = [], 0
    for reading in file.readings("launches", None, PART_ROWS):
        for rows in file.read(reading):
            if not set(_COLUMNS) <= set(rows.column_names):
                continue
            chosen = rows.filter(pc.match_substring(rows["name"].cast(pa.string()), "Launch"))
            if process is not None:
                chosen = chosen.filter(pc.equal(chosen["process"], process))
            parts.append(chosen.select(_COLUMNS))
            count += len(chosen)
        if count >= MOST_LAUNCHES:
            break
    if not parts:
        return pa.table({name: pa.array([], pa.string() if name == "name" else pa.int64()) for name in _COLUMNS})
    return pa.concat_tables(parts).unify_dictionaries().slice(0, MOST_LAUNCHES)
