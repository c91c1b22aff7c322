"""What the timeline and the table send, without a browser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("anywidget")

from workbench.analysis.levels import MOST_MARKS, Rows, build_levels
from workbench.api import Run
from workbench.figures.classes import CLASS_OF_LIMIT
from workbench.widgets.explore_trace import traced
from workbench.widgets.timeline.marks import KINDS, Cover, MarkSource
from workbench.widgets.timeline.table import Column, Table
from workbench.widgets.timeline.widget import Timeline

EPOCH_NS = 1_795_269_703_196_520_787
TYPES = ["<f8", "<f8", "<u2", "<i4", "<u1", "<i4", "<f4", "<u1"]
FIELDS = ["start", "end", "lane", "name", "kind", "count", "busy", "flags"]


def read(found: Any) -> dict[str, np.ndarray]:
    return {field: np.frombuffer(data, kind) for field, data, kind in zip(FIELDS, found.buffers, TYPES, strict=True)}


def sent_by(widget: Any) -> list[tuple[dict[str, Any], Any]]:
    sent: list[tuple[dict[str, Any], Any]] = []
    widget.send = lambda content, buffers=None: sent.append((content, buffers))
    return sent


@pytest.fixture
def source(recorded: Callable[[str], Run]) -> MarkSource:
    shown = traced(recorded("resnet50_b1_numpy"), "nodes")
    return MarkSource(shown.levels, shown.trace, "cuda")


@pytest.fixture
def crowded() -> MarkSource:
    """More intervals than are ever sent, at times that a float could not hold."""
    starts = EPOCH_NS + np.arange(20_000, dtype=np.int64) * 7
    nothing = np.zeros(20_000, np.int32)
    return MarkSource(build_levels([Rows("k", "k", starts, starts + 3, nothing, nothing)], ["n"], [None]), None, "cuda")


def test_no_window_sends_more_marks_than_are_allowed(crowded: MarkSource) -> None:
    start, end = crowded.levels.start_ns, crowded.levels.end_ns
    for window in ((start, end), (start, start + 7_000), (start - 10**6, end + 10**6)):
        assert len(read(crowded.columns(*window, 8192, None))["start"]) <= MOST_MARKS


def test_times_arrive_to_the_nanosecond(crowded: MarkSource) -> None:
    found = read(crowded.columns(EPOCH_NS + 70_000, EPOCH_NS + 70_030, 100, None))
    assert found["start"].tolist() == [70_000.0, 70_007.0, 70_014.0, 70_021.0, 70_028.0]
    assert (found["end"] - found["start"]).tolist() == [3.0] * 5
    assert found["busy"].tolist() == [1.0] * 5
    merged = read(crowded.columns(EPOCH_NS, EPOCH_NS + 140_000, 10, None))
    assert merged["count"].sum() >= 20_000
    assert merged["busy"] == pytest.approx(3 / 7, abs=0.01)


def test_single_kernels_have_the_class_of_their_limit(source: MarkSource) -> None:
    assert source.trace is not None
    pieces = source.trace.pieces
    found = read(source.columns(source.levels.start_ns, source.levels.end_ns, 8192, None))
    lane = [each.label for each in source.levels.lanes].index("kernels")
    rows = np.flatnonzero((found["lane"] == lane) & (found["flags"] & 2 > 0))
    start, end = source.trace.calls.starts[-1], source.trace.calls.ends[-1]
    found = read(source.columns(int(start), int(end), 8192, None))
    rows = np.flatnonzero((found["lane"] == lane) & (found["flags"] & 2 > 0))
    limits = ("compute", "memory", "under-filled", "unknown")
    known = {
        (int(a), int(b)): KINDS.index(CLASS_OF_LIMIT[limits[limit]])
        for a, b, limit in zip(pieces.starts, pieces.ends, pieces.limit, strict=True)
        if limit >= 0
    }
    origin = source.levels.origin_ns
    expected = [known[int(found["start"][at]) + origin, int(found["end"][at]) + origin] for at in rows]
    assert len(rows) > 100
    assert found["kind"][rows].tolist() == expected


def test_the_length_before_a_moment_is_that_of_a_sum() -> None:
    cover = Cover.of(np.array([10, 30]), np.array([20, 35]))
    assert cover.until(np.arange(0, 50, 5)).tolist() == [0, 0, 0, 5, 10, 10, 10, 15, 15, 15]
    assert Cover.of(np.empty(0, np.int64), np.empty(0, np.int64)).until(np.array([3])).tolist() == [0]


def test_a_window_without_sense_is_answered_all_the_same(source: MarkSource) -> None:
    timeline = Timeline(source, (source.levels.start_ns, source.levels.end_ns))
    sent = sent_by(timeline)
    for start, end, pixels in ((5, 5, 100), (9e300, -9e300, 0), (-1e18, 1e18, 10**9)):
        timeline._answer(None, {"type": "window", "id": 1, "start": start, "end": end, "pixels": pixels}, [])
        content, buffers = sent[-1]
        assert content["type"] == "marks"
        assert len(buffers) == len(TYPES)
    timeline._answer(None, {"type": "unheard of"}, [])


@pytest.fixture
def table() -> Table:
    columns = [Column("name", "name", str, number=False), Column("time_ns", "time", lambda value: f"{value} ns")]
    table = Table(columns, "id", sort_by="time_ns", empty="nothing")
    table.show(pd.DataFrame({"id": [7, 8, 9], "name": ["b", "c", "a"], "time_ns": [1, 3, 2]}))
    return table


def test_rows_come_sorted_and_as_text(table: Table) -> None:
    sent = sent_by(table)
    table._answer(None, {"type": "rows", "id": 4, "start": 0, "stop": 2}, [])
    assert sent[-1][0]["rows"] == [[8, "c", "3 ns"], [9, "a", "2 ns"]]
    table._answer(None, {"type": "sort", "column": 0}, [])
    table._answer(None, {"type": "rows", "id": 5, "start": 0, "stop": 99}, [])
    assert [row[1] for row in sent[-1][0]["rows"]] == ["a", "b", "c"]
    table._answer(None, {"type": "sort", "column": 0}, [])
    assert table.frame["name"].tolist() == ["c", "b", "a"]


def test_the_picked_row_is_found_again_after_sorting_and_filtering(table: Table) -> None:
    told: list[int | None] = []
    table.on_pick(lambda key: (told.append(key), table.pick(key))[0])
    table._answer(None, {"type": "select", "id": 9}, [])
    assert (told, table.selected_at) == ([9], 1)
    table._answer(None, {"type": "sort", "column": 0}, [])
    assert table.selected_at == 0
    table._answer(None, {"type": "step", "by": 1}, [])
    assert told == [9, 7]
    table._answer(None, {"type": "step", "by": 10**9}, [])
    assert told[-1] == 8
    table.show(table.frame[table.frame["id"] == 9])
    assert (table.selected, table.selected_at) == (8, -1)
    table._answer(None, {"type": "select", "id": None}, [])
    assert table.selected is None
