"""One Nsight Systems export: what it holds, whose clock it keeps, and its tables as streams of rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from workbench.errors import SourceError
from workbench.runs.manifest import DeviceInfo
from workbench.runs.nsight import metrics, ranges
from workbench.runs.nsight.convert import FARTHEST_NS, SHAPES, Context, chosen_columns, convert, integers, process_of
from workbench.runs.nsight.names import Names, one_line, pairs
from workbench.runs.nsight.source import LONGEST_REASON, Source, Span, open_source

NEWEST_SCHEMA: Final = (3, 25)
"""The newest schema version seen; a newer one is read as far as its tables and columns are known."""

_VERSION: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}")
_START_TIME: Final = "TARGET_INFO_SESSION_START_TIME"
_LONGEST_NAME: Final = 80  # characters of a table or a GPU; real ones stay below 50
_SMALL_ROWS: Final = 10_000  # of a table that describes the capture
# Tables that say nothing about the run, or are read under another name; the others are named when they are skipped.
_DESCRIBING: Final = ("ENUM_", "TARGET_INFO_", "META_DATA_", "ANALYSIS_", "NVTX_PAYLOAD_", "GENERIC_EVENT_", "sqlite_")
_KNOWN: Final = frozenset(
    ("StringIds", "PROCESSES", "ThreadNames", "ProcessStreams", "PROFILER_OVERHEAD", "CUPTI_ACTIVITY_KIND_OVERHEAD",
     "CUDA_GRAPH_EVENTS", "OSRT_CALLCHAINS", "CUDA_CALLCHAINS", "SAMPLING_CALLCHAINS")
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What to read of one table: `name` in the run, and the part of the source's rows."""

    name: str
    spans: tuple[Span, ...] = ()

    @property
    def is_part(self) -> bool:
        """Whether it is a part of the table of bounded length."""
        return any(span.column == "rowid" for span in self.spans)


class NsightFile:
    """An export that was opened: raises `SourceError` when it is none."""

    def __init__(self, path: Path, *, process: int | None = None, device: int | None = None) -> None:
        self.source: Source = open_source(path)
        self.name = self.source.name
        self._tables = self.source.tables
        if not any(name.startswith(("CUPTI_ACTIVITY_", "TARGET_INFO_", "NVTX_EVENTS")) for name in self._tables):
            raise SourceError(f"{self.name} is no Nsight Systems export: it has none of the tables that one has.")
        self.context = Context(self._epoch_ns or 0, self._names(), process, device)
        self._shapes = {
            name: (shape, columns)
            for name, shape in SHAPES.items()
            if shape.source in self._tables and (columns := chosen_columns(shape, self._tables[shape.source]))
        }

    @property
    def has_epoch(self) -> bool:
        """Whether the export says when its clock began; else times count from 0."""
        return self._epoch_ns is not None

    @property
    def end_ns(self) -> int | None:
        """When the capture ended, on its own clock; None when the export does not say."""
        rows = self._rows("ANALYSIS_DETAILS", "stopTime")
        found = rows[0]["stopTime"] if rows else None
        return found if isinstance(found, int) and 0 < found < FARTHEST_NS else None

    @cached_property
    def schema_version(self) -> tuple[int, ...] | None:
        """(major, minor, micro), or None when the export does not say."""
        for row in self._rows("META_DATA_EXPORT", "name", "value"):
            if row["name"] == "EXPORT_SCHEMA_VERSION":
                said = str(row["value"])
                return tuple(map(int, said.split("."))) if _VERSION.fullmatch(said) else None
        return None

    @cached_property
    def skipped(self) -> list[str]:
        """Tables and columns that are there and could not be read, a sentence each."""
        said = []
        version = self.schema_version
        if version is not None and version[:2] > NEWEST_SCHEMA:
            newest = ".".join(map(str, NEWEST_SCHEMA))
            said.append(f"Its schema {'.'.join(map(str, version))} is newer than any known ({newest}).")
        sources = {shape.source for shape in SHAPES.values()} | {ranges.SOURCE, metrics.SOURCE}
        unknown = [n for n in self._tables if n not in sources | _KNOWN and not n.startswith(_DESCRIBING)]
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            shown = ", ".join(one_line(each, _LONGEST_NAME) for each in sorted(unknown)[:5])
            said.append(f"Tables that are not read: {shown}{more}.")
        return said + self.unreadable

    @property
    def unreadable(self) -> list[str]:
        """Tables that lack a column without which their rows mean nothing, a sentence each."""
        said = []
        for name, (shape, columns) in self._shapes.items():
            missing = [shape.rules[column][0][0] for column in sorted(_needed(name) - set(columns))]
            if missing:
                said.append(f"Table {shape.source} lacks the column {', '.join(missing)}: its rows are left out.")
        return said

    def readings(self, name: str, window: tuple[int, int] | None, part_rows: int) -> list[Reading]:
        """How to read a table of the run: in parts that may go side by side, or in one; empty when it is not there.

        window: (start, end) on the Unix epoch; rows that begin inside it are read.
        """
        table, time = self._table_of(name)
        if table is None or (window is not None and time not in self._tables[table]):  # who knows where they lie
            return []
        spans = (self._span(time, window),) if window is not None else ()
        parts = self.source.parts(table, part_rows) if name != "counters" else []  # whose windows go from row to row
        return [Reading(name, (*spans, part)) for part in parts] or [Reading(name, spans)]

    def read(self, reading: Reading) -> Iterator[pa.Table]:
        """Rows in the run's columns and units, without `pass` and `call`; raises `SourceError` on damage."""
        name = reading.name
        with self._understood(self._table_of(name)[0]):
            if name == "ranges":
                yield from ranges.read_ranges(self.source, self.context, self._domains, reading.spans)
            elif name == "counters":
                yield from metrics.read_metrics(self.source, self.context, self._metrics, reading.spans)
            else:
                shape, columns = self._shapes[name]
                wanted = list(dict.fromkeys(columns.values()))
                for batch in self.source.batches(shape.source, wanted, reading.spans):
                    table = convert(name, batch, columns, self.context)
                    if len(table):
                        yield table

    def busiest(self) -> dict[tuple[int, int], int]:
        """Kernel nanoseconds by (process, device), of every process that launched one."""
        rows = self._rows("TARGET_INFO_CUDA_CONTEXT_INFO", "processId", "deviceId")
        contexts = {(r["processId"], r["deviceId"]) for r in rows if all(type(id_) is int for id_ in r.values())}
        if len(contexts) == 1:  # nothing to compare
            return dict.fromkeys(contexts, 0)
        columns = ["globalPid", "deviceId", "start", "end"]
        table = SHAPES["kernels"].source
        if not set(columns) <= self._tables.get(table, frozenset()):
            return dict.fromkeys(contexts, 0)
        found: dict[tuple[int, int], int] = {}
        with self._understood(table):
            for batch in self.source.batches(table, columns):
                owners, codes = pairs(process_of(batch.column(0)), integers(batch.column(1), -1))
                length = np.clip(integers(batch.column(3)) - integers(batch.column(2)), 0, None)
                for owner, sum_ns in zip(owners, np.bincount(codes, length, len(owners)).tolist(), strict=True):
                    found[owner] = found.get(owner, 0) + int(sum_ns)
        return found

    def device_info(self, process: int | None, device: int | None) -> DeviceInfo:
        """The GPU behind a process's device number, as far as the export describes it."""
        gpus = self._rows("TARGET_INFO_GPU", "id", "name", "smCount", "totalMemory", "computeMajor", "computeMinor",
                          "clockRate")  # fmt: skip
        links = self._rows("TARGET_INFO_CUDA_DEVICE", "gpuId", "cudaId", "pid")
        chosen = next((r["gpuId"] for r in links if r["cudaId"] == device and r["pid"] in (process, None)), device)
        gpu = next((row for row in gpus if row.get("id") == chosen), gpus[0] if len(gpus) == 1 else {})
        numbers = {name: value for name, value in gpu.items() if type(value) is int and 0 <= value < FARTHEST_NS}
        major, minor = numbers.get("computeMajor"), numbers.get("computeMinor")
        clock_hz = numbers.get("clockRate")
        return DeviceInfo(
            kind="cuda",
            name=one_line(str(gpu.get("name") or ""), _LONGEST_NAME) or "a GPU that the export does not name",
            compute_capability=f"{major}.{minor}" if major is not None and minor is not None else None,
            sm_count=numbers.get("smCount"),
            memory_bytes=numbers.get("totalMemory"),
            max_sm_clock_mhz=round(clock_hz / 1e6) if clock_hz else None,
        )

    def has(self, name: str) -> bool:
        """Whether the export has rows' worth of columns for the run's table `name`."""
        return self._table_of(name)[0] is not None

    def _table_of(self, name: str) -> tuple[str | None, str]:
        if name == "ranges":
            needed = {"start", "end", "eventType", "globalTid"}
            return (ranges.SOURCE if needed <= self._tables.get(ranges.SOURCE, frozenset()) else None), "start"
        if name == "counters":
            needed = {"timestamp", "typeId", "metricId", "value"}
            return (metrics.SOURCE if needed <= self._tables.get(metrics.SOURCE, frozenset()) else None), "timestamp"
        if name not in self._shapes or not self._readable(name):
            return None, ""
        shape = self._shapes[name][0]
        return shape.source, shape.time

    def _readable(self, name: str) -> bool:
        columns = set(self._shapes[name][1])
        return _needed(name) <= columns

    def _span(self, column: str, window: tuple[int, int]) -> Span:
        return Span(column, window[0] - self.context.epoch_ns, window[1] - self.context.epoch_ns)

    @cached_property
    def _epoch_ns(self) -> int | None:
        rows = self._rows(_START_TIME, "utcEpochNs")
        found = rows[0]["utcEpochNs"] if rows else None
        return found if isinstance(found, int) and 0 < found < FARTHEST_NS else None

    @cached_property
    def _domains(self) -> dict[tuple[int, int], str]:
        return ranges.domains(self.source, self.context)

    @cached_property
    def _metrics(self) -> dict[tuple[int, int], str]:
        return metrics.metric_names(self.source)

    def _names(self) -> Names:
        if not {"id", "value"} <= self._tables.get("StringIds", frozenset()):
            return Names(np.empty(0, np.int64), [])
        with self._understood("StringIds"):
            batches = list(self.source.batches("StringIds", ["id", "value"]))
            ids = [integers(batch.column(0), -1) for batch in batches]
            values = [text for batch in batches for text in batch.column(1).cast(pa.string()).fill_null("").to_pylist()]
        return Names(np.concatenate(ids) if ids else np.empty(0, np.int64), values)

    @contextmanager
    def _understood(self, table: str | None) -> Iterator[None]:
        """Values that are not of the kind that a column holds become a `SourceError`."""
        try:
            yield
        except (pa.ArrowException, OverflowError) as error:
            said = one_line(str(error), LONGEST_REASON)
            raise SourceError(
                f"Table {table} of {self.name} holds what it should not ({said}): export it again."
            ) from None

    def _rows(self, table: str, *columns: str) -> list[dict[str, Any]]:
        """The first rows of a describing table, with None for columns that it lacks."""
        known = [column for column in columns if column in self._tables.get(table, frozenset())]
        if not known:
            return []
        found: list[dict[str, Any]] = []
        for batch in self.source.batches(table, known):
            found += batch.to_pylist()
            if len(found) >= _SMALL_ROWS:
                break
        return [dict.fromkeys(columns) | row for row in found[:_SMALL_ROWS]]


def _needed(name: str) -> set[str]:
    """Columns of the run without which a table's rows mean nothing."""
    return {"start_ns", "end_ns"} & set(SHAPES[name].rules) or ({"graph_node"} & set(SHAPES[name].rules))


def schema_text(version: Sequence[int] | None) -> str:
    """`3.20.3`, or `unknown`."""
    return ".".join(map(str, version)) if version else "unknown"
