"""The parts of a Perfetto trace that are few: its clock, the tree of tracks, and the words that events refer to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from gzip import GzipFile
from typing import Any, BinaryIO, Final, Literal

import numpy as np
import numpy.typing as npt
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

SEQUENCE: Final = 1
"""All packets form one sequence: words have one meaning in the whole trace."""

LONGEST_TEXT: Final = 4096
"""A text of more characters is cut: what no screen shows would make the trace too large to open."""

_WORDS_AT_ONCE: Final = 1024
_PRINTED: Final = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}  # U+2400 to U+2421: control pictures
_LARGEST_PID: Final = 2**31 - 1  # ProcessDescriptor.pid is an int32

WordKind = Literal["event_categories", "event_names", "debug_annotation_names", "debug_annotation_string_values"]

# by the metric's suffix, longest first; the rest is shown without a unit
_UNITS: Final = {
    "_bytes_per_s": "B/s",
    "_bytes_total": "B",
    "_bytes": "B",
    "_percent": "%",
    "_celsius": "°C",
    "_mhz": "MHz",
    "_w": "W",
}


class Tracks:
    """Writes tracks and words to `file` and hands out the ids by which events refer to them.

    A track stands below those of the same parent that were made before it. Times are shifted by `origin_ns`; with an
    origin of 0 they are nanoseconds since the Unix epoch, and the trace says so.
    """

    def __init__(self, file: BinaryIO | GzipFile, origin_ns: int) -> None:
        self.file = file
        self.origin_ns = origin_ns
        self._uuid = 0
        self._words: dict[tuple[WordKind, str], int] = {}
        self._processes: set[int] = set()
        start = self._packet()
        start.sequence_flags = pb.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        if origin_ns == 0:
            for clock in (pb.BUILTIN_CLOCK_BOOTTIME, pb.BUILTIN_CLOCK_REALTIME):
                start.clock_snapshot.clocks.add(clock_id=clock, timestamp=0)
        self._write(start)

    def group(self, name: str, pid: int | None = None) -> int:
        """A new group of tracks: the process `pid` where one is known, else a plain one; returns its uuid."""
        track = self._track(name)
        track.track_descriptor.child_ordering = pb.TrackDescriptor.EXPLICIT
        if pid is not None and 0 < pid <= _LARGEST_PID and pid not in self._processes:
            self._processes.add(pid)  # a viewer merges processes of one pid, and a pid may come back in another pass
            track.track_descriptor.process.pid = pid
            track.track_descriptor.process.process_name = printable(name)
        return self._write_track(track)

    def track(self, name: str, parent: int) -> int:
        """A new track of slices in a group; returns its uuid."""
        return self._write_track(self._track(name, parent))

    def counter(self, metric: str, parent: int) -> int:
        """A new track of the values of `metric`, whose unit is its suffix; returns its uuid."""
        track = self._track(metric, parent)
        unit = next((unit for suffix, unit in _UNITS.items() if metric.endswith(suffix)), "")
        track.track_descriptor.counter.unit_name = unit
        return self._write_track(track)

    def words(self, kind: WordKind, words: Iterable[str]) -> npt.NDArray[np.uint64]:
        """The ids of `words`; those that are new are defined first."""
        ids = []
        fresh: list[tuple[int, str]] = []
        for word in map(printable, words):
            known = self._words.get((kind, word))
            if known is None:
                known = self._words[kind, word] = len(self._words) + 1
                fresh.append((known, word))
            ids.append(known)
        for at in range(0, len(fresh), _WORDS_AT_ONCE):
            self._define(kind, fresh[at : at + _WORDS_AT_ONCE])
        return np.array(ids, np.uint64)

    def note(self, time_ns: int, texts: Sequence[str]) -> None:
        """Mark what a viewer of the trace should know at `time_ns`."""
        if not texts:
            return
        uuid = self._write_track(self._track("notes"))
        for text in texts:
            packet = self._packet()
            packet.timestamp = time_ns - self.origin_ns
            packet.track_event.type = pb.TrackEvent.TYPE_INSTANT
            packet.track_event.track_uuid = uuid
            packet.track_event.name = text
            self._write(packet)

    def _define(self, kind: WordKind, words: Sequence[tuple[int, str]]) -> None:
        packet = self._packet()
        packet.sequence_flags = pb.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
        field = getattr(packet.interned_data, kind)
        for iid, word in words:
            if kind == "debug_annotation_string_values":
                field.add(iid=iid, str=word.encode())
            else:
                field.add(iid=iid, name=word)
        self._write(packet)

    def _track(self, name: str, parent: int | None = None) -> Any:
        self._uuid += 1
        packet = self._packet()
        descriptor = packet.track_descriptor
        descriptor.uuid = self._uuid
        descriptor.name = printable(name)
        descriptor.sibling_order_rank = self._uuid
        if parent is not None:
            descriptor.parent_uuid = parent
        return packet

    def _write_track(self, packet: Any) -> int:
        self._write(packet)
        uuid: int = packet.track_descriptor.uuid
        return uuid

    def _packet(self) -> Any:
        return pb.TracePacket(trusted_packet_sequence_id=SEQUENCE)

    def _write(self, packet: Any) -> None:
        self.file.write(pb.Trace(packet=[packet]).SerializeToString())


def printable(text: str) -> str:
    """`text` as a trace can hold it: control characters as their pictures, no lone surrogates, not endless."""
    if len(text) > LONGEST_TEXT:
        text = text[: LONGEST_TEXT - 1] + "…"
    return text.translate(_PRINTED).encode("utf-8", "replace").decode("utf-8")
