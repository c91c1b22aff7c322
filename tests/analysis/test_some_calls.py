"""Part of a run gives the same as the whole, call by call."""

import shutil
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.analysis import device_work
from workbench.analysis.device_work import call_times
from workbench.analysis.some_calls import SomeCalls, call_blocks, spread_stretches, work_per_call
from workbench.analysis.tables import measured_calls
from workbench.diagnosis import diagnosis as diagnosing
from workbench.runs.reader import RunFolder
from workbench.runs.writer import open_table, to_table

# blocks of one call, and of several
BLOCKS = [
    ("launch_device", 1), ("compute_numpy", 1), ("launch_device_graph", 1),
    ("launch_device", 1500), ("resnet50_b1_numpy", 1500), ("launch_device_graph", 100),
]  # fmt: skip


class InMemory:
    """The tables of a run without its files."""

    def __init__(self, run):
        self.run = run

    def table(self, name, columns=None):
        return self.run.table(name, columns)


@pytest.mark.parametrize(("name", "most"), BLOCKS)
def test_calls_in_blocks_are_the_calls_of_the_whole(h200, tmp_path, monkeypatch, name, most):
    shutil.copytree(h200 / name, tmp_path / "run")  # what is worked out is kept with the run
    run = RunFolder(tmp_path / "run")
    whole = call_times(run, "activity")
    monkeypatch.setattr(device_work, "_MOST_WORK", most)
    pd.testing.assert_frame_equal(call_times(InMemory(run), "activity"), whole)
    pd.testing.assert_frame_equal(call_times(run, "activity"), whole)
    kept = list((run.folder / "derived").glob("calls-activity-*.parquet"))
    assert len(kept) == 1 or most > 1
    pd.testing.assert_frame_equal(call_times(RunFolder(run.folder), "activity"), whole)
    for file in kept:
        file.write_bytes(b"damaged")
    pd.testing.assert_frame_equal(call_times(RunFolder(run.folder), "activity"), whole)


def test_calls_of_several_threads_stay_together_in_a_block(capture, tmp_path, monkeypatch):
    names = ("nsight_launch_threads.sqlite", "ort_profile_launch_threads_0.json")
    run = wb.import_run([capture(name) for name in names], out=tmp_path / "run", range="measure")
    whole = call_times(run, "nodes")
    monkeypatch.setattr(device_work, "_MOST_WORK", 1)
    pd.testing.assert_frame_equal(call_times(run, "nodes"), whole)


@pytest.mark.parametrize("group_rows", [1, 7, 1000])
def test_only_the_rows_of_some_calls_are_read(h200, tmp_path, group_rows):
    source = h200 / "launch_device"
    for name in ("kernels", "launches"):
        with open_table(tmp_path, name) as writer:
            stored = pq.read_table(source / f"{name}.parquet")
            some = to_table(name, stored.take(np.arange(0, len(stored), 10)))
            writer.write_table(some, row_group_size=group_rows)
    (tmp_path / "manifest.json").write_bytes((source / "manifest.json").read_bytes())
    run = RunFolder(tmp_path)
    everything = RunFolder(tmp_path).table("kernels")
    stretches = [(4, 6), (8, 9)]
    found = run.call_rows("kernels", ["start_ns", "name"], stretches)
    wanted = everything[everything["call"].isin([4, 5, 8])]
    assert found.index.tolist() == wanted.index.tolist()
    assert (found["start_ns"] == wanted["start_ns"]).all()
    assert (found["name"].astype(str) == wanted["name"].astype(str)).all()
    seen = SomeCalls(run, stretches).table("launches", ["call"])["call"]
    assert {3, 4, 5, 7, 8} <= set(seen) <= {-1, 3, 4, 5, 7, 8}


def test_nodes_of_a_sample_are_those_of_its_calls(h200, monkeypatch):
    run = RunFolder(h200 / "launch_device")
    whole = diagnosing.diagnose(run)
    monkeypatch.setattr(diagnosing, "MOST_WORK", 300)
    monkeypatch.setattr(diagnosing, "STRETCHES", 2)
    sample = diagnosing.diagnose(run)
    assert sample.nodes.calls == 2 < whole.nodes.calls
    first = measured_calls(run, "nodes")["call"].iloc[0]
    assert first in set(sample.nodes.device["call"])
    assert sample.attributed == 1
    assert sample.verdict == whole.verdict
    assert sample.traced == whole.traced
    assert any("2 of the 3 calls" in note for note in sample.notes)
    assert not any("stretches spread over" in note for note in whole.notes)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40), st.integers(1, 20))
def test_blocks_hold_every_call_once_and_cut_only_where_they_may(calls, most):
    work = np.array([each for each, _ in calls], np.int64)
    may_cut = np.array([index == 0 or cut for index, (_, cut) in enumerate(calls)], bool)
    blocks = call_blocks(work, may_cut, most)
    assert [call for low, high in blocks for call in range(low, high)] == list(range(len(calls)))
    assert all(may_cut[low] for low, _ in blocks)
    for low, high in blocks:  # a block is too large only where nothing inside it may be cut
        inside = np.flatnonzero(may_cut[low + 1 : high])
        if work[low:high].sum() > 2 * most + 9:
            assert not len(inside) or work[low : low + 1 + inside[0]].sum() > most or work.max(initial=0) > most


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.integers(1, 500), st.integers(1, 5))
def test_stretches_are_spread_and_not_much_larger_than_asked(work, most, parts):
    calls = np.arange(len(work), dtype=np.int64) + 3
    stretches = spread_stretches(calls, np.array(work, np.int64), most, parts)
    assert stretches[0][0] == 3
    assert all(a[1] <= b[0] for a, b in pairwise(stretches))
    taken = sum(sum(work[low - 3 : high - 3]) for low, high in stretches)
    assert taken <= most + len(stretches) * max(work)


def test_work_is_counted_per_call(h200):
    run = RunFolder(h200 / "launch_device")
    calls = measured_calls(run, "activity")["call"].to_numpy(np.int64)
    counted = sum(run.table(name)["call"].isin([int(calls[0])]).sum() for name in ("kernels", "copies", "memsets"))
    assert work_per_call(run, calls)[0] == counted
