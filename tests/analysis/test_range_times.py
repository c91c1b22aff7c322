"""NVTX ranges and the kernels launched in them, against a search through all ranges."""

from given_tables import PASS, Given, kernel, launch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.analysis.range_times import NO_NAME, range_times, ranged_fraction


def opened(name, start, end, thread=1, **more):
    return {"name": name, "start_ns": start, "end_ns": end, "thread": thread, "kind": "push/pop", **more}


def rows(run):
    found = range_times(run, PASS)
    columns = found[["name", "count", "wall_ns", "kernels", "device_ns"]].astype(object).where(found.notna(), None)
    return [tuple(row) for row in columns.itertuples(index=False)]


def test_kernels_belong_to_the_innermost_range():
    run = Given(
        ranges=[opened("call", 0, 100), opened("layer", 10, 40), opened("layer", 50, 60), opened("idle", 90, 95)],
        launches=[launch(12, 14, 1), launch(44, 46, 2), launch(52, 54, 3), launch(200, 210, 4),
                  launch(15, 17, 5, thread=2)],
        kernels=[kernel(0, 20, 30, 1), kernel(0, 48, 55, 2), kernel(0, 54, 75, 3), kernel(0, 300, 307, 4),
                 kernel(0, 310, 311, 5)],
    )  # fmt: skip
    # the third kernel begins while the second runs: its own time begins at 55
    assert rows(run) == [
        ("layer", 2, 40, 2, 30),
        ("call", 1, 100, 1, 7),
        ("idle", 1, 5, 0, 0),
        (None, 0, 0, 2, 8),
    ]
    assert ranged_fraction(range_times(run, PASS)) == 3 / 5


def test_threads_of_two_processes_with_one_number_are_two():
    run = Given(
        ranges=[opened("a", 0, 100, process=1), opened("b", 0, 100, process=2)],
        launches=[launch(10, 12, 1, process=2), launch(10, 12, 1, process=1)],
        kernels=[kernel(0, 20, 30, 1, process=1), kernel(0, 40, 45, 1, process=2)],
    )
    assert rows(run) == [("a", 1, 100, 1, 10), ("b", 1, 100, 1, 5)]


def test_ranges_without_text_have_a_row_and_no_range_is_no_error():
    run = Given(ranges=[opened(None, 0, 100)], launches=[launch(1, 2, 1)], kernels=[kernel(0, 20, 30, 1)])
    assert rows(run) == [(NO_NAME, 1, 100, 1, 10)]
    assert rows(Given(launches=[launch(1, 2, 1)], kernels=[kernel(0, 20, 30, 1)])) == [(None, 0, 0, 1, 10)]
    assert rows(Given()) == []
    assert ranged_fraction(range_times(Given(), PASS)) is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.integers(0, 30), st.integers(1, 2)), max_size=8),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 2)), max_size=8),
)
def test_any_ranges(spans, calls):
    run = Given(
        ranges=[opened(name, start, start + length, thread) for name, start, length, thread in spans],
        launches=[launch(at, at, i, thread=thread) for i, (at, thread) in enumerate(calls)],
        kernels=[kernel(0, 1000 * (i + 1), 1000 * (i + 1) + i + 1, i) for i in range(len(calls))],
    )
    expected = {name: [0, 0, 0, 0] for name, *_ in spans}
    for name, _, length, _ in spans:
        expected[name][0] += 1
        expected[name][1] += length
    for i, (at, thread) in enumerate(calls):
        inside = [
            (start, -length - start, row, name)
            for row, (name, start, length, on) in enumerate(spans)
            if on == thread and start <= at < start + length
        ]
        owner = expected.setdefault(max(inside)[3] if inside else None, [0, 0, 0, 0])
        owner[2] += 1
        owner[3] += i + 1
    assert {name: list(values) for name, *values in rows(run)} == expected
