"""Nsight Systems exports from real GPUs: one process on an H200, and two on H100s whose correlation ids collide.

The expected numbers were counted with SQL in the exports themselves.
"""

import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest

from workbench.errors import SourceError
from workbench.runs.calls import assign_calls
from workbench.runs.nsight import read_nsight
from workbench.runs.nsight.names import plain_api_name

ONE, TWO = "nsight_h200_four_classes.sqlite", "nsight_h100_two_processes.sqlite"
EPOCH_NS = {ONE: 1_795_262_550_494_948_474, TWO: 1_779_630_014_975_716_426}
COUNTS = {
    (ONE, 654): {"kernels": 4121, "copies": 113, "memsets": 133, "syncs": 114, "launches": 11770},
    (TWO, 111): {"kernels": 1721, "copies": 452, "memsets": 11, "syncs": 122, "launches": 2898},
    (TWO, 112): {"kernels": 1721, "copies": 452, "memsets": 11, "syncs": 122, "launches": 2898},
}


@pytest.fixture(scope="module")
def read(capture):
    kept = {}

    def tables(name, process):
        if (name, process) not in kept:
            found = read_nsight(capture(name), process)
            kept[name, process] = {table: rows.to_pandas() for table, rows in found.items()}
        return kept[name, process]

    return tables


@pytest.mark.parametrize(("name", "process"), COUNTS)
def test_each_process_gets_its_own_rows(read, name, process):
    assert {table: len(rows) for table, rows in read(name, process).items()} == COUNTS[name, process]


# the two processes were caught in the middle: 905 kernels of each were launched before the capture began
@pytest.mark.parametrize(("name", "process", "paired"), [(ONE, 654, 4121), (TWO, 111, 816), (TWO, 112, 816)])
def test_every_kernel_starts_after_the_call_that_launched_it(read, name, process, paired):
    tables = read(name, process)
    pairs = tables["kernels"].merge(tables["launches"], on="correlation", suffixes=("", "_launch"))
    assert len(pairs) == paired
    assert (pairs["start_ns"] > pairs["start_ns_launch"]).all()


def test_correlation_alone_would_pair_kernels_with_calls_of_the_other_process(read):
    both = [read(TWO, process) for process in (111, 112)]
    kernels, launches = (pd.concat(tables[name] for tables in both) for name in ("kernels", "launches"))
    assert len(kernels.merge(launches, on="correlation")) == 2 * 816 + 11


@pytest.mark.parametrize(("name", "process"), COUNTS)
def test_times_are_on_the_epoch(read, name, process):
    for rows in read(name, process).values():
        assert (rows["end_ns"] >= rows["start_ns"]).all()
        assert rows["start_ns"].between(EPOCH_NS[name], EPOCH_NS[name] + 200 * 10**9).all()
        assert rows["start_ns"].is_monotonic_increasing


def test_copies_know_their_direction_and_memory(read):
    copies = read(ONE, 654)["copies"]
    kinds = copies.groupby(["kind", "source", "target"])["bytes"].agg(["size", "sum"])
    assert kinds.loc[("h2d", "pageable", "device")].tolist() == [61, 7_683_984_640]
    assert kinds.loc[("d2h", "device", "pageable")].tolist() == [52, 3_925_871_924]
    assert len(kinds) == 2
    pinned = read(TWO, 111)["copies"].query("kind == 'h2d'")["source"].value_counts()
    assert pinned["pinned"] == 223


def test_names_are_plain(read):
    tables = read(ONE, 654)
    names = set(tables["launches"]["name"])
    assert "cudaLaunchKernel" in names
    assert not [name for name in names if name.startswith("cuda") and "_v" in name]
    assert not tables["kernels"]["name"].str.isdecimal().any()


def test_synchronisations_are_named_by_their_caller(read):
    tables = read(ONE, 654)
    launches = tables["launches"].drop_duplicates("correlation").set_index("correlation")["name"]
    called = tables["syncs"].assign(caller=launches.reindex(tables["syncs"]["correlation"]).to_numpy())
    streams = called[called["caller"] == "cudaStreamSynchronize"]
    assert len(streams) > 0
    assert set(streams["kind"]) == {"stream"}


def test_kernels_fall_into_the_calls_that_the_program_marked(read, capture):
    with closing(sqlite3.connect(capture(ONE))) as database:
        marks = database.execute(
            "SELECT start, end FROM NVTX_EVENTS LEFT JOIN StringIds ON id = textId"
            " WHERE COALESCE(text, value) = 'run' ORDER BY start"
        ).fetchall()
    starts, ends = (np.array(marks, np.int64) + EPOCH_NS[ONE]).T
    tables = read(ONE, 654)
    launched = tables["launches"].set_index("correlation")["start_ns"].reindex(tables["kernels"]["correlation"])
    calls = assign_calls(launched.to_numpy(), starts, ends)
    counts = np.bincount(calls[calls >= 0], minlength=40).reshape(4, 10)
    assert (counts == counts[:, :1]).all()  # each model launches the same kernels in each of its ten calls
    # 8 products, 8 unary operators, a reduction, and a chain of 300 nodes
    assert counts[:, 0].tolist() == [8, 8, 1, 300]


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("cudaLaunchKernel_v7000", "cudaLaunchKernel"),
        ("cudaLaunchKernel_ptsz_v7000", "cudaLaunchKernel"),
        ("cudaMemcpyAsync", "cudaMemcpyAsync"),
        ("cuLaunchKernelEx", "cuLaunchKernelEx"),
        ("cuMemFree_v2", "cuMemFree_v2"),
    ],
)
def test_an_api_name_loses_its_version_suffix(given, plain):
    assert plain_api_name(given) == plain


def refusal_of(path):
    with pytest.raises(SourceError, match="export it again") as refusal:
        read_nsight(path, 654)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_a_damaged_export_is_one_sentence(capture, tmp_path):
    file = tmp_path / "damaged.sqlite"
    data = capture(ONE).read_bytes()
    file.write_bytes(b"no database" * 1000)
    refusal_of(file)
    file.write_bytes(data[:100_000])
    refusal_of(file)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE TARGET_INFO_SESSION_START_TIME",
        "DELETE FROM TARGET_INFO_SESSION_START_TIME",
        'ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL RENAME COLUMN "start" TO begun',
        "UPDATE CUPTI_ACTIVITY_KIND_KERNEL SET \"end\" = 'later'",
    ],
)
def test_an_export_without_what_is_needed_is_one_sentence(capture, tmp_path, change):
    file = tmp_path / "changed.sqlite"
    shutil.copy(capture(ONE), file)
    with closing(sqlite3.connect(file)) as database:
        database.execute(change)
        database.commit()
    refusal_of(file)


def test_a_missing_export_is_one_sentence_and_makes_no_file(tmp_path):
    refusal_of(tmp_path / "none.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_columns_and_tables_of_another_version_may_be_missing(capture, tmp_path):
    file = tmp_path / "older.sqlite"
    shutil.copy(capture(ONE), file)
    with closing(sqlite3.connect(file)) as database:
        database.execute("ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN graphNodeId")
        database.execute("DROP TABLE CUPTI_ACTIVITY_KIND_MEMSET")
        database.commit()
    tables = read_nsight(file, 654)
    assert "memsets" not in tables
    assert "graph_node" not in tables["kernels"].column_names
    assert len(tables["kernels"]) == 4121
