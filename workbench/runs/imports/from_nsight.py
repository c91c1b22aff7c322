"""An Nsight Systems export, alone or with the ONNX Runtime profiles of its process, as a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workbench.errors import ConfigError, SourceError
from workbench.runs.imports.calls import Calls, RangeIndex, Window
from workbench.runs.imports.choose import call_of, choose_calls, find_phase
from workbench.runs.imports.draft import Draft, described
from workbench.runs.imports.join import join_profiles
from workbench.runs.imports.profiles import NODES
from workbench.runs.imports.samples import write_samples
from workbench.runs.imports.sink import PART_ROWS, Part, TableSink, complete, read_rows, write_parts
from workbench.runs.manifest import WHOLE_WINDOW, SourceInfo
from workbench.runs.nsight.file import NsightFile, Reading, schema_text
from workbench.runs.nsight.names import one_line
from workbench.runs.nsight.syncs import named_by_caller, sync_calls

ACTIVITY: Final = "activity"
# Kernels first: they are the most rows, so that no thread waits for them at the end.
_STREAMED: Final = ("kernels", "launches", "copies", "memsets", "graphs", "cuda_events", "os_calls", "counters")
_WORK: Final = ("kernels", "copies", "memsets", "graphs", "launches")
_WHOLE: Final = ("graph_nodes", "diagnostics")  # few rows, and wanted from outside the window too
_SERIOUS: Final = ("warning", "error", "fatal")
_MOST_OWNERS: Final = 4
_MOST_NOTES: Final = 5
_LONGEST_NOTE: Final = 200


def import_nsight(
    export: Path, profiles: list[Path], draft: Draft, progress: Callable[[str, float], None]
) -> None:
    """Fill the draft's folder with the export's tables; raises `SourceError` and `ConfigError`."""
    selection = draft.selection
    file = NsightFile(export, process=selection.process, device=selection.device)
    draft.info.files.append(described(export, "nsight", schema_text(file.schema_version)))
    draft.info.files += [described(profile, "ort profile") for profile in profiles]
    if not file.has_epoch:
        draft.notes.append("The export does not say when it began: its times count from 0.")
    file.context.end_ns = file.end_ns
    progress("ranges", 0.0)
    with ThreadPoolExecutor(1) as beside:
        busiest = beside.submit(file.busiest)
        _write_ranges(file, draft.folder)
    process, device = _subject(file, busiest.result(), draft)
    draft.device = file.device_info(process, device)
    ranges = RangeIndex(draft.folder / "ranges.parquet") if _has(draft, "ranges") else None
    window = find_phase(ranges, draft)
    joined = join_profiles(file, profiles, draft, process)
    pass_name = ACTIVITY if joined is None else NODES
    calls, window = choose_calls(ranges, None if joined is None else joined.calls, window, process, draft)
    progress("rows", 0.1)
    extent = _write_streams(file, draft.folder, pass_name, calls, window)
    if calls is None:
        if extent is None:
            raise SourceError(f"{file.name} holds no device work and no call into CUDA there: nothing can be imported.")
        start_ns, end_ns = window or extent
        calls = Calls.of(np.array([start_ns]), np.array([end_ns]), WHOLE_WINDOW)
    if joined is not None:
        joined.write(draft.folder, calls, window, whole=_has(draft, "graph_nodes"))
        draft.providers = joined.providers
    draft.set_calls(calls, pass_name)
    if _has(draft, "counters"):
        write_samples(draft.folder, pass_name)
    draft.info.window_ns = None if window is None else (window.start_ns, window.end_ns)
    _say_sources(file, draft)
    progress("rows", 1.0)


def _subject(file: NsightFile, busiest: dict[tuple[int, int], int], draft: Draft) -> tuple[int | None, int | None]:
    """The process and device that the run is about; the others' rows stay in the tables unless a choice was made."""
    selection = draft.selection
    found = {
        (p, d): ns
        for (p, d), ns in busiest.items()
        if selection.process in (None, p) and selection.device in (None, d)
    }
    if not found:
        if busiest and (selection.process is not None or selection.device is not None):
            raise ConfigError(f"No kernel was launched there: choose {_listed(busiest)}, which {file.name} holds.")
        return selection.process, selection.device
    chosen = max(found, key=lambda key: found[key])
    if len(found) > 1:
        draft.info.subject_process, draft.info.subject_device = chosen
        others = _listed(each for each in found if each != chosen)
        draft.notes.append(
            f"The capture holds several: shares and verdict are of process {chosen[0]} on device {chosen[1]}, whose "
            f"kernels run longest; choose {others} with --process and --device."
        )
    return chosen


def _listed(owners: Iterable[tuple[int, int]]) -> str:
    """Processes and devices in words; a damaged export has as many as rows."""
    known = sorted(owners)
    more = f" or {len(known) - _MOST_OWNERS} more" if len(known) > _MOST_OWNERS else ""
    return ", ".join(f"process {p} on device {d}" for p, d in known[:_MOST_OWNERS]) + more


def _write_ranges(file: NsightFile, folder: Path) -> None:
    """All ranges, their calls not known yet; whoever looks for a phase must see them all."""
    with TableSink(folder, "ranges") as sink:
        write_parts({"ranges": sink}, _parts(file, "ranges", None, lambda rows: complete("ranges", rows, ACTIVITY)))


def _parts(
    file: NsightFile, name: str, window: Window | None, finish: Callable[[pa.Table], pa.Table]
) -> Iterator[Part]:
    def made(reading: Reading) -> Callable[[], Iterable[pa.Table]]:
        def make() -> Iterable[pa.Table]:
            tables = (finish(rows) for rows in file.read(reading))
            if not reading.is_part:  # of any length, so that it is read while it is written
                return tables
            whole = list(tables)
            # each table becomes a row group, and many small ones are slow to read
            return [pa.concat_tables(whole).unify_dictionaries()] if whole else []

        return make

    for reading in file.readings(name, window, PART_ROWS):
        yield Part(name, made(reading))


def _write_streams(
    file: NsightFile, folder: Path, pass_name: str, calls: Calls | None, window: Window | None
) -> tuple[int, int] | None:
    """Write every table; returns the first start and the last end of device work and calls into CUDA."""
    waits: list[pa.Table] = []

    def placed(name: str) -> Callable[[pa.Table], pa.Table]:
        def finish(rows: pa.Table) -> pa.Table:
            if name == "launches":
                waits.append(sync_calls(rows))
            return complete(name, rows, pass_name, call_of(name, rows, calls))

        return finish

    present = [name for name in (*_STREAMED, *_WHOLE) if file.has(name)]
    parts = [_parts(file, name, None if name in _WHOLE else window, placed(name)) for name in present]
    ranges = folder / "ranges.parquet"
    all_ranges = ranges.with_suffix(".all")
    if ranges.is_file():
        ranges.rename(all_ranges)
        present.append("ranges")
        parts.append(_range_parts(all_ranges, pass_name, calls, window))
    with ExitStack() as stack:
        sinks = {name: stack.enter_context(TableSink(folder, name)) for name in present}
        write_parts(sinks, chain.from_iterable(parts))
    all_ranges.unlink(missing_ok=True)
    if file.has("syncs"):
        callers = pa.concat_tables(waits) if waits else None

        def named(rows: pa.Table) -> pa.Table:
            rows = rows if callers is None else named_by_caller(rows, callers)
            return complete("syncs", rows, pass_name, call_of("syncs", rows, calls))

        with TableSink(folder, "syncs") as sink:
            write_parts({"syncs": sink}, _parts(file, "syncs", window, named))
    extents = [sinks[name].extent_ns for name in _WORK if name in sinks]
    known = [extent for extent in extents if extent is not None]
    return (min(start for start, _ in known), max(end for _, end in known)) if known else None


def _range_parts(file: Path, pass_name: str, calls: Calls | None, window: Window | None) -> Iterator[Part]:
    """The ranges once more, with their pass and call, without those outside the window. file: all of them."""

    def made(group: int) -> Callable[[], Iterable[pa.Table]]:
        def make() -> Iterable[pa.Table]:
            with pq.ParquetFile(file) as stored:
                rows = stored.read_row_group(group, use_threads=False)
            if window is not None:
                start, end = rows["start_ns"].to_numpy(), rows["end_ns"].to_numpy()
                rows = rows.filter(pa.array((start < window.end_ns) & (end >= window.start_ns)))
            call = call_of("ranges", rows, calls)
            return [complete("ranges", rows.drop_columns(["pass", "call"]), pass_name, call)]

        return make

    for group in range(pq.read_metadata(file).num_row_groups):
        yield Part("ranges", made(group))


def _has(draft: Draft, name: str) -> bool:
    return (draft.folder / f"{name}.parquet").is_file()


def _say_sources(file: NsightFile, draft: Draft) -> None:
    worked = any(_has(draft, name) for name in ("kernels", "copies", "memsets", "graphs"))
    draft.sources["nsys"] = (
        SourceInfo(state="present")
        if worked
        else SourceInfo(state="absent", reason=f"{file.name} holds no kernel and no copy there")
    )
    draft.sources["gpu_metrics"] = (
        SourceInfo(state="present")
        if _has(draft, "counters")
        else SourceInfo(state="absent", reason="the capture was made without --gpu-metrics-devices")
    )
    draft.info.skipped += file.skipped
    for table, count in sorted(file.context.impossible.items()):
        draft.info.skipped.append(f"{count} rows of {table} end before they start, or lie beyond any clock.")
    if _has(draft, "diagnostics"):
        said = read_rows(draft.folder, "diagnostics")
        serious = said.filter(pc.is_in(said["severity"].cast(pa.string()), pa.array(_SERIOUS)))
        texts = [one_line(text or "", _LONGEST_NOTE) for text in serious["text"].to_pylist()[:_MOST_NOTES]]
        draft.notes += [f"Nsight Systems said: {text}" for text in texts]
