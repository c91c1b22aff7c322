"""What a synchronisation waits for: the calling function knows it better than the record.

Exports of schema 3.20 label the records of `cudaStreamSynchronize` "stream wait", so the call with the same process and
correlation id decides where it is known.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

SYNC_CALLS: Final = {
    "cudaStreamSynchronize": "stream",
    "cudaDeviceSynchronize": "context",
    "cudaEventSynchronize": "event",
    "cudaStreamWaitEvent": "stream_wait_event",
}
_KEYS: Final = ["process", "correlation"]


def sync_calls(launches: pa.Table) -> pa.Table:
    """Process, correlation id and kind of wait of those launches that synchronise; none where a column is missing."""
    if not {*_KEYS, "name"} <= set(launches.column_names):
        return pa.table({"process": pa.array([], pa.int64()), "correlation": pa.array([], pa.int64()),
                         "caller": pa.array([], pa.string())})  # fmt: skip
    names = launches["name"].combine_chunks().dictionary_encode()
    kinds = pa.array([SYNC_CALLS.get(name) for name in names.dictionary.to_pylist()], pa.string())
    return launches.select(_KEYS).append_column("caller", kinds.take(names.indices)).filter(
        pc.is_valid(kinds).take(names.indices)
    )


def named_by_caller(syncs: pa.Table, launches: pa.Table) -> pa.Table:
    """`syncs` with the kind that the calling function tells; launches: rows of `launches`, or of `sync_calls`."""
    callers = launches if "caller" in launches.column_names else sync_calls(launches)
    if not len(callers) or not {*_KEYS, "kind"} <= set(syncs.column_names):
        return syncs
    known = callers.group_by(_KEYS, use_threads=False).aggregate([("caller", "first")])
    places = syncs.append_column("place", pa.array(range(len(syncs)))).select([*_KEYS, "place"])
    joined = places.join(known, _KEYS).sort_by("place")
    kind = pc.coalesce(joined["caller_first"].cast(pa.string()), syncs["kind"].cast(pa.string()))
    return syncs.set_column(syncs.column_names.index("kind"), "kind", kind.combine_chunks().dictionary_encode())
