"""NVTX ranges of an Nsight Systems export: text in the row or registered, domains, payloads, ranges never closed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from workbench.runs.nsight.convert import FARTHEST_NS, Context, integers, process_of, thread_of
from workbench.runs.nsight.names import encoded, pairs, words
from workbench.runs.nsight.source import Source, Span

SOURCE: Final = "NVTX_EVENTS"
# ENUM_NSYS_EVENT_TYPE: NvtxMark, NvtxPushPopRange, NvtxStartEndRange, and the same from text files (Nvtxt…)
KINDS: Final = {34: "mark", 59: "push/pop", 60: "start/end", 65: "mark", 70: "push/pop", 71: "start/end"}
DOMAIN_CREATED: Final = 75
_PAYLOADS: Final = ("int64Value", "uint64Value", "int32Value", "uint32Value", "doubleValue", "floatValue", "jsonText")
_WANTED: Final = ("start", "end", "eventType", "text", "textId", "globalTid", "domainId", *_PAYLOADS)


def domains(source: Source, context: Context) -> dict[tuple[int, int], str]:
    """Name of each NVTX domain by (process, domain id); the domain 0 has none."""
    columns = [c for c in ("eventType", "globalTid", "domainId", "text", "textId") if c in source.tables[SOURCE]]
    if {"eventType", "globalTid", "domainId"} - set(columns):
        return {}
    found: dict[tuple[int, int], str] = {}
    for batch in source.batches(SOURCE, columns, [Span("eventType", DOMAIN_CREATED, DOMAIN_CREATED + 1)]):
        names = _texts(batch, context)
        processes, ids = process_of(batch.column("globalTid")), integers(batch.column("domainId"))
        found |= dict(zip(zip(processes.tolist(), ids.tolist(), strict=True), names.to_pylist(), strict=True))
    return found


def read_ranges(
    source: Source, context: Context, names: Mapping[tuple[int, int], str], spans: Sequence[Span] = ()
) -> Iterator[pa.Table]:
    """Rows of the table `ranges`, without `pass` and `call`, in the order of the file."""
    known = source.tables[SOURCE]
    columns = [column for column in _WANTED if column in known]
    for batch in source.batches(SOURCE, columns, spans):
        kept = _wanted(batch, context)
        if kept.true_count:
            yield _converted(batch.filter(kept), context, names)


def _wanted(batch: pa.RecordBatch, context: Context) -> pa.Array:
    is_range = pc.is_in(batch.column("eventType").cast(pa.int64()), value_set=pa.array(list(KINDS), pa.int64()))
    kept = np.asarray(pc.fill_null(is_range, False).to_numpy(zero_copy_only=False), bool)
    start = integers(batch.column("start"), -FARTHEST_NS)
    end = integers(batch.column("end"), FARTHEST_NS - 1)  # an open range has none
    possible = (np.abs(start) < FARTHEST_NS) & (np.abs(end) < FARTHEST_NS) & (end >= start)
    context.count_impossible("ranges", int((kept & ~possible).sum()))
    if context.process is not None:
        kept &= process_of(batch.column("globalTid")) == context.process
    return pa.array(kept & possible)


def _converted(batch: pa.RecordBatch, context: Context, names: Mapping[tuple[int, int], str]) -> pa.Table:
    start = integers(batch.column("start"))
    is_mark = pc.is_in(batch.column("eventType").cast(pa.int64()), value_set=pa.array([34, 65], pa.int64()))
    mark = is_mark.to_numpy(zero_copy_only=False)
    given = integers(batch.column("end"), FARTHEST_NS)
    missing = given == FARTHEST_NS
    closing = context.end_ns if context.end_ns is not None else int(start.max())
    end = np.where(mark, start, np.where(missing, np.maximum(start, closing), given))
    process = process_of(batch.column("globalTid"))
    return pa.table(
        {
            "process": process,
            "thread": thread_of(batch.column("globalTid")),
            "start_ns": start + context.epoch_ns,
            "end_ns": end + context.epoch_ns,
            "name": _texts(batch, context),
            "domain": _domain_names(batch, process, names),
            "kind": words(batch.column("eventType"), KINDS, "other"),
            "payload": _payload(batch),
            "open": missing & ~mark,
        }
    )


def _texts(batch: pa.RecordBatch, context: Context) -> pa.DictionaryArray:
    """The text in the row, or else the registered string it refers to; a range without either is named `(no name)`."""
    columns = set(batch.schema.names)
    looked_up = context.names.words(batch.column("textId")) if "textId" in columns else None
    if "text" not in columns:
        return looked_up if looked_up is not None else pa.nulls(len(batch), pa.string()).dictionary_encode()
    inline = batch.column("text").cast(pa.string())
    inline = pc.if_else(pc.equal(inline, ""), None, inline)
    if looked_up is not None:
        if inline.null_count == len(inline):
            return looked_up
        inline = pc.coalesce(inline, looked_up.cast(pa.string()))
    return inline.dictionary_encode()


def _domain_names(
    batch: pa.RecordBatch, process: np.ndarray, names: Mapping[tuple[int, int], str]
) -> pa.DictionaryArray:
    """Null in the default domain."""
    if "domainId" not in batch.schema.names:
        return pa.nulls(len(batch), pa.string()).dictionary_encode()
    found, codes = pairs(process, integers(batch.column("domainId")))
    return encoded(pa.array(codes), [names.get(pair, f"domain {pair[1]}" if pair[1] else None) for pair in found])


def _payload(batch: pa.RecordBatch) -> pa.Array:
    """The first payload that the row has, as text; null without one."""
    found = pa.nulls(len(batch), pa.string())
    for column in _PAYLOADS:
        if column in batch.schema.names and found.null_count:
            values = batch.column(column).cast(pa.string())
            found = pc.coalesce(found, pc.if_else(pc.equal(values, ""), None, values))
    return found
