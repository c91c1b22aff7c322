"""NVTX ranges and the kernels launched in them, against a search through all ranges."""

from collections import defaultdict

from given_tables import PASS, Given, kernel, launch
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.blocks import BLOCK_ROWS
from workbench.analysis.range_times import NO_NAME, range_times, ranged_fraction


def opened(name, start, end, thread=1, **more):
    return {"name": name, "start_ns": start, "end_ns": end, "thread": thread, "kind": "push/pop", **more}


def rows(run, block_rows=BLOCK_ROWS):
    found = range_times(run, PASS, block_rows)
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


def test_kernels_of_two_devices_run_at_the_same_time():
    run = Given(
        ranges=[opened("a", 0, 100)],
        launches=[launch(1, 2, 1), launch(3, 4, 2), launch(5, 6, 3)],
        kernels=[kernel(0, 10, 30, 1, device=0), kernel(0, 15, 35, 2, device=1), kernel(0, 20, 40, 3, device=0)],
    )
    assert rows(run) == [("a", 1, 100, 3, 20 + 20 + 10)]


def expected_rows(ranges, launches, kernels):
    """What `range_times` must say of dicts in stored order, worked out moment by moment and pair by pair."""
    table = {}
    for each in ranges:
        entry = table.setdefault(each["name"], [0, 0, 0, 0])
        entry[0] += 1
        entry[1] += each["end_ns"] - each["start_ns"]
    known = {each["process"] for each in launches + kernels} - {None}
    by_process = all(any(each["process"] is not None for each in some) for some in (ranges, launches))
    covered = defaultdict(set)
    for each in sorted(kernels, key=lambda kernel: kernel["start_ns"]):
        made = [
            (at["start_ns"], row, at)
            for row, at in enumerate(launches)
            if each["correlation"] is not None
            and at["correlation"] == each["correlation"]
            and (at["process"] == each["process"] or len(known) <= 1)
        ]
        owner = None
        if made and (call := min(made)[2])["start_ns"] <= each["start_ns"]:
            moment = call["start_ns"] + (call["end_ns"] - call["start_ns"]) // 2
            held = [
                (at["start_ns"], -at["end_ns"], row)
                for row, at in enumerate(ranges)
                if at["start_ns"] <= moment < at["end_ns"]
                and at["thread"] == call["thread"]
                and (at["process"] == call["process"] or not by_process)
            ]
            owner = (ranges[max(held)[2]]["name"],) if held else None
        moments = set(range(each["start_ns"], each["end_ns"])) - covered[each["device"]]
        covered[each["device"]] |= moments
        entry = table.setdefault(None, [0, 0, 0, 0]) if owner is None else table[owner[0]]
        entry[2] += 1
        entry[3] += len(moments)
    last = [(None, *table.pop(None))] if None in table else []
    return sorted(((name, *entry) for name, entry in table.items()), key=lambda row: -row[4]) + last


def spans(longest):
    return st.tuples(st.integers(0, 60), st.integers(0, longest)).map(
        lambda span: {"start_ns": span[0], "end_ns": span[0] + span[1]}
    )


def like(longest, **values):
    """Rows with a span, and for each column one of its values."""
    columns = {name: st.sampled_from(each) for name, each in values.items()}
    return st.tuples(spans(longest), st.fixed_dictionaries(columns)).map(lambda parts: parts[0] | parts[1])


@given(st.data(), st.sampled_from([1, 2, 3, 5, BLOCK_ROWS]))
def test_any_trace_in_blocks_of_any_size(data, block_rows):
    processes = data.draw(st.sampled_from([(None,), (7,), (7, None), (7, 8), (7, 8, None)]))
    spread = data.draw(st.sampled_from([1, 10**15]))  # ids are dense or far apart
    ids = [None if each is None else each * spread for each in (*range(6), None)]
    host = {"process": processes, "thread": (1, 2)}
    ranges = data.draw(st.lists(like(40, name="abc", **host), max_size=8))
    launches = data.draw(st.lists(like(6, correlation=ids, **host), max_size=10))
    kernels = data.draw(st.lists(like(15, correlation=ids, process=processes, device=(0, 1, None)), max_size=10))
    if data.draw(st.booleans()):  # as stored by an import
        launches.sort(key=lambda each: each["start_ns"])
        kernels.sort(key=lambda each: each["start_ns"])
    run = Given(ranges=ranges, launches=launches, kernels=kernels)
    assert rows(run, block_rows) == expected_rows(ranges, launches, kernels)
