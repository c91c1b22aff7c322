"""Tables read in blocks give the rows that a DataFrame of the table gives, however the file is cut and ordered."""

import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.analysis.blocks import blocks, blocks_by_start, distinct
from workbench.analysis.range_times import range_times
from workbench.analysis.tables import rows_of
from workbench.errors import RunFolderError
from workbench.runs.reader import RunFolder

COLUMNS = ["start_ns", "process", "correlation", "graph_node"]
SIZES = [1, 7, 50, 1 << 16]


@pytest.fixture
def folder(h200, tmp_path):
    """Every fourth row of a recorded run, whose kernels and launches are of two passes."""
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(h200 / "launch_device" / "manifest.json", folder)
    for name in ("kernels", "launches", "ranges"):
        table = pq.read_table(h200 / "launch_device" / f"{name}.parquet")
        pq.write_table(table.take(np.arange(0, len(table), 4)), folder / f"{name}.parquet")
    return folder


def rewrite(folder, name, change, row_group_size=64):
    file = folder / f"{name}.parquet"
    table = change(pq.read_table(file))
    pq.write_table(table, file, row_group_size=row_group_size)


def shuffled(table):
    """Rows out of order, and a few of them starting together."""
    starts = table["start_ns"].to_numpy() // 100_000 * 100_000
    table = table.set_column(table.schema.get_field_index("start_ns"), "start_ns", pa.array(starts))
    return table.take(np.random.default_rng(3).permutation(len(table)))


def together(parts, rows):
    parts = list(parts)
    assert parts
    assert all(1 <= len(part) <= rows for part in parts)
    return pa.concat_tables(parts).to_pandas()


@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("pass_name", ["activity", "nodes"])
def test_blocks_are_the_rows_of_the_pass(folder, pass_name, rows):
    rewrite(folder, "kernels", lambda table: table)
    run = RunFolder(folder)
    expected = rows_of(run, "kernels", pass_name, COLUMNS).reset_index(drop=True)
    assert 0 < len(expected) < len(run.kernels)
    pd.testing.assert_frame_equal(together(blocks(run, "kernels", pass_name, COLUMNS, rows), rows), expected)


@pytest.mark.parametrize("rows", SIZES)
def test_a_table_out_of_order_is_put_in_order(folder, rows):
    rewrite(folder, "kernels", shuffled)
    run = RunFolder(folder)
    expected = rows_of(run, "kernels", "nodes", COLUMNS).sort_values("start_ns", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(together(blocks_by_start(run, "kernels", "nodes", COLUMNS, rows), rows), expected)


@pytest.mark.parametrize("change", [lambda table: table, shuffled])
def test_ranges_hold_the_same_kernels_in_the_file_as_in_memory(folder, change):
    for name in ("kernels", "launches", "ranges"):
        rewrite(folder, name, change)
    run = RunFolder(folder)

    class InMemory:
        table = run.table

    expected = range_times(InMemory(), "activity")
    assert expected["kernels"].sum() == (run.kernels["pass"] == "activity").sum() > 0
    for rows in SIZES[1:]:
        pd.testing.assert_frame_equal(range_times(run, "activity", rows), expected)


def test_a_run_that_shows_other_rows_than_its_files_is_asked_for_them(folder):
    class First(RunFolder):
        def table(self, name, columns=None):
            return super().table(name, columns).head(1)

    (block,) = blocks(First(folder), "launches", "activity", ["start_ns"])
    assert len(block) == 1


@pytest.mark.parametrize("values", [[5], [None], [None, 5], [5, 6], [None, 5, 6]])
def test_distinct_values_leave_out_null(folder, values):
    def with_processes(table):  # the recorded run is of a schema that knew no process
        return table.append_column("process", pa.array((values * len(table))[: len(table)], pa.int64()))

    rewrite(folder, "launches", with_processes)
    assert distinct(RunFolder(folder), "launches", "activity", "process") == set(values) - {None}


def test_a_damaged_file_is_said(folder):
    file = folder / "kernels.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RunFolderError, match=r"kernels\.parquet is damaged"):
        list(blocks(RunFolder(folder), "kernels", "activity", COLUMNS))
