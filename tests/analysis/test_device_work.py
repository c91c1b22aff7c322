"""Device work in one table, and what calls spend on it: overlapping calls, blocks, and only the columns needed."""

import numpy as np
import pytest
from given_tables import PASS, Given, call, copy, kernel, launch
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis import call_windows
from workbench.analysis.device_work import call_times, contains, device_work
from workbench.analysis.tables import rows_of
from workbench.api import load

PARTS = ["work_ns", "exposed_copy_ns", "host_ns", "launch_latency_ns", "sync_ns"]


def test_all_work_stands_by_start_time_and_knows_its_row():
    run = Given(
        kernels=[kernel(0, 50, 60, 1), kernel(0, 10, 20, 2, name="first"), kernel(0, 1, 2, 3, **{"pass": "other"})],
        copies=[copy(0, 15, 40, 4, "d2h"), copy(0, 5, 6, 5, "d2d")],
        memsets=[{"call": 0, "start_ns": 30, "end_ns": 31, "bytes": 8}],
    )
    work = device_work(run, PASS)
    assert work["start_ns"].tolist() == [5, 10, 15, 30, 50]
    assert work["table"].tolist() == ["copies", "kernels", "copies", "memsets", "kernels"]
    assert work["row"].tolist() == [1, 1, 0, 0, 0]
    assert work["name"].astype(object).fillna("").tolist() == ["", "first", "", "", "k"]
    assert work["host_copy"].tolist() == [False, False, True, False, False]
    assert work["bytes"].astype(object).where(work["bytes"].notna(), None).tolist() == [64, None, 64, 8, None]


def test_a_pass_without_work_gives_an_empty_table_with_its_columns():
    work = device_work(Given(), PASS)
    assert len(work) == 0
    assert {"table", "row", "name", "kind", "bytes", "host_copy", "process"} <= set(work)
    assert len(call_times(Given(), PASS)) == 0


def test_only_the_columns_needed_are_read():
    run = Given(kernels=[kernel(0, 10, 20, 1)], launches=[launch(5, 6, 1)], latency=[call(0, 0, 30)])
    call_times(run, PASS)
    read = {column for name, columns in run.asked if name == "kernels" for column in columns}
    assert read == {"pass", "process", "call", "start_ns", "end_ns", "correlation"}
    assert [columns for name, columns in run.asked if name == "launches" and columns is None] == []


def test_rows_of_a_pass_that_has_them_all_are_not_copied():
    run = Given(kernels=[kernel(0, 10, 20, 1), kernel(0, 30, 40, 2)])
    assert rows_of(run, "kernels", PASS) is run.table("kernels")
    assert list(rows_of(run, "kernels", PASS, ("end_ns", "call"))) == ["end_ns", "call"]
    assert len(rows_of(run, "kernels", "other", ("end_ns",))) == 0


def test_text_is_looked_up_once_per_word():
    names = Given(launches=[launch(0, 1, 1, name=name) for name in ("cudaStreamSynchronize", None, "cudaMalloc")])
    assert contains(names.table("launches")["name"], "Synchronize").tolist() == [True, False, False]


def test_overlapping_calls_share_their_window():
    # 0..100 and 50..151 overlap: one window of 151 ns with 61 ns of work; 200..300 stands alone with 10
    run = Given(
        latency=[call(0, 0, 100), call(1, 50, 151), call(2, 200, 300)],
        kernels=[kernel(0, 20, 60, 1), kernel(1, 55, 81, 2), kernel(2, 200, 210, 3)],
        launches=[launch(10, 12, 1), launch(40, 42, 2), launch(190, 192, 3)],
    )
    found = call_times(run, PASS)
    assert found["wall_ns"].tolist() == [76, 75, 100]
    assert found["work_ns"].tolist() == [31, 30, 10]
    assert found["host_ns"].tolist() == [45, 45, 90]  # 20 before the first kernel, 70 after the last
    assert found.index.tolist() == [0, 1, 2]


calls = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=6)
pieces = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 70), st.integers(0, 20), st.sampled_from(["k", "h2d", "d2d"])),
    max_size=12,
)


def random_run(spans, work):
    of = [(number % len(spans), start, start + length, kind) for number, start, length, kind in work]
    return Given(
        latency=[call(number, start, start + length) for number, (start, length) in enumerate(sorted(spans))],
        kernels=[kernel(n, a, b, i) for i, (n, a, b, kind) in enumerate(of) if kind == "k"],
        copies=[copy(n, a, b, i, kind) for i, (n, a, b, kind) in enumerate(of) if kind != "k"],
        launches=[launch(max(a - i, 0), a, i) for i, (n, a, b, kind) in enumerate(of)],
    )


@given(calls, pieces)
def test_shared_pieces_sum_to_the_windows_whatever_overlaps(spans, work):
    found = call_times(random_run(spans, work), PASS)
    assert (found[PARTS].sum(axis=1) == found["wall_ns"]).all()
    assert (found >= 0).all(axis=None)
    assert found["wall_ns"].sum() == len({t for start, length in spans for t in range(start, start + length)})


@given(calls, pieces, st.integers(1, 4))
def test_blocks_of_any_size_give_the_same(spans, work, rows):
    run = random_run(spans, work)
    whole = call_times(run, PASS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(call_windows, "_BLOCK_ROWS", rows)
        assert call_times(run, PASS).equals(whole)


def test_rows_out_of_order_count_the_same(h200):
    run = load(h200 / "launch_numpy")
    order = np.random.default_rng(0).permutation(len(run.table("kernels")))

    class Shuffled:
        def table(self, name, columns=None):
            table = run.table(name, columns)
            return table.iloc[order] if name == "kernels" else table

    assert call_times(Shuffled(), PASS).equals(call_times(run, PASS))
