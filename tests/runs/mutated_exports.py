"""Nsight Systems exports that no profiler would write: SQLite files changed with SQL, folders of Parquet with Arrow."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
from runs.corpus import columns_of, quoted

MARK = "<script>fuzz</script></script><!--"
"""What a page must never hold as it is."""

_INT64 = 1 << 63
_VALUES = (
    None, "", "later", b"\0\xff", 0, -1, 1, 7, 1 << 24, 1 << 31, 1 << 32, 1 << 53, (1 << 62) - 1, 1 << 62, -(1 << 62),
    _INT64 - 1, -_INT64, 0.5, 1e308, float("inf"), -1e-300, "12", "1e400", "\0", "a\0b", "\x1b[31m", "\u202e",
    "é" * 300, MARK, "NaN", "{}", "../../x", "%s%n", "a,b\n\"c\"", "=1+1",
)  # fmt: skip
_TIMES = (1, -1, 1 << 40, -(1 << 40), 1 << 61, 1 << 62, -(1 << 62), _INT64 - 2, -_INT64 + 2)
_VERSIONS = ("99.0.0", "4", "", "3.20.x", "-1.2", "3." * 500, "²", "9" * 5000)
_NOT_UTF8 = "CAST(x'66ff80fe6f' AS TEXT)"
_ENUMS = ("copyKind", "srcKind", "dstKind", "syncType", "eventType", "severity", "source")
_IDS = ("globalTid", "globalPid", "deviceId", "streamId", "correlationId", "graphNodeId", "nameId", "demangledName",
        "textId", "domainId", "typeId", "metricId")  # fmt: skip
_ID_EXPRESSIONS = ("1", "-1", "random()", "rowid", "rowid % 3", "NULL", "-{0}", "{0} << 32", "9223372036854775807")


def mutate_sqlite(file: Path, rng: Random) -> None:
    """Change the export by one to four statements; those that SQLite refuses change nothing."""
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;")
        for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
            try:
                rng.choice(_SQL_CHANGES)(database, rng)
            except (sqlite3.Error, MemoryError):  # what SQLite says to a column dropped from a damaged catalogue
                continue


def _table(database: sqlite3.Connection, rng: Random) -> tuple[str, list[str]]:
    tables = columns_of(database)
    read = [name for name in tables if not name.startswith(("ENUM_", "sqlite_"))]
    chosen = rng.choice(read or [*tables, "StringIds"])
    return chosen, tables.get(chosen) or ["id"]


def _drop(database: sqlite3.Connection, rng: Random) -> None:
    name, columns = _table(database, rng)
    what = rng.choice(("all", "rows", "column", "renamed"))
    column = quoted(rng.choice(columns))
    if what == "all":
        database.execute(f"DROP TABLE {quoted(name)}")
    elif what == "rows":
        database.execute(f"DELETE FROM {quoted(name)} WHERE {rng.choice(('1', 'rowid % 2', 'rowid > 1'))}")
    elif what == "column":
        database.execute(f"ALTER TABLE {quoted(name)} DROP COLUMN {column}")
    else:
        database.execute(f"ALTER TABLE {quoted(name)} RENAME COLUMN {column} TO {quoted(rng.choice(_NAMES))}")


def _values(database: sqlite3.Connection, rng: Random) -> None:
    name, columns = _table(database, rng)
    column, place = quoted(rng.choice(columns)), rng.choice(("1", "rowid % 7 = 0", "rowid = 1", "rowid > 60"))
    if rng.random() < 0.4:
        _loosen(database, name)
    if rng.random() < 0.1:
        database.execute(f"UPDATE {quoted(name)} SET {column} = {_NOT_UTF8} WHERE {place}")
    else:
        database.execute(f"UPDATE {quoted(name)} SET {column} = ? WHERE {place}", (rng.choice(_VALUES),))


def _loosen(database: sqlite3.Connection, name: str) -> None:
    """Take away the columns' types and constraints, so that any value stays as it is given."""
    database.execute(f"ALTER TABLE {quoted(name)} RENAME TO loosened")
    columns = ", ".join(quoted(row[1]) for row in database.execute("PRAGMA table_info(loosened)"))
    database.execute(f"CREATE TABLE {quoted(name)} ({columns})")
    database.execute(f"INSERT INTO {quoted(name)} SELECT * FROM loosened")
    database.execute("DROP TABLE loosened")


def _times(database: sqlite3.Connection, rng: Random) -> None:
    timed = {n: c for n, c in columns_of(database).items() if {"start", "timestamp", "utcEpochNs", "stopTime"} & {*c}}
    name = rng.choice(list(timed))
    shift = rng.choice(_TIMES)
    change = rng.choice(
        (
            'start = "end", "end" = start',
            f'"end" = start - {abs(shift)}',
            'start = (SELECT min(start) FROM {0}), "end" = (SELECT max("end") FROM {0})',
            f'start = start + {shift}, "end" = "end" + {shift}',
            '"end" = NULL',
            '"end" = start',
            'start = random(), "end" = random()',
            "start = -start",
        )
    )
    if "start" not in timed[name]:
        column = next(c for c in ("timestamp", "utcEpochNs", "stopTime") if c in timed[name])
        change = f"{column} = {rng.choice((column + ' + ', '', '-'))}{abs(shift)}"
    place = rng.choice(("1", "rowid % 5 = 0", "rowid = 3"))
    database.execute(f"UPDATE {quoted(name)} SET {change.format(quoted(name))} WHERE {place}")


def _ids(database: sqlite3.Connection, rng: Random) -> None:
    having = {name: [c for c in columns if c in _IDS + _ENUMS] for name, columns in columns_of(database).items()}
    name = rng.choice([name for name, columns in having.items() if columns])
    column = rng.choice(having[name])
    expression = rng.choice(_ID_EXPRESSIONS).format(column)
    place = rng.choice(("1", "rowid % 2", "rowid % 50 = 0"))
    database.execute(f"UPDATE {quoted(name)} SET {column} = {expression} WHERE {place}")


def _cycles(database: sqlite3.Connection, rng: Random) -> None:
    nodes = "CUDA_GRAPH_NODE_EVENTS"
    change = rng.choice(
        (
            "originalGraphNodeId = graphNodeId",
            "originalGraphNodeId = graphNodeId + 1 - 2 * (rowid % 2)",
            f"originalGraphNodeId = (1 << 32) + 1 + rowid % (SELECT count(*) FROM {nodes})",
            "graphNodeId = 1, originalGraphNodeId = 1",
            "graphNodeId = NULL",
        )
    )
    database.execute(f"UPDATE {nodes} SET {change}")


def _rows(database: sqlite3.Connection, rng: Random) -> None:
    name, columns = _table(database, rng)
    table = quoted(name)
    what = rng.choice(("doubled", "rowids", "without rowid", "view", "virtual"))
    if what == "doubled":
        database.execute(f"INSERT INTO {table} SELECT * FROM {table}")
    elif what == "rowids":
        to = rng.choice(
            (
                f"{_INT64 - 1}",
                f"-{_INT64 - 1} - 1",
                "rowid + (1 << 50)",
                "-rowid",
                "rowid * (1 << 40)",
                "rowid * 5000000",
            )
        )
        place = "rowid = (SELECT max(rowid) FROM {0})" if to.strip("-").startswith("9") else "1"
        database.execute(f"UPDATE {table} SET rowid = {to} WHERE {place.format(table)}")
    else:
        database.execute(f"ALTER TABLE {table} RENAME TO kept")
        if what == "view":
            database.execute(f"CREATE VIEW {table} AS SELECT * FROM kept")
        elif what == "virtual":
            database.execute(f"CREATE VIRTUAL TABLE {table} USING fts5({', '.join(map(quoted, columns))})")
        else:
            chosen = ", ".join(map(quoted, columns))
            database.execute(f"CREATE TABLE {table} (key INTEGER PRIMARY KEY, {chosen}) WITHOUT ROWID")
            database.execute(f"INSERT INTO {table} SELECT rowid, * FROM kept")


def _strings(database: sqlite3.Connection, rng: Random) -> None:
    what = rng.choice(("unnamed", "doubled", "one name", "hostile", "huge", "not utf-8"))
    if what == "unnamed":
        database.execute("DELETE FROM StringIds WHERE id % 2")
    elif what == "doubled":
        _loosen(database, "StringIds")
        database.execute("UPDATE StringIds SET id = id / 2")
    elif what == "one name":
        database.execute("UPDATE StringIds SET value = 'run'")
    elif what == "huge":
        size = rng.choice((1 << 16, 1 << 20, 20 << 20)) if rng.random() < 0.2 else 70_000
        place = f"rowid = {rng.randrange(1, 60)}"
        database.execute(f"UPDATE StringIds SET value = hex(zeroblob({size // 2})) WHERE {place}")
    elif what == "hostile":
        texts = [value for value in _VALUES if isinstance(value, str)]
        database.execute("UPDATE StringIds SET value = ? || value", (rng.choice(texts),))
    else:
        database.execute(f"UPDATE StringIds SET value = {_NOT_UTF8} || value")


_NAMES = ('NEW"TABLE', "a\nb", "x" * 3000, MARK, "", "é", "CUPTI_ACTIVITY_KIND_NEXT", "select", "start", "';--")


def _unknown(database: sqlite3.Connection, rng: Random) -> None:
    version = rng.choice(_VERSIONS)
    database.execute("UPDATE META_DATA_EXPORT SET value = ? WHERE name = 'EXPORT_SCHEMA_VERSION'", (version,))
    name = quoted(rng.choice(_NAMES))
    database.execute(f"CREATE TABLE {name} (a INTEGER, {quoted(rng.choice(_NAMES))} TEXT)")
    table, _ = _table(database, rng)
    database.execute(f"ALTER TABLE {quoted(table)} ADD COLUMN {name} DEFAULT 'new'")


def _described(database: sqlite3.Connection, rng: Random) -> None:
    """Change what describes the machine, where each value is looked at by itself."""
    names = [name for name in columns_of(database) if name.startswith(("TARGET_INFO_", "META_", "ANALYSIS_", "PROC"))]
    name = rng.choice(names)
    _loosen(database, name)
    for column in columns_of(database)[name]:
        if rng.random() < 0.3:
            database.execute(f"UPDATE {quoted(name)} SET {quoted(column)} = ?", (rng.choice(_VALUES),))
    if rng.random() < 0.5:
        database.execute(f"INSERT INTO {quoted(name)} SELECT * FROM {quoted(name)}")


def _catalogue(database: sqlite3.Connection, rng: Random) -> None:
    """Damage the schema that SQLite keeps about the tables."""
    database.execute("PRAGMA writable_schema = ON")
    change = rng.choice(
        ("rootpage = 2", "rootpage = 99999", "sql = 'CREATE TABLE x (y'", "sql = NULL", "type = 'view'", "name = 'a'",
         "rootpage = rootpage + 1", "sql = replace(sql, 'INTEGER', 'BLOB')", f"name = {_NOT_UTF8}")
    )  # fmt: skip
    database.execute(f"UPDATE sqlite_master SET {change} WHERE name = ?", (_table(database, rng)[0],))


_SQL_CHANGES: tuple[Callable[[sqlite3.Connection, Random], None], ...] = (
    _drop, _drop, _values, _values, _values, _times, _times, _ids, _ids, _cycles, _rows, _strings, _strings, _unknown,
    _described, _described, _catalogue,
)  # fmt: skip


def mutate_parquet(folder: Path, rng: Random) -> None:
    """Change one or two files of an export in Parquet: their types, columns or rows."""
    for _ in range(rng.choice((1, 1, 2))):
        file = rng.choice([each for each in sorted(folder.glob("*.parquet")) if each.is_file()])
        if rng.random() < 0.2:
            file.unlink()
            if rng.random() < 0.5:
                file.mkdir()
            continue
        table = pq.read_table(file)
        place = rng.randrange(table.num_columns)
        name, values = table.column_names[place], table.column(place)
        changed = rng.choice(_ARROW_CHANGES)(values.combine_chunks(), rng)
        if changed is None:
            table = table.remove_column(place) if rng.random() < 0.5 else table.slice(0, 0)
        else:
            names = [name, name, rng.choice(_NAMES)]
            table = table.set_column(place, rng.choice(names), changed)
        pq.write_table(table, file)


_ARROW_CHANGES: tuple[Callable[[pa.Array, Random], pa.Array | None], ...] = (
    lambda values, rng: None,
    lambda values, rng: pa.nulls(len(values)),
    lambda values, rng: pa.array([str(value) for value in values.to_pylist()]),
    lambda values, rng: pa.array([b"\xff\0"] * len(values)),
    lambda values, rng: pa.array([[1]] * len(values)),
    lambda values, rng: pa.array([{"a": 1}] * len(values)),
    lambda values, rng: pa.array([rng.choice((0.5, float("nan"), 1e308))] * len(values)),
    lambda values, rng: pa.array([rng.random() < 0.5 for _ in range(len(values))]),
    lambda values, rng: pa.array([rng.randrange(1 << 64) for _ in range(len(values))], pa.uint64()),
    lambda values, rng: pa.array([rng.randrange(-128, 128) for _ in range(len(values))], pa.int8()),
    lambda values, rng: pa.array([rng.choice((None, 1, -_INT64, _INT64 - 1)) for _ in range(len(values))], pa.int64()),
    lambda values, rng: pa.array([1] * len(values), pa.timestamp("ns")),
    lambda values, rng: values.cast(pa.string()).dictionary_encode(),
)
