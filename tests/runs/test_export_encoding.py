"""The encoding of a trace: lanes on which slices nest, and protobuf messages by the column."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from workbench.runs.export.layout import NESTING_LANES, lay_out
from workbench.runs.export.wire import FIXED64, VARINT, fixed64, interleave, message, tag, varint


@st.composite
def slices_of_tracks(draw: st.DrawFn) -> tuple[np.ndarray[Any, Any], ...]:
    rows = draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(0, 6), st.booleans()), max_size=30)
    )
    track, start, length, instant = (
        np.array(column, np.int64) for column in (zip(*rows, strict=True) if rows else [()] * 4)
    )
    instant = instant.astype(bool) & (length == 0)
    return np.unique(track, return_inverse=True)[1].astype(np.int32), start, start + length, instant


@given(slices_of_tracks())
def test_on_each_lane_slices_nest_and_ends_close_what_began_last(rows: tuple[np.ndarray[Any, Any], ...]) -> None:
    track, start, end, instant = rows
    layout = lay_out(track, start, end, instant)
    assert (layout.track[layout.lane] == track).all()
    stacks, seen, before = defaultdict[int, list[int]](list), Counter[int](), -1
    for event in layout.order.tolist():
        row, closes = divmod(event, 2)
        time, stack = int((end if closes else start)[row]), stacks[int(layout.lane[row])]
        assert time >= before
        before = time
        seen[event] += 1
        if closes:
            top = stack.pop()
            assert (int(start[top]), int(end[top])) == (int(start[row]), int(end[row]))
        elif not instant[row]:
            assert all(end[outer] >= end[row] for outer in stack)
            stack.append(row)
    assert seen == Counter([2 * i for i in range(len(track))] + [2 * i + 1 for i in np.flatnonzero(~instant).tolist()])


def test_apart_and_nested_slices_need_one_lane_and_many_crossing_ones_no_quadratic_search() -> None:
    start = np.array([0, 1, 1, 5, 10, 10], np.int64)
    end = np.array([10, 4, 2, 10, 10, 12], np.int64)
    one = lay_out(np.zeros(6, np.int32), start, end, np.zeros(6, bool))
    assert one.track.tolist() == [0]

    n = 20_000
    start = np.arange(n)
    many = lay_out(np.zeros(n, np.int32), start, start + 50, np.zeros(n, bool))
    assert len(many.track) == 50 > NESTING_LANES
    for lane in range(len(many.track)):
        rows = np.flatnonzero(many.lane == lane)
        assert all(a + 50 <= b for a, b in pairwise(start[rows].tolist()))


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1)),
    st.lists(st.integers(0, 2**64 - 1)),
    st.lists(st.floats(allow_nan=False)),
    st.randoms(use_true_random=False),
)
def test_columns_of_bytes_are_the_messages_that_the_protobuf_library_reads(
    signed: list[int], unsigned: list[int], reals: list[float], random: Any
) -> None:
    columns = [
        [tag(pb.DebugAnnotation.INT_VALUE_FIELD_NUMBER, VARINT), varint(np.array(signed, np.int64).view(np.uint64))],
        [tag(pb.DebugAnnotation.UINT_VALUE_FIELD_NUMBER, VARINT), varint(np.array(unsigned, np.uint64))],
        [tag(pb.DebugAnnotation.DOUBLE_VALUE_FIELD_NUMBER, FIXED64), fixed64(np.array(reals, np.float64))],
    ]
    values = [*signed, *unsigned, *reals]
    places = random.sample(range(len(values)), len(values))
    pieces, begin = [], 0
    for column, rows in zip(columns, (signed, unsigned, reals), strict=True):
        at = np.array(places[begin : begin + len(rows)], np.intp)
        pieces.append((at, message(pb.DebugAnnotation.DICT_ENTRIES_FIELD_NUMBER, len(rows), column)))
        begin += len(rows)
    read = pb.DebugAnnotation.FromString(interleave(pieces)).dict_entries
    found = [(one.WhichOneof("value"), getattr(one, one.WhichOneof("value"))) for one in read]
    kinds = ["int_value"] * len(signed) + ["uint_value"] * len(unsigned) + ["double_value"] * len(reals)
    assert [found[place] for place in places] == list(zip(kinds, values, strict=True))
