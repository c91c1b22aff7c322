"""Slices and counter values as TrackEvent packets, encoded by the column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

from workbench.runs.export.flows import Flows
from workbench.runs.export.layout import Ints
from workbench.runs.export.slices import Column, Rows
from workbench.runs.export.tracks import SEQUENCE, Tracks
from workbench.runs.export.wire import (
    FIXED64,
    VARINT,
    Records,
    fixed64,
    message,
    scalar,
    tag,
    varint,
)

Uuids = npt.NDArray[np.uint64]

_PACKET: Final = pb.Trace.PACKET_FIELD_NUMBER
_TIMESTAMP: Final = tag(pb.TracePacket.TIMESTAMP_FIELD_NUMBER, VARINT)
_ON_SEQUENCE: Final = (
    tag(pb.TracePacket.TRUSTED_PACKET_SEQUENCE_ID_FIELD_NUMBER, VARINT)
    + scalar(SEQUENCE)
    + tag(pb.TracePacket.SEQUENCE_FLAGS_FIELD_NUMBER, VARINT)
    + scalar(pb.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE)
)
_EVENT: Final = pb.TracePacket.TRACK_EVENT_FIELD_NUMBER
_TYPE: Final = tag(pb.TrackEvent.TYPE_FIELD_NUMBER, VARINT)
_TRACK: Final = tag(pb.TrackEvent.TRACK_UUID_FIELD_NUMBER, VARINT)
_NAME: Final = tag(pb.TrackEvent.NAME_IID_FIELD_NUMBER, VARINT)
_CATEGORY: Final = tag(pb.TrackEvent.CATEGORY_IIDS_FIELD_NUMBER, VARINT)
_FLOW: Final = np.frombuffer(tag(pb.TrackEvent.FLOW_IDS_FIELD_NUMBER, FIXED64), np.uint8)
_COUNTER_VALUE: Final = tag(pb.TrackEvent.DOUBLE_COUNTER_VALUE_FIELD_NUMBER, FIXED64)
_ARGUMENT: Final = pb.TrackEvent.DEBUG_ANNOTATIONS_FIELD_NUMBER
_ARGUMENT_NAME: Final = tag(pb.DebugAnnotation.NAME_IID_FIELD_NUMBER, VARINT)
_ARGUMENT_VALUE: Final = {
    "int": tag(pb.DebugAnnotation.INT_VALUE_FIELD_NUMBER, VARINT),
    "bool": tag(pb.DebugAnnotation.BOOL_VALUE_FIELD_NUMBER, VARINT),
    "text": tag(pb.DebugAnnotation.STRING_VALUE_IID_FIELD_NUMBER, VARINT),
}


class SliceEncoder:
    """Encodes the begins of the slices of one table; its words are defined in `tracks` at once."""

    def __init__(self, tracks: Tracks, rows: Rows, flows: Flows | None) -> None:
        self._start_ns = rows.start_ns
        self._origin_ns = tracks.origin_ns
        self._instant = rows.instant
        self._flows = flows
        self._category = _CATEGORY + scalar(int(tracks.words("event_categories", [rows.source.table])[0]))
        self._name = _names(tracks, rows)
        self._arguments = [
            (
                _ARGUMENT_NAME
                + scalar(int(tracks.words("debug_annotation_names", [column.name])[0]))
                + _ARGUMENT_VALUE[column.kind],
                column,
                tracks.words("debug_annotation_string_values", (word or "" for word in column.words)),
            )
            for column in rows.args
        ]

    def begins(self, rows: Ints, track: Uuids) -> Iterator[tuple[npt.NDArray[np.intp], Records]]:
        """The begins of `rows` on the tracks of these uuids, both (n,), as (positions among them, records).

        Rows with the same known arguments and number of arrows have one layout, and come together.
        """
        partial = [column.valid for _, column, _ in self._arguments if column.valid is not None]
        layout = self._instant[rows].astype(np.int64)
        for valid in partial:
            layout = 2 * layout + valid[rows]
        if self._flows is not None:
            count = self._flows.count[rows]
            layout = layout * (int(count.max(initial=0)) + 1) + count
        _, first, group = np.unique(layout, return_index=True, return_inverse=True)
        for number, one in enumerate(first):
            at = np.flatnonzero(group == number)
            yield at, self._records(rows[at], track[at], int(rows[one]))

    def _records(self, rows: Ints, track: Uuids, like: int) -> Records:
        kind = pb.TrackEvent.TYPE_INSTANT if self._instant[like] else pb.TrackEvent.TYPE_SLICE_BEGIN
        event: list[bytes | Records] = [_TYPE + scalar(kind) + _TRACK, varint(track), self._category + _NAME]
        event.append(self._name if isinstance(self._name, bytes) else varint(self._name[rows]))
        if self._flows is not None and (count := int(self._flows.count[like])):
            ids = fixed64(self._flows.ids[self._flows.first[rows][:, None] + np.arange(count)])
            tags = np.broadcast_to(_FLOW, (len(rows), count, len(_FLOW)))
            event.append(np.concatenate([tags, ids], axis=2).reshape(len(rows), -1))
        for prefix, column, words in self._arguments:
            if column.valid is None or column.valid[like]:
                values = words[column.values[rows]] if column.kind == "text" else _unsigned(column.values[rows])
                event.append(message(_ARGUMENT, len(rows), [prefix, varint(values)]))
        return _packets(_since(self._start_ns[rows], self._origin_ns), event)


def ends(end_ns: Ints, track: Uuids, origin_ns: int) -> Records:
    """The ends of slices on the tracks of these uuids; each closes the slice of its track that began last."""
    return _packets(_since(end_ns, origin_ns), [_TYPE + scalar(pb.TrackEvent.TYPE_SLICE_END) + _TRACK, varint(track)])


def counter_values(time_ns: Ints, values: npt.NDArray[np.float64], track: Uuids, origin_ns: int) -> Records:
    """Values (n,) of counters from these times on."""
    head = _TYPE + scalar(pb.TrackEvent.TYPE_COUNTER) + _TRACK
    return _packets(_since(time_ns, origin_ns), [head, varint(track), _COUNTER_VALUE, fixed64(values[:, None])[:, 0]])


def _packets(time_ns: npt.NDArray[np.uint64], event: list[bytes | Records]) -> Records:
    rows = len(time_ns)
    body: list[bytes | Records] = [_TIMESTAMP, varint(time_ns), _ON_SEQUENCE, message(_EVENT, rows, event)]
    return message(_PACKET, rows, body)


def _names(tracks: Tracks, rows: Rows) -> bytes | npt.NDArray[np.uint64]:
    if isinstance(rows.name, str):
        return scalar(int(tracks.words("event_names", [rows.name])[0]))
    column: Column = rows.name
    words = tracks.words("event_names", [*(word or "unnamed" for word in column.words), "unnamed"])
    codes = column.values if column.valid is None else np.where(column.valid, column.values, len(words) - 1)
    named: npt.NDArray[np.uint64] = words[codes]
    return named


def _since(time_ns: Ints, origin_ns: int) -> npt.NDArray[np.uint64]:
    return _unsigned(time_ns) - np.array([origin_ns]).view(np.uint64)  # modulo 2^64, so that no difference overflows


def _unsigned(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint64]:
    return values.astype(np.int64, copy=False).view(np.uint64)
