"""Integers decoded from the pages of SQLite files equal what SQLite itself returns, or are left to it."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runs.corpus import columns_of, quoted
from workbench.errors import SourceError
from workbench.runs.nsight import records
from workbench.runs.nsight.pages import LARGEST, SMALLEST, PageFile, UnusualError
from workbench.runs.nsight.records import Bounds, IntegerTable
from workbench.runs.nsight.source import Span, SqliteSource

PAGE_BYTES = (512, 1024, 4096, 65536)
WIDTH_EDGES = [edge for bits in (7, 15, 23, 31, 47, 63) for edge in (-1 - (1 << bits), -(1 << bits), (1 << bits) - 1)]
WIDTH_EDGES.remove(SMALLEST - 1)


def integers(rng: Random) -> list[int | None]:
    """A pool of values for a column: some columns are constant, some have one width, some have all."""
    edges = [*WIDTH_EDGES, *(rng.randrange(SMALLEST, LARGEST) >> rng.randrange(63) for _ in range(8))]
    return rng.choice(([0], [1], [0, 1], [None], [None, 1], [rng.choice(edges)], [0, 200], edges, [None, 0, 1, *edges]))


def row_ids(rng: Random, rows: int) -> list[int]:
    kind = rng.choice(("dense", "gaps", "anywhere"))
    if kind == "dense":
        return list(range(1, rows + 1))
    span = range(-3 * rows, 40 * rows) if kind == "gaps" else range(SMALLEST + 1, LARGEST)
    return sorted({rng.randrange(span.start, span.stop) for _ in range(rows)} | set(rng.choice(([], [LARGEST]))))


def make_table(path: Path, rng: Random, *, unusual: bool) -> list[str]:
    """A database with a table `t`, and its columns of integers; `unusual` adds what is left to SQLite."""
    count = rng.randrange(1, 14)
    pools = {f"c{i}": integers(rng) for i in range(count)}
    kinds = dict.fromkeys(pools, "INTEGER")
    texts = [f"x{i}" for i in range(rng.choice((0, 0, 1, 2)))]
    for name in texts:
        at = rng.randrange(len(kinds) + 1)
        kinds = dict([*list(kinds.items())[:at], (name, "TEXT"), *list(kinds.items())[at:]])
    odd = rng.choice(("real", "text", "overflow", "added")) if unusual else ""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {rng.choice(PAGE_BYTES)}")
        key = rng.choice(("", "", "id INTEGER PRIMARY KEY, "))
        database.execute(f"CREATE TABLE t ({key}{', '.join(f'{n} {k}' for n, k in kinds.items())})")
        rows = []
        ids = row_ids(rng, rng.choice((1, 5, 300, 900)))
        for rowid in ids:
            values = [rng.choice(pools[n]) if n in pools else "é" * rng.randrange(20) for n in kinds]
            rows.append((rowid, *values))
        if odd in ("real", "text", "overflow"):
            which, at = rng.randrange(len(rows)), 1 + rng.randrange(len(kinds))
            value = {"real": 0.5, "text": "word"}.get(odd, "z" * rng.randrange(60, 20_000))
            rows[which] = (*rows[which][:at], value, *rows[which][at + 1 :])
        places = ", ".join("?" * len(rows[0]))
        database.executemany(f"INSERT INTO t (rowid, {', '.join(kinds)}) VALUES ({places})", rows)
        if rng.random() < 0.3 and len(ids) > 1:
            database.execute(f"DELETE FROM t WHERE rowid % {rng.choice((2, 3, 7))} = 0 AND rowid != {ids[0]}")
        if odd == "added":
            database.execute(f"ALTER TABLE t ADD COLUMN c{count} INTEGER {rng.choice(('', 'DEFAULT 7'))}")
            database.execute(f"INSERT INTO t (c{count}) SELECT 5 WHERE {ids[-1] < LARGEST}")
            pools[f"c{count}"] = []
        database.commit()
        if rng.random() < 0.3:
            database.execute("VACUUM")
    return list(pools)


def decoded(path: Path, columns: list[str], bounds: list[Bounds], block_bytes: int) -> list[tuple[int | None, ...]]:
    with closing(sqlite3.connect(path)) as database, patch.object(records, "BLOCK_BYTES", block_bytes):
        table = IntegerTable(path, database, "t")
        if not table.columns.issuperset(columns):
            raise UnusualError
        batches = [batch for _, batch in table.batches(columns, bounds)]
    for batch in batches:
        batch.validate(full=True)
    return [row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]


def selected(path: Path, columns: list[str], bounds: list[Bounds]) -> list[tuple[int | None, ...]]:
    where = " AND ".join(f"{each.column or 'rowid'} BETWEEN {each.first} AND {each.last}" for each in bounds) or "1"
    with closing(sqlite3.connect(path)) as database:
        return database.execute(f"SELECT {', '.join(columns)} FROM t WHERE {where} ORDER BY rowid").fetchall()


def some_bounds(rng: Random, columns: list[str]) -> list[Bounds]:
    """Mostly none, some on the row id, some on a column; a few beyond 64 bits."""
    ends = [*WIDTH_EDGES, 0, 100, 400, -20, 1 << 70, -(1 << 70)]
    names = [None] * rng.choice((0, 1, 1)) + rng.sample(columns, rng.choice((0, 0, 1)))
    return [Bounds(name, *sorted(rng.choices(ends, k=2))) for name in names]


@given(st.integers(0, 1 << 32), st.booleans())
def test_rows_equal_those_of_sqlite(seed, unusual):
    rng = Random(seed)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.sqlite"
        columns = make_table(path, rng, unusual=unusual)
        columns = rng.sample(columns, rng.randrange(1, len(columns) + 1))
        for bounds in ([], some_bounds(rng, columns), some_bounds(rng, columns)):
            block_bytes = rng.choice((512, 8192, 1 << 21))
            try:
                rows = decoded(path, columns, bounds, block_bytes)
            except UnusualError:
                assert unusual
            else:
                assert rows == selected(path, columns, bounds)


def numbers(path: Path, rows: int, page_bytes: int = 512) -> None:
    """A table `t` of two columns and so many rows."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA page_size = {page_bytes}")
        database.execute("CREATE TABLE t (a INTEGER, b INTEGER)")
        database.executemany("INSERT INTO t VALUES (?, ?)", ((i * i * i - 5000, i % 3 or None) for i in range(rows)))
        database.commit()


def test_a_tree_of_four_levels(tmp_path):
    path = tmp_path / "deep.sqlite"
    numbers(path, 200_000)
    with PageFile(path) as file, closing(sqlite3.connect(path)) as database:
        table = IntegerTable(path, database, "t")
        root, = database.execute("SELECT rootpage FROM sqlite_master").fetchone()  # fmt: skip
        assert len(table.leaves) > 50**2 * 2  # an interior page of 512 bytes has fewer children than 60
        assert file.read(table.leaves.numbers[:1]).pages[0, 0] == 13
        assert root not in table.leaves.numbers
    assert decoded(path, ["b", "a"], [], 1 << 16) == selected(path, ["b", "a"], [])
    middle = [Bounds(None, 70_001, 70_100)]
    assert decoded(path, ["a"], middle, 1 << 16) == [((i * i * i) - 5000,) for i in range(70_000, 70_100)]


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE t (a INTEGER, b INTEGER, PRIMARY KEY (a)) WITHOUT ROWID; INSERT INTO t VALUES (1, 2)",
        "CREATE TABLE s (a INTEGER, b INTEGER); INSERT INTO s VALUES (1, 2); CREATE VIEW t AS SELECT * FROM s",
        "CREATE VIRTUAL TABLE t USING fts5(a, b)",
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b INTEGER); INSERT INTO t VALUES (1, 2)",
        "CREATE TABLE t (a REAL, b INTEGER); INSERT INTO t VALUES (1, 2)",
        "CREATE TABLE t (a INTEGER, b INTEGER AS (a + 1)); INSERT INTO t (a) VALUES (1)",
        "CREATE TABLE t (a INTEGER, b INTEGER); CREATE INDEX i ON t (a, b); INSERT INTO t VALUES (1, 2)",
        "CREATE TABLE t (a INTEGER, b INTEGER, RowId INTEGER); INSERT INTO t VALUES (1, 2, 3)",
        "CREATE TABLE t (a INTEGER, b INTEGER)",
        "PRAGMA journal_mode = WAL; CREATE TABLE t (a INTEGER, b INTEGER); INSERT INTO t VALUES (1, 2)",
    ],
)
def test_what_is_no_plain_table_is_left_to_sqlite(tmp_path, script):
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(script)
    with pytest.raises(UnusualError):
        decoded(path, ["a", "b"], [], 1 << 16)


def test_a_catalogue_with_names_exchanged_is_refused(tmp_path):
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE t (a INTEGER); CREATE TABLE u (a INTEGER); INSERT INTO t VALUES (1);"
            "INSERT INTO u VALUES (2);"
            "PRAGMA writable_schema = ON; UPDATE sqlite_master SET name = CASE name WHEN 't' THEN 'u' ELSE 't' END;"
        )
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        decoded(path, ["a"], [], 1 << 16)


@pytest.mark.parametrize("times", [150, pytest.param(900, marks=pytest.mark.slow)])
def test_damaged_files_give_the_rows_of_sqlite_or_none(tmp_path, times):
    rng = Random(3)
    whole, path = [], tmp_path / "damaged.sqlite"
    for seed in range(12):
        made = tmp_path / f"{seed}.sqlite"
        columns = make_table(made, Random(seed), unusual=seed % 4 == 3)
        if made.stat().st_size < 1 << 18:
            whole.append((made.read_bytes(), columns))
    given_rows = 0
    for _ in range(times):
        content, columns = rng.choice(whole)
        damaged = bytearray(content)
        page_bytes = int.from_bytes(content[16:18])
        for _ in range(rng.choice((1, 1, 2, 8))):
            # Headers of pages and the cells' own are few beside the values, and matter most.
            place = rng.choice((rng.randrange(len(damaged)), page_bytes * rng.randrange(1, 9) + rng.randrange(24)))
            damaged[min(place, len(damaged) - 1)] = rng.choice((0, 1, 5, 13, 127, 128, 255, rng.randrange(256)))
        path.write_bytes(damaged if rng.random() < 0.9 else damaged[: rng.randrange(len(damaged))])
        try:
            rows = decoded(path, columns, [], rng.choice((1024, 1 << 21)))
        except (UnusualError, sqlite3.Error, UnicodeDecodeError):
            continue
        assert rows == selected(path, columns, [])
        given_rows += 1
    assert given_rows > times / 9


def test_pages_that_lead_in_a_circle_end(tmp_path):
    path = tmp_path / "a.sqlite"
    numbers(path, 2000)
    with closing(sqlite3.connect(path)) as database:
        root, = database.execute("SELECT rootpage FROM sqlite_master").fetchone()  # fmt: skip
    content = bytearray(path.read_bytes())
    page = memoryview(content)[(root - 1) * 512 : root * 512]
    assert page[0] == 5
    for cell in range(int.from_bytes(page[3:5])):
        at = int.from_bytes(page[12 + 2 * cell : 14 + 2 * cell])
        page[at : at + 4] = root.to_bytes(4)
    path.write_bytes(content)
    with pytest.raises(UnusualError):
        decoded(path, ["a"], [], 1 << 16)


def test_every_integer_of_the_captures(capture):
    decoded_tables = set()
    for name in ("nsight_h200_four_classes", "nsight_h100_two_processes", "nsight_launch_graph_nodes"):
        path = capture(f"{name}.sqlite")
        with closing(sqlite3.connect(path)) as database:
            for table in columns_of(database):
                try:
                    found = IntegerTable(path, database, table)
                    columns = sorted(found.columns)
                    if not columns:
                        continue
                    batches = [batch for _, batch in found.batches(columns, [])]
                except UnusualError:
                    continue
                rows = [row for batch in batches for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)]
                query = f"SELECT {', '.join(map(quoted, columns))} FROM {quoted(table)}"
                assert rows == database.execute(query).fetchall()
                decoded_tables.add(table)
    kinds = ("KERNEL", "MEMCPY", "MEMSET", "RUNTIME", "SYNCHRONIZATION")
    assert decoded_tables >= {f"CUPTI_ACTIVITY_KIND_{kind}" for kind in kinds}


@pytest.mark.parametrize("spans", [[], [Span("rowid", 2000, 12_000)], [Span("a", 0, 1 << 40), Span("b", 1, 2)]])
@pytest.mark.parametrize("change", ["", "UPDATE t SET b = 1.5 WHERE rowid = 9000"])
def test_a_source_gives_every_row_once_where_sqlite_takes_over(tmp_path, spans, change):
    path = tmp_path / "a.sqlite"
    numbers(path, 20_000)
    with closing(sqlite3.connect(path)) as database:
        database.execute(change)
        database.commit()
        where = " AND ".join(f"{each.column} >= {each.start} AND {each.column} < {each.end}" for each in spans) or "1"
        expected = database.execute(f"SELECT a, b FROM t WHERE {where}").fetchall()
    with patch.object(records, "BLOCK_BYTES", 1 << 14):
        batches = list(SqliteSource(path).batches("t", ["a", "b"], spans))
    rows = [row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]
    assert rows == expected
    assert batches[0].schema.names == ["a", "b"]
    assert len(expected) > 3000


def test_threads_read_parts_of_a_large_table_without_sqlite(tmp_path):
    path = tmp_path / "a.sqlite"
    numbers(path, 20_000)
    opened = SqliteSource(path)
    parts = opened.parts("t", 3000)
    with patch.object(SqliteSource, "_rows", side_effect=AssertionError), ThreadPoolExecutor(3) as threads:
        found = list(threads.map(lambda part: list(opened.batches("t", ["a"], [part])), parts))
    assert len(parts) == 7
    values = [value for batches in found for batch in batches for value in batch.column(0).to_pylist()]
    assert values == [i**3 - 5000 for i in range(20_000)]


def test_a_small_table_is_left_to_sqlite(tmp_path):
    path = tmp_path / "a.sqlite"
    numbers(path, 100)
    with patch.object(IntegerTable, "batches", side_effect=AssertionError):
        batch, = SqliteSource(path).batches("t", ["a"])  # fmt: skip
    assert len(batch) == 100


def test_a_file_that_is_cut_meanwhile_is_said(tmp_path):
    path = tmp_path / "a.sqlite"
    numbers(path, 20_000)
    opened = SqliteSource(path)
    reading = opened.batches("t", ["a"], [Span("rowid", 1, 10)])
    next(reading)
    path.write_bytes(path.read_bytes()[: 1 << 16])
    with pytest.raises(SourceError, match="export it again"):
        list(opened.batches("t", ["a"]))
