"""The levels of a timeline against a twin that looks at every nanosecond."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis import dominant, level_lane
from workbench.analysis.level_cache import load_levels, save_levels
from workbench.analysis.level_lane import MERGED, Lane, lane_of
from workbench.analysis.levels import Levels, Rows, build_levels
from workbench.analysis.run_levels import MOST_LANES, run_lanes
from workbench.analysis.run_levels import levels_of as levels_of_run
from workbench.errors import RunFolderError
from workbench.figures.marks import LANES, RANGE_LANES
from workbench.runs.reader import RunFolder
from workbench.runs.writer import to_table

EPOCH_NS = 1_795_269_703_196_520_787
Interval = tuple[int, int, int, int]  # start, length, name, class

intervals = st.lists(
    st.tuples(st.integers(0, 150), st.integers(0, 40), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40
)
apart = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 9), st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40
)
windows = st.tuples(st.integers(-10, 200), st.integers(1, 250))


keeping = pytest.mark.parametrize("kept", [True, False], ids=["levels kept", "all added up when asked"])


@contextmanager
def levels_kept(kept: bool) -> Iterator[None]:
    """Let a few intervals be enough for levels to be kept, so that small examples reach both ways to an answer."""
    with pytest.MonkeyPatch.context() as patch:
        if kept:
            patch.setattr(dominant, "RUN_PIECES", 4)
            patch.setattr(dominant, "RUN_BINS", 4)
            patch.setattr(dominant, "CROWDED", 2)
            patch.setattr(level_lane, "_BLOCK", 4)
        yield


def one_after_the_other(parts: list[Interval]) -> list[Interval]:
    """Intervals that do not overlap, made from gaps and lengths."""
    placed, at = [], 0
    for gap, length, name, class_ in parts:
        placed.append((at + gap, length, name, class_))
        at += gap + length
    return placed


def lane(parts: list[Interval]) -> Lane:
    starts, lengths, names, classes = np.array(parts, np.int64).T
    return lane_of(starts, starts + lengths, names.astype(np.int32), classes.astype(np.int32))


def levels_of(lanes: list[list[Interval]], shift: int = 0) -> Levels:
    rows = []
    for number, parts in enumerate(lanes):
        starts, lengths, names, classes = np.array(parts, np.int64).reshape(-1, 4).T
        codes = names.astype(np.int32), classes.astype(np.int32)
        rows.append(Rows(f"lane {number}", f"lane {number}", starts + shift, starts + lengths + shift, *codes))
    return build_levels(rows, list("abcd"), [None, "memory", "launch"])


class Twin:
    """A lane as a list of intervals by start and the owner of each nanosecond: who began first of those there."""

    def __init__(self, parts: list[Interval]) -> None:
        self.rows = sorted(((s, s + length, n, c) for s, length, n, c in parts), key=lambda row: row[0])
        self.owner: dict[int, int] = {}
        for number, (start, end, _, _) in enumerate(self.rows):
            for moment in range(start, end):
                self.owner.setdefault(moment, number)

    def inside(self, start: int, end: int) -> list[int]:
        return [i for i, (s, e, _, _) in enumerate(self.rows) if s < end and (e > start or start <= s == e)]

    def busy(self, start: int, end: int) -> int:
        return sum(moment in self.owner for moment in range(start, end))

    def holds_most(self, start: int, end: int, column: int) -> int:
        held = Counter({self.rows[i][column]: 0 for i in self.inside(start, end) if self.rows[i][0] == self.rows[i][1]})
        held.update(self.rows[self.owner[moment]][column] for moment in range(start, end) if moment in self.owner)
        return min(held, key=lambda code: (-held[code], code))

    def bins(self, start: int, end: int, level: int) -> list[tuple[int, ...]]:
        marks: list[tuple[int, ...]] = []
        for number in range(start >> level, ((end - 1) >> level) + 1):
            whole = number << level, (number + 1) << level
            low, high = max(whole[0], start), min(whole[1], end)
            rows = self.inside(low, high)
            if len(rows) == 1:
                busy = self.busy(low, high)
                if marks and marks[-1][-1] == rows[0]:
                    busy += marks.pop()[5]
                marks.append((*self.rows[rows[0]], 1, busy, rows[0]))
            elif rows:
                first = min(max(self.rows[i][0], low) for i in rows)
                last = max(min(self.rows[i][1], high) for i in rows)
                most = self.holds_most(*whole, 2), self.holds_most(*whole, 3)
                marks.append((first, last, *most, len(rows), self.busy(low, high), MERGED))
        return marks


def check(parts: list[Interval], window: tuple[int, int], level: int) -> None:
    """The marks of a lane at one level, and its rows, in the part of the window that the lane reaches."""
    made, twin = lane(parts), Twin(parts)
    start = max(window[0], twin.rows[0][0])
    end = min(sum(window), max(row[1] for row in twin.rows) + 1)
    if start >= end:
        return
    assert made.count(start, end) == len(twin.inside(start, end))
    marks = made.bins(start, end, level)
    assert list(zip(*(each.tolist() for each in marks), strict=True)) == twin.bins(start, end, level)
    rows = made.rows(start, end)
    assert rows.rows.tolist() == twin.inside(start, end)
    owned = Counter(twin.owner[moment] for moment in range(start, end) if moment in twin.owner)
    assert rows.busy_ns.tolist() == [owned[row] for row in rows.rows.tolist()]


@keeping
@given(intervals, windows, st.integers(0, 9))
def test_marks_of_overlapping_intervals(kept: bool, parts: list[Interval], window: tuple[int, int], level: int) -> None:
    with levels_kept(kept):
        check(parts, window, level)


@keeping
@given(apart, windows, st.integers(0, 9))
def test_marks_of_intervals_apart(kept: bool, parts: list[Interval], window: tuple[int, int], level: int) -> None:
    with levels_kept(kept):
        check(one_after_the_other(parts), window, level)


@given(apart)
def test_every_crowded_bin_of_every_level(parts: list[Interval]) -> None:
    with levels_kept(True):
        made = lane(one_after_the_other(parts))
    twin, kept = Twin(one_after_the_other(parts)), made.pyramid
    known: set[tuple[int, int]] = set()
    for level, last in enumerate(np.cumsum(kept.sizes).tolist(), int(kept.first[0])):
        for at in range(len(known), last):
            window = int(kept.bins[at]) << level, int(kept.bins[at] + 1) << level
            assert kept.names[at] == twin.holds_most(*window, 2)
            assert kept.classes[at] == twin.holds_most(*window, 3)
            known.add((level, int(kept.bins[at])))
    for level in range(int(kept.first[0]), int(kept.first[0]) + len(kept.sizes)):
        held = Counter(bin_ for s, e, _, _ in twin.rows for bin_ in range(s >> level, (max(e - 1, s) >> level) + 1))
        assert {(level, bin_) for bin_, count in held.items() if count >= 2} == {
            each for each in known if each[0] == level
        }
    assert len(kept.sizes) == 0 or (kept.first[0] + len(kept.sizes) - 1, 0) in known  # up to the one that holds all


def test_bins_far_apart_are_told_apart_with_many_names() -> None:
    count, far = 20_000, 1 << 60
    starts = np.append(np.arange(count), far)
    ends = np.append(np.arange(count) + 1, far + (1 << 30))
    names = np.append(np.arange(count) % 1000, 1023)
    made = lane_of(starts, ends, names.astype(np.int32), np.zeros(count + 1, np.int32))
    marks = made.bins(0, count, int(made.pyramid.first[0]))
    assert marks.names.max() < 1000
    assert marks.counts.sum() == count


lanes_of_marks = st.lists(intervals | apart.map(one_after_the_other), min_size=1, max_size=4)


@keeping
@given(lanes_of_marks, windows, st.integers(1, 60), st.integers(4, 90))
def test_a_window_of_a_timeline(
    kept: bool, lanes: list[list[Interval]], window: tuple[int, int], pixels: int, most: int
) -> None:
    start, end = window[0], sum(window)
    with levels_kept(kept):
        levels = levels_of(lanes, shift=EPOCH_NS)
        marks = levels.window(EPOCH_NS + start, EPOCH_NS + end, pixels, most)
    assert len(marks) <= most
    for number, parts in enumerate(lanes):
        twin, mine = Twin(parts), marks[marks["lane"] == number]
        rows = twin.inside(start, end)
        assert mine["busy_ns"].sum() == twin.busy(start, end)
        assert mine["count"].sum() >= len(rows)
        shown = {(row - EPOCH_NS, last - EPOCH_NS) for row, last in mine[["start_ns", "end_ns"]].to_numpy().tolist()}
        held = {moment for row, last in shown for moment in range(row, last)}
        assert {moment for moment in twin.owner if start <= moment < end} <= held
        assert (mine["count"] == 1).equals(mine["row"] >= 0)
        assert {twin.rows[row][:2] for row in mine.loc[mine["row"] >= 0, "row"]} <= shown
        assert levels.lanes[number].count == len(parts)
        assert levels.lanes[number].busy_ns == len(twin.owner)
    if sum(len(Twin(parts).inside(start, end)) for parts in lanes) <= most:
        assert (marks["count"] == 1).all()


def test_marks_are_about_as_narrow_as_a_pixel() -> None:
    levels = levels_of([[(10 * number, 7, number % 3, 1) for number in range(20_000)]])
    marks = levels.window(0, 200_000, 1000)
    assert 500 <= len(marks) <= 1000
    assert (marks["end_ns"] - marks["start_ns"]).max() <= 2 * 200
    assert marks["busy_ns"].sum() == 7 * 20_000
    assert set(marks["class"]) == {"memory"}
    assert 2500 <= len(levels.window(0, 200_000, 100_000)) <= 5000


def test_a_name_is_told_by_its_time_and_not_by_its_count() -> None:
    many = [(number, 1, 0, 0) for number in range(100)]
    marks = levels_of([[*many, (100, 128 - 100, 1, 0), (128, 200, 2, 1)]]).window(0, 512, 1, 1)
    assert marks.to_dict("records") == [
        {
            "lane": 0,
            "start_ns": 0,
            "end_ns": 328,
            "name": "c",
            "class": "memory",
            "count": 102,
            "busy_ns": 328,
            "row": -1,
        }
    ]


def test_a_window_must_hold_something() -> None:
    levels = levels_of([[(0, 10, 0, 0)]])
    for window in ((5, 5, 100, 100), (5, 4, 100, 100), (0, 10, 0, 100), (0, 10, 100, 0)):
        with pytest.raises(ValueError, match="window"):
            levels.window(*window)
    assert levels.window(-(1 << 70), 1 << 70, 100)["count"].tolist() == [1]
    assert levels.window(11, 20, 100).empty
    assert levels_of([]).window(0, 10, 100).empty


def test_times_that_no_recording_has_are_refused() -> None:
    with pytest.raises(RunFolderError, match="73 years"):
        levels_of([[(0, 1, 0, 0), (1 << 61, 1, 0, 0)]])


# kept with the run


@given(lanes_of_marks)
def test_kept_levels_answer_as_built_ones(lanes: list[list[Interval]]) -> None:
    with tempfile.TemporaryDirectory() as folder, levels_kept(True):
        built = levels_of(lanes)
        save_levels(built, file := Path(folder) / "derived" / "levels.bin")
        loaded = load_levels(file)
        assert [path.name for path in file.parent.iterdir()] == ["levels.bin"]
    assert loaded is not None
    assert loaded.lanes == built.lanes
    for window in ((0, 300, 20, 6), (40, 60, 100, 100)):
        pd.testing.assert_frame_equal(loaded.window(*window), built.window(*window))


@pytest.fixture
def folder(h200: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(h200 / "launch_numpy", tmp_path / "run"))


def everything(levels: Levels) -> pd.DataFrame:
    return levels.window(levels.start_ns, levels.end_ns, 500)


def test_a_second_opening_reads_no_table(folder: Path) -> None:
    first = everything(levels_of_run(RunFolder(folder), "nodes"))
    for table in folder.glob("*.parquet"):
        table.write_bytes(b"")
    pd.testing.assert_frame_equal(everything(levels_of_run(RunFolder(folder), "nodes")), first)


def test_a_damaged_file_is_built_again(folder: Path) -> None:
    first = everything(levels_of_run(RunFolder(folder), "nodes"))
    (file,) = (folder / "derived").iterdir()
    whole = file.read_bytes()
    damaged = [bytearray(whole) for _ in range(4)]
    for content, at in zip(damaged, (0, 1000, -30, -1), strict=True):
        content[at] ^= 1
    for content in (*damaged, whole[: len(whole) // 2], b"", whole[:10]):
        file.write_bytes(content)
        pd.testing.assert_frame_equal(everything(levels_of_run(RunFolder(folder), "nodes")), first)
        assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_no_hindrance(folder: Path) -> None:
    (folder / "derived").write_text("in the way")
    levels = levels_of_run(RunFolder(folder), "activity")
    assert len(everything(levels))
    assert (folder / "derived").read_text() == "in the way"


def test_only_known_passes_have_a_file(folder: Path) -> None:
    with pytest.raises(ValueError, match="latency, counters, activity, nodes"):
        levels_of_run(RunFolder(folder), "../nodes")


# the lanes of a run


class Given:
    """Tables made of the columns that are given; the others are null."""

    def __init__(self, **tables: dict[str, list[Any]]) -> None:
        self.tables = tables

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        rows = self.tables.get(name, {})
        count = len(next(iter(rows.values()), []))
        return to_table(name, {"pass": ["activity"] * count, **rows}, columns).to_pandas()


def labels(run: Given) -> list[str]:
    return [lane.label for lane in run_lanes(run, "activity")[0]]


def test_the_lanes_of_a_recorded_run(h200: Path) -> None:
    run = RunFolder(h200 / "launch_numpy")
    levels = build_levels(*run_lanes(run, "nodes"))
    absent = ("graph replays", *RANGE_LANES)
    assert [lane.label for lane in levels.lanes] == [lane for lane in LANES if lane not in absent]
    rows = {lane.label: lane.count for lane in levels.lanes}
    assert rows["nodes"] == (run.nodes["pass"] == "nodes").sum()
    assert rows["host calls"] == (run.launches["pass"] == "nodes").sum()
    assert rows["kernels"] == (run.kernels["pass"] == "nodes").sum()
    marks = levels.window(levels.start_ns, levels.end_ns, 1 << 20, 1 << 20)
    classes = marks.assign(label=[levels.lanes[lane].label for lane in marks["lane"]])
    calls = classes[classes["label"] == "host calls"].groupby("name")["class"].unique().map(list).to_dict()
    assert calls["cudaMemcpyAsync"] == ["pcie"]
    assert calls["cudaStreamSynchronize"] == ["sync"]
    assert calls["cudaLaunchKernel"] == ["launch"]


def test_lanes_are_split_by_what_differs() -> None:
    kernels = {"start_ns": [0, 1, 2], "end_ns": [1, 2, 3], "device": [0, 0, 0], "stream": [7, 7, 9]}
    assert labels(Given(kernels=kernels)) == ["kernels, stream 7", "kernels, stream 9"]
    assert labels(Given(kernels=kernels | {"device": [0, 0, 1]})) == [
        "kernels, GPU 0, stream 7",
        "kernels, GPU 1, stream 9",
    ]
    calls = {"start_ns": [0, 1], "end_ns": [1, 2], "thread": [5, 5], "process": [1, None]}
    assert labels(Given(launches=calls)) == ["host calls, process 1", "host calls, process unknown"]


def test_ranges_lie_by_depth_with_the_outermost_first() -> None:
    spans = {"a": (0, 100), "b": (0, 50), "c": (10, 20), "d": (50, 60), "e": (100, 110), "f": (60, 60)}
    ranges = {
        "start_ns": [start for start, _ in spans.values()],
        "end_ns": [end for _, end in spans.values()],
        "name": list(spans),
        "thread": [1] * len(spans),
        "kind": ["push/pop"] * len(spans),
    }
    lanes, names, _ = run_lanes(Given(ranges=ranges), "activity")
    held = {lane.label: {names[code] for code in lane.names} for lane in lanes}
    assert held == {"ranges": {"a", "e"}, "ranges, depth 2": {"b", "d", "f"}, "ranges, depth 3": {"c"}}
    assert labels(Given(ranges=ranges | {"kind": [None] * len(spans)})) == []
    deep = {column: [*range(20)] if column == "start_ns" else [40] * 20 for column in ("start_ns", "end_ns", "thread")}
    nested = labels(Given(ranges=deep | {"domain": ["x"] * 20}))
    assert nested == ["ranges", *(f"ranges, depth {depth}" for depth in range(2, 6)), "ranges, depth 6 and deeper"]


def test_of_many_lanes_the_least_busy_become_one_and_none_is_lost() -> None:
    count = 100
    streams = list(range(count))
    ends = [stream * 1000 + (stream * 37) % 101 + 1 for stream in streams]
    kernels = {"start_ns": [stream * 1000 for stream in streams], "end_ns": ends, "stream": streams}
    lanes, *texts = run_lanes(Given(kernels=kernels | {"device": [0] * count}), "activity")
    assert len(lanes) == MOST_LANES
    assert lanes[-1].label == f"{count - MOST_LANES + 1} more lanes"
    levels = build_levels(lanes, *texts)
    assert sum(lane.count for lane in levels.lanes) == count
    assert max(lanes[-1].ends - lanes[-1].starts) <= min(lane.busy_ns for lane in levels.lanes[:-1])
    assert len(levels.window(0, count * 1000, 1000, 60)) <= 60
