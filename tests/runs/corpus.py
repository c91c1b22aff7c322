"""Real captures cut small, as a place to start damaging from: exports, folders of Parquet, profiles, PyTorch traces."""

from __future__ import annotations

import gzip
import json
import lzma
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SMALL_BYTES = 700_000  # larger exports are cut
PROFILE_EVENTS, KINETO_EVENTS = 600, 400
LARGEST_PACKED_BYTES = 1 << 20
CORRELATIONS = 250  # ids kept of a seed, so that one import takes some tens of milliseconds
OTHER_ROWS = 300  # kept of tables without correlation ids

# Tables that no capture of the repository has, made of rows that it has; the columns are those of schema 3.25.
_MORE_TABLES = """
CREATE TABLE CUDA_GRAPH_NODE_EVENTS (start INTEGER NOT NULL, end INTEGER NOT NULL, eventClass INTEGER NOT NULL,
    globalTid INTEGER, nameId INTEGER NOT NULL, graphNodeId INTEGER NOT NULL, originalGraphNodeId INTEGER);
INSERT INTO CUDA_GRAPH_NODE_EVENTS SELECT start, start, 77, globalTid, nameId, (1 << 32) + n,
    CASE WHEN n % 2 THEN (1 << 32) + n - 1 END
    FROM (SELECT *, row_number() OVER (ORDER BY start) AS n FROM CUPTI_ACTIVITY_KIND_RUNTIME) WHERE n <= 60;
UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET graphNodeId = (1 << 32) + 1 + rowid % 60;
CREATE TABLE CUPTI_ACTIVITY_KIND_GRAPH_TRACE (start INTEGER NOT NULL, end INTEGER NOT NULL, deviceId INTEGER NOT NULL,
    contextId INTEGER NOT NULL, streamId INTEGER NOT NULL, correlationId INTEGER, globalPid INTEGER,
    graphId INTEGER NOT NULL, graphExecId INTEGER NOT NULL);
INSERT INTO CUPTI_ACTIVITY_KIND_GRAPH_TRACE SELECT end, end + 5000, deviceId, contextId, streamId, correlationId,
    globalPid, 1, 2 FROM CUPTI_ACTIVITY_KIND_KERNEL LIMIT 20;
CREATE TABLE OSRT_API (start INTEGER NOT NULL, end INTEGER, eventClass INTEGER NOT NULL, globalTid INTEGER,
    correlationId INTEGER, nameId INTEGER NOT NULL, returnValue INTEGER NOT NULL);
INSERT INTO OSRT_API SELECT start, end, 27, globalTid, correlationId, nameId, 0 FROM CUPTI_ACTIVITY_KIND_RUNTIME;
CREATE TABLE GPU_METRICS (rawTimestamp INTEGER, timestamp INTEGER NOT NULL, typeId INTEGER NOT NULL,
    metricId INTEGER NOT NULL, value INTEGER NOT NULL);
CREATE TABLE TARGET_INFO_GPU_METRICS (typeId INTEGER, sourceId INTEGER, typeName TEXT, metricId INTEGER,
    metricName TEXT);
INSERT INTO TARGET_INFO_GPU_METRICS VALUES (1 << 48, 0, '', 0, 'GPC Clock Frequency [MHz]'),
    (1 << 48, 0, '', 1, 'DRAM Read Bandwidth [Throughput %]'), (1 << 48, 0, '', 2, 'Tensor Active [Throughput %]');
INSERT INTO GPU_METRICS SELECT start, start, 1 << 48, metricId, "end" % 101
    FROM CUPTI_ACTIVITY_KIND_KERNEL, (SELECT 0 AS metricId UNION SELECT 1 UNION SELECT 2);
INSERT INTO DIAGNOSTIC_EVENT VALUES (0, 1, 3, 1, 'Profiling has started.', NULL),
    (9, 1, 1, 3, 'Some events were dropped.', NULL);
"""


def make_corpus(captures: Path, folder: Path) -> None:
    """Small whole captures of each kind. captures: a folder of packed ones."""
    for kind in ("nsight", "parquet", "profile", "kineto", "cupti"):
        (folder / kind).mkdir(parents=True)
    for packed in sorted(captures.glob("*.sqlite.xz")):
        if packed.stat().st_size < LARGEST_PACKED_BYTES:
            export = folder / "nsight" / packed.stem
            export.write_bytes(lzma.decompress(packed.read_bytes()))
            if export.stat().st_size > SMALL_BYTES:
                cut_export(export)
    kept = folder / "nsight" / "nsight_h200_four_classes.sqlite"
    more = Path(shutil.copy(kept, folder / "nsight" / "nsight_more_tables.sqlite"))
    with closing(sqlite3.connect(more)) as database:
        database.executescript(_MORE_TABLES)
    parquet_export(more, folder / "parquet" / more.stem)
    for packed in captures.glob("*_parquet.tar.xz"):
        with tarfile.open(packed) as archive:
            archive.extractall(folder / "parquet", filter="data")
    for packed in sorted(captures.glob("ort_profile_*.json.xz")):
        events = json.loads(lzma.decompress(packed.read_bytes()))
        (folder / "profile" / packed.stem).write_text(json.dumps(events[:PROFILE_EVENTS]))
    for packed in captures.glob("kineto_*.json.gz"):
        trace = json.loads(gzip.decompress(packed.read_bytes()))
        trace["traceEvents"] = trace["traceEvents"][-KINETO_EVENTS:]
        (folder / "kineto" / packed.stem).write_text(json.dumps(trace))
    for packed in captures.glob("cupti_*.json.xz"):
        rows = json.loads(lzma.decompress(packed.read_bytes()))
        (folder / "cupti" / packed.stem).write_text(json.dumps(rows[:KINETO_EVENTS]))


def cut_export(export: Path) -> None:
    """Leave few rows of each table, in place."""
    with closing(sqlite3.connect(export, isolation_level=None)) as database:
        tables = columns_of(database)
        middle, = database.execute(
            "SELECT correlationId FROM CUPTI_ACTIVITY_KIND_KERNEL ORDER BY correlationId"
            " LIMIT 1 OFFSET (SELECT count(*) / 2 FROM CUPTI_ACTIVITY_KIND_KERNEL)"
        ).fetchone()  # fmt: skip
        for name, columns in tables.items():
            outside = (
                f"correlationId NOT BETWEEN {middle - CORRELATIONS} AND {middle + CORRELATIONS}"
                if "correlationId" in columns and name.startswith("CUPTI_")
                else f"rowid > {OTHER_ROWS}"
            )
            if name != "StringIds":
                database.execute(f'DELETE FROM "{name}" WHERE {outside}')
        database.execute("VACUUM")


def parquet_export(export: Path, folder: Path) -> None:
    """The same tables as `nsys export --type=parquetdir` writes them."""
    folder.mkdir()
    with closing(sqlite3.connect(export)) as database:
        for name, columns in columns_of(database).items():
            rows = database.execute(f'SELECT * FROM "{name}"').fetchall()
            if rows and not name.startswith("ENUM_"):
                arrays = [pa.array(values) for values in zip(*rows, strict=True)]
                pq.write_table(pa.table(arrays, names=columns), folder / f"{name}.parquet")


def columns_of(database: sqlite3.Connection) -> dict[str, list[str]]:
    """Columns of each table."""
    names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {name: [row[1] for row in database.execute(f"PRAGMA table_info({quoted(name)})")] for name in names}


def quoted(name: str) -> str:
    """A name of SQL."""
    return '"' + name.replace('"', '""') + '"'
