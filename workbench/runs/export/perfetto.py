"""A run as a trace for https://ui.perfetto.dev: Perfetto's protobuf format, which keeps whole nanoseconds.

Each pass of the run is a process with tracks of its calls, ranges, nodes and host calls, by thread; each device is a
group with a track per stream and one per metric. An arrow leads from a host call to each piece of device work with its
(pass, process, correlation id). What a table says beyond track, time and name stands in a slice's arguments.

The trace's clock is the run's: a slice's `ts` is the `start_ns` of its row, nanoseconds since the Unix epoch, and a
snapshot says that this clock is the real-time clock. Only a run with negative times, whose epoch is unknown, is
shifted so that its first time is 0. A counter of `counters`, an average over a window, stands at the window's start,
because a viewer draws a value from its time on. Slices that cross on one track lie on sibling tracks of one name. A row
without a time is not drawn, and a note at the start of the trace says how many there are.

The format: https://perfetto.dev/docs/reference/trace-packet-proto and
https://perfetto.dev/docs/reference/synthetic-track-event.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workbench.errors import RunFolderError
from workbench.runs.export.events import SliceEncoder, counter_values, ends
from workbench.runs.export.flows import Flows, read_flows
from workbench.runs.export.layout import lay_out
from workbench.runs.export.slices import DEVICE_GROUP, HOST_GROUPS, TrackGroup, numbered, read_rows, time_column
from workbench.runs.export.source import batches, texts, whole
from workbench.runs.export.tracks import Tracks
from workbench.runs.export.wire import interleave
from workbench.runs.schema import TABLES
from workbench.runs.writer import full_disk_is_said

if TYPE_CHECKING:
    from workbench.runs.reader import RunFolder

EVENTS_AT_ONCE: Final = 1 << 16


def write_trace(run: RunFolder, target: Path, passes: Sequence[str] | None) -> list[Path]:
    """Write the trace to the new file `target`, compressed when its name ends in `.gz`."""
    with _new_file(target) as file:
        first_ns = _first_ns(run, passes)
        origin_ns = min(0, first_ns)
        processes = _processes(run, passes)
        tracks = Tracks(file, origin_ns)
        flows = read_flows(run, passes, processes)
        parents: dict[tuple[Any, ...], int] = {}
        timeless: dict[str, int] = {}
        for group in (*HOST_GROUPS, DEVICE_GROUP):
            timeless |= _write_group(tracks, run, group, passes, processes, flows, parents)
        for name in ("samples", "counters"):
            timeless[name] = _write_counters(tracks, run, name, passes, parents)
        missing = [
            f"{n} rows of {name} have no time or no value, and are not drawn" for name, n in timeless.items() if n
        ]
        tracks.note(first_ns, missing)
    return [target]


def _write_group(
    tracks: Tracks,
    run: RunFolder,
    group: TrackGroup,
    passes: Sequence[str] | None,
    processes: dict[str, int],
    flows: dict[str, Flows],
    parents: dict[tuple[Any, ...], int],
) -> dict[str, int]:
    """Write the slices of tables that share tracks; returns for each table how many rows have no time."""
    loaded = [read_rows(run, source, group.keys, passes, processes) for source in group.tables]
    keys = pa.concat_tables([rows.keys for rows in loaded])
    number, first = numbered(keys)
    combinations = keys.take(first).to_pylist()
    end_ns = np.concatenate([rows.end_ns for rows in loaded])
    layout = lay_out(
        number,
        np.concatenate([rows.start_ns for rows in loaded]),
        end_ns,
        np.concatenate([rows.instant for rows in loaded]),
    )
    lanes = np.array([_track(tracks, group, combinations[track], parents) for track in layout.track], np.uint64)
    encoders = [SliceEncoder(tracks, rows, flows.get(rows.source.table)) for rows in loaded]
    offsets = np.cumsum([0, *(len(rows.start_ns) for rows in loaded)])

    for at in range(0, len(layout.order), EVENTS_AT_ONCE):
        event = layout.order[at : at + EVENTS_AT_ONCE]
        rows, closes = event >> 1, (event & 1).astype(bool)
        uuid = lanes[layout.lane[rows]]
        closing = np.flatnonzero(closes)
        pieces = [(closing, ends(end_ns[rows[closing]], uuid[closing], tracks.origin_ns))]
        table = np.where(closes, -1, np.searchsorted(offsets, rows, side="right") - 1)
        for index, encoder in enumerate(encoders):
            begun = np.flatnonzero(table == index)
            for positions, records in encoder.begins(rows[begun] - offsets[index], uuid[begun]):
                pieces.append((begun[positions], records))
        tracks.file.write(interleave(pieces))
    return {rows.source.table: rows.timeless for rows in loaded}


def _track(tracks: Tracks, group: TrackGroup, key: dict[str, Any], parents: dict[tuple[Any, ...], int]) -> int:
    """A new track for one combination of keys, in the group of its process or device."""
    process = None if key["process"] is None else f"process {key['process']}"
    recorded = key["pass"] or "unnamed"
    if "device" in key:
        parent = _device(tracks, key["device"], parents)
        stream = "unknown stream" if key["stream"] is None else f"stream {key['stream']}"
        return tracks.track(" · ".join(filter(None, [stream, recorded, process])), parent)
    owner = ("process", key["pass"], key["process"])
    if owner not in parents:
        parents[owner] = tracks.group(" · ".join(filter(None, [f"{recorded} pass", process])), key["process"])
    thread = None if key.get("thread") is None else f"thread {key['thread']}"
    return tracks.track(" · ".join(filter(None, [group.tables[0].label, thread])), parents[owner])


def _device(tracks: Tracks, device: int | None, parents: dict[tuple[Any, ...], int]) -> int:
    owner = ("device", device)
    if owner not in parents:
        parents[owner] = tracks.group("unknown device" if device is None else f"device {device}")
    return parents[owner]


def _write_counters(
    tracks: Tracks, run: RunFolder, name: str, passes: Sequence[str] | None, parents: dict[tuple[Any, ...], int]
) -> int:
    """Write the values of a table of metrics; returns how many rows have no time or no value."""
    rows = whole(run, name, passes)
    drawn = rows.filter(pc.and_(rows["time_ns"].is_valid(), pc.is_finite(rows["value"]).fill_null(False)))
    keys = pa.table({key: drawn[key].cast(kind) for key, kind in (("device", pa.int64()), ("metric", pa.string()))})
    number, first = numbered(keys)
    uuids = np.array(
        [
            tracks.counter(metric or "unnamed", _device(tracks, device, parents))
            for device, metric in zip(
                keys["device"].take(first).to_pylist(), texts(keys["metric"].take(first).combine_chunks()), strict=True
            )
        ],
        np.uint64,
    )
    time_ns = drawn["time_ns"]
    if "window_ns" in drawn.column_names:
        time_ns = pc.subtract(time_ns, drawn["window_ns"].fill_null(0))
    times, values = time_ns.to_numpy(), drawn["value"].to_numpy()
    for at in range(0, len(drawn), EVENTS_AT_ONCE):
        chunk = slice(at, at + EVENTS_AT_ONCE)
        records = counter_values(times[chunk], values[chunk], uuids[number[chunk]], tracks.origin_ns)
        tracks.file.write(records.tobytes())
    return len(rows) - len(drawn)


def _processes(run: RunFolder, passes: Sequence[str] | None) -> dict[str, int]:
    """The process of each pass that is known to have had exactly one."""
    found: dict[str, set[int]] = {}
    for batch in batches(run, "latency", passes, ["pass", "process"]):
        known = batch.group_by(["pass", "process"]).aggregate([]).drop_null()
        for name, process in zip(texts(known["pass"].cast(pa.string())), known["process"].to_pylist(), strict=True):
            found.setdefault(name or "", set()).add(process)
    return {name: next(iter(ids)) for name, ids in found.items() if len(ids) == 1}


def _first_ns(run: RunFolder, passes: Sequence[str] | None) -> int:
    """The earliest time of any row, 0 when there is none."""
    slices = (source.table for group in (*HOST_GROUPS, DEVICE_GROUP) for source in group.tables)
    first: list[int] = []
    for name in (*slices, "samples", "counters"):
        columns = [column for column in (time_column(name), "window_ns") if column in TABLES[name].names]
        for batch in batches(run, name, passes, columns):
            time_ns = batch[columns[0]]
            if len(columns) > 1:
                time_ns = pc.subtract(time_ns, batch[columns[1]].fill_null(0))
            first.append(pc.min(time_ns).as_py())
    return min((time_ns for time_ns in first if time_ns is not None), default=0)


@contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    """A file to fill, renamed to `target` when the block ends well and removed when it does not."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        if target.exists():
            raise RunFolderError(f"The file {target} exists already: remove it or choose another name with --out.")
        with full_disk_is_said(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("xb") as file:
                if target.suffix == ".gz":
                    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                        yield packed
                else:
                    yield file
            partial.rename(target)
    except OSError as error:
        raise RunFolderError(
            f"The file {target} cannot be made ({error.strerror or error}): choose another place with --out."
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink()
