"""Traces for ui.perfetto.dev, read back by Perfetto's own protos."""

from __future__ import annotations

import gzip
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from workbench.runs.export import export_run
from workbench.runs.reader import RunFolder
from workbench.runs.writer import write_table

H200 = Path(__file__).parents[1] / "data" / "h200"
SLICES = ("latency", "steps", "ranges", "session_events", "nodes", "launches", "syncs", "kernels", "copies", "memsets")
T0 = 1_795_269_828_160_378_230


@dataclass
class Slice:
    table: str
    track: int
    name: str
    start: int
    end: int | None
    flows: list[int]
    args: dict[str, Any]


@dataclass
class Trace:
    """What a viewer makes of a trace file; reading asserts the rules of the format on the way."""

    tracks: dict[int, Any] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    instants: list[Slice] = field(default_factory=list)
    values: list[tuple[int, int, float]] = field(default_factory=list)
    clocks: dict[int, int] = field(default_factory=dict)

    def named(self, table: str) -> list[Slice]:
        return [s for s in [*self.slices, *self.instants] if s.table == table]

    def path(self, track: int) -> str:
        descriptor = self.tracks[track]
        return (f"{self.path(descriptor.parent_uuid)} / " if descriptor.parent_uuid else "") + descriptor.name


def read_trace(data: bytes) -> Trace:
    trace, words, events = Trace(), defaultdict[str, dict[int, str]](dict), []
    for index, packet in enumerate(pb.Trace.FromString(data).packet):
        assert packet.trusted_packet_sequence_id == 1
        assert (packet.sequence_flags == pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED) == (index == 0)
        for clock in packet.clock_snapshot.clocks:
            trace.clocks[clock.clock_id] = clock.timestamp
        for kind, entries in packet.interned_data.ListFields():
            for entry in entries:
                assert entry.iid not in words[kind.name]
                text = entry.str.decode() if kind.name == "debug_annotation_string_values" else entry.name
                words[kind.name][entry.iid] = text
        if packet.HasField("track_descriptor"):
            descriptor = packet.track_descriptor
            assert descriptor.uuid not in trace.tracks
            assert not descriptor.parent_uuid or descriptor.parent_uuid in trace.tracks
            trace.tracks[descriptor.uuid] = descriptor
        if packet.HasField("track_event"):
            event = packet.track_event
            assert event.track_uuid in trace.tracks
            # a word is defined before the event that uses it: looked up here and not after the loop
            name = words["event_names"][event.name_iid] if event.name_iid else event.name
            category = words["event_categories"][event.category_iids[0]] if event.category_iids else ""
            args = {}
            for one in event.debug_annotations:
                kind = one.WhichOneof("value")
                value = getattr(one, kind)
                shown = words["debug_annotation_string_values"][value] if kind == "string_value_iid" else value
                args[words["debug_annotation_names"][one.name_iid]] = shown
            events.append((packet.timestamp, event, Slice(category, event.track_uuid, name, packet.timestamp, None,
                                                          list(event.flow_ids), args)))  # fmt: skip
    stacks = defaultdict[int, list[Slice]](list)
    for time, event, one in sorted(events, key=lambda each: each[0]):  # a stable sort, as viewers do
        stack = stacks[event.track_uuid]
        if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            stack.append(one)
            trace.slices.append(one)
        elif event.type == pb.TrackEvent.TYPE_SLICE_END:
            stack.pop().end = time
        elif event.type == pb.TrackEvent.TYPE_INSTANT:
            trace.instants.append(one)
        else:
            assert event.type == pb.TrackEvent.TYPE_COUNTER
            trace.values.append((event.track_uuid, time, event.double_counter_value))
    assert not any(stacks.values()), "a slice has no end"
    return trace


@cache
def real(name: str) -> Trace:
    """The trace of a recorded run, written and read once for all tests."""
    with TemporaryDirectory() as folder:
        return exported(RunFolder(H200 / name), Path(folder))


def exported(run: RunFolder, tmp_path: Path, passes: list[str] | None = None) -> Trace:
    (file,) = export_run(run, "perfetto", tmp_path / "out.perfetto-trace", passes=passes)
    return read_trace(file.read_bytes())


def made(folder: Path, **tables: dict[str, Any] | pa.Table) -> RunFolder:
    """A run of these tables, its manifest taken from a real one."""
    folder.mkdir()
    shutil.copy(H200 / "launch_numpy" / "manifest.json", folder)
    for name, columns in tables.items():
        write_table(folder, name, columns)
    return RunFolder(folder)


def intervals(run: RunFolder, table: str) -> Counter[tuple[int, int]]:
    rows = run.table(table)
    ends = rows["end_ns"] if "end_ns" in rows else rows["start_ns"] + rows["duration_ns"]
    return Counter(zip(rows["start_ns"].tolist(), ends.tolist(), strict=True))


@pytest.mark.parametrize("name", ["pcie_numpy", "resnet50_b1_graph"])
def test_every_row_of_a_real_run_is_one_slice_with_its_exact_times(name: str) -> None:
    run, trace = RunFolder(H200 / name), real(name)
    for table in (*SLICES, "graphs"):
        assert Counter((s.start, s.end) for s in trace.named(table)) == intervals(run, table), table
    assert {s.name for s in trace.named("kernels")} == set(run.kernels["name"])
    assert trace.clocks == {pb.BUILTIN_CLOCK_BOOTTIME: 0, pb.BUILTIN_CLOCK_REALTIME: 0}


def test_arrows_join_exactly_the_calls_and_the_work_that_share_an_id() -> None:
    run, trace = RunFolder(H200 / "resnet50_b1_graph"), real("resnet50_b1_graph")
    ends = defaultdict[int, list[tuple[str, int, int]]](list)
    for one in trace.slices:
        for flow in one.flows:
            ends[flow].append((one.table, one.start, one.args["correlation"]))
    found = Counter()
    for pair in ends.values():
        (table, launched, correlation), (work, started, other) = sorted(pair, key=lambda end: end[0] != "launches")
        assert (table, correlation) == ("launches", other)
        found[work, launched, started] += 1
    wanted = Counter()
    for work in ("kernels", "copies", "memsets", "graphs"):
        joined = run.launches.merge(run.table(work), on=["pass", "correlation"])
        wanted.update(zip([work] * len(joined), joined["start_ns_x"], joined["start_ns_y"], strict=True))
    assert found == wanted
    assert wanted


def test_counters_carry_the_values_from_the_start_of_their_window() -> None:
    run, trace = RunFolder(H200 / "pcie_numpy"), real("pcie_numpy")
    found = Counter((trace.path(track), time, value) for track, time, value in trace.values)
    wanted = Counter(
        (f"device {row.device} / {row.metric}", row.time_ns - getattr(row, "window_ns", 0), row.value)
        for table in (run.samples, run.counters)
        for row in table.itertuples()
    )
    assert found == wanted
    units = {track.name: track.counter.unit_name for track in trace.tracks.values()}
    assert (units["power_w"], units["sm_active_percent"], units["pcie_tx_bytes_total"]) == ("W", "%", "B")


def test_tracks_say_pass_process_thread_and_stream(tmp_path: Path) -> None:
    run = RunFolder(H200 / "pcie_numpy")
    trace = exported(run, tmp_path, passes=["activity"])
    pid = int(run.latency.query("`pass` == 'activity'")["process"].iloc[0])
    thread = int(run.launches.query("`pass` == 'activity'")["thread"].iloc[0])
    stream = int(run.kernels.query("`pass` == 'activity'")["stream"].iloc[0])
    assert {trace.path(s.track) for s in trace.named("launches")} == {
        f"activity pass · process {pid} / launches · thread {thread}"
    }
    assert {trace.path(s.track) for s in trace.named("kernels")} == {
        f"device 0 / stream {stream} · activity · process {pid}"
    }
    assert [track.process.pid for track in trace.tracks.values() if track.HasField("process")] == [pid]
    assert not trace.named("nodes"), "the nodes pass was not asked for"


def test_arguments_hold_what_the_row_says_and_nothing_for_nulls(tmp_path: Path) -> None:
    at = {"pass": ["activity"] * 2, "process": [5, 5], "device": [0, 0], "stream": [7, 7], "correlation": [-3, None]}
    run = made(
        tmp_path / "run",
        kernels=at | {"start_ns": [T0, T0 + 9], "end_ns": [T0 + 5, T0 + 12], "name": ["k", None],
                      "grid_x": [2**31 - 1, 1]},
        copies=at | {"start_ns": [T0 + 20, T0 + 30], "end_ns": [T0 + 25, T0 + 31], "kind": ["h2d", "d2h"],
                     "bytes": [2**40, 0], "source": ["pageable", None]},
        ranges={"pass": ["activity"], "start_ns": [T0], "end_ns": [T0 + 1], "name": ["r"], "open": [True],
                "payload": ["8"]},
    )  # fmt: skip
    trace = exported(run, tmp_path)
    assert [(s.name, s.args) for s in trace.named("kernels")] == [
        ("k", {"correlation": -3, "grid_x": 2**31 - 1}),
        ("unnamed", {"grid_x": 1}),
    ]
    assert [(s.name, s.args) for s in trace.named("copies")] == [
        ("h2d", {"correlation": -3, "bytes": 2**40, "source": "pageable"}),
        ("d2h", {"bytes": 0}),
    ]
    assert [s.args for s in trace.named("ranges")] == [{"open": True, "payload": "8"}]


def test_one_call_with_many_kernels_and_equal_ids_in_two_processes(tmp_path: Path) -> None:
    times = {"start_ns": [T0, T0 + 1, T0 + 2], "end_ns": [T0 + 1, T0 + 2, T0 + 3]}
    run = made(
        tmp_path / "run",
        launches={"pass": ["activity"] * 3, "process": [1, 2, 2], "thread": [1, 2, 2], "name": ["a", "b", "c"],
                  "correlation": [8, 8, 8]} | times,
        kernels={"pass": ["activity"] * 3, "process": [1, 1, 2], "device": [0] * 3, "stream": [1, 1, 2],
                 "name": ["p", "q", "r"], "correlation": [8, 8, 8]} | times,
        memsets={"pass": ["activity"], "process": [3], "device": [0], "stream": [9], "correlation": [8],
                 "start_ns": [T0], "end_ns": [T0]},
    )  # fmt: skip
    trace = exported(run, tmp_path)
    names = defaultdict[int, list[str]](list)
    for one in sorted(trace.slices, key=lambda s: s.table != "launches"):
        for flow in one.flows:
            names[flow].append(one.name)
    assert sorted(names.values()) == [["a", "p"], ["a", "q"], ["b", "r"]]


def test_rows_that_cross_lie_on_sibling_tracks_and_rows_without_a_usable_end_are_moments(tmp_path: Path) -> None:
    base = {"pass": ["nodes"] * 4, "thread": [1] * 4, "name": ["a", "b", "c", "d"]}
    run = made(
        tmp_path / "run",
        nodes=base | {"start_ns": [T0, T0 + 9, T0 + 10, T0 + 40], "duration_ns": [10, 11, 5, -1]},
        syncs={"pass": ["activity"] * 2, "start_ns": [None, T0 + 3], "end_ns": [T0 + 1, None], "kind": ["s", "t"]},
    )
    trace = exported(run, tmp_path)
    tracks = {s.name: s.track for s in trace.slices}
    assert tracks["a"] == tracks["c"] != tracks["b"]
    assert trace.path(tracks["a"]) == trace.path(tracks["b"])
    assert {(s.name, s.start) for s in trace.instants if s.table} == {("d", T0 + 40), ("t", T0 + 3)}
    assert [s.name for s in trace.instants if not s.table] == [
        "1 rows of syncs have no time or no value, and are not drawn"
    ]


def test_negative_times_are_shifted_together_and_not_called_real_time(tmp_path: Path) -> None:
    low = -(2**62)
    rows = {"pass": ["activity"] * 2, "start_ns": [low, 4], "end_ns": [low + 3, 6], "name": ["a", "b"]}
    trace = exported(made(tmp_path / "run", ranges=rows), tmp_path)
    assert [(s.start, s.end) for s in trace.slices] == [(0, 3), (4 - low, 6 - low)]
    assert not trace.clocks


def test_hostile_names_leave_the_trace_readable(tmp_path: Path) -> None:
    surrogate = pa.Array.from_buffers(  # what no writer of text makes and a damaged file may hold
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 3], np.int32)), pa.py_buffer(b"\xed\xa0\x80")]
    )
    names = pa.concat_arrays([pa.array(["\x00nul\n\x1b[31m", "x" * 1_000_000, "ключ 鍵"]), surrogate])
    rows = pa.table({"pass": ["activity"] * 4, "start_ns": [T0] * 4, "end_ns": [T0 + 1] * 4, "name": names})
    run = made(tmp_path / "run", ranges={"pass": ["activity"], "start_ns": [T0], "end_ns": [T0]})
    pq.write_table(rows, run.folder / "ranges.parquet")
    found = sorted((s.name for s in exported(run, tmp_path).slices), key=len)
    assert found[:3] == ["���", "ключ 鍵", "␀nul␊␛[31m"]
    assert len(found[3]) == 4096
    assert found[3].endswith("x…")


def test_an_empty_run_is_an_empty_trace(tmp_path: Path) -> None:
    trace = exported(made(tmp_path / "run"), tmp_path)
    assert (trace.tracks, trace.slices, trace.values) == ({}, [], [])


def test_a_name_in_gz_gives_the_same_trace_compressed(tmp_path: Path) -> None:
    run = RunFolder(H200 / "pcie_device")
    (plain,) = export_run(run, "perfetto", tmp_path / "a.perfetto-trace")
    (packed,) = export_run(run, "perfetto", tmp_path / "a.perfetto-trace.gz")
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
