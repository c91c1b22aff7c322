"""Equal to the last nanosecond: the package, the truth of a synthetic export, and a reference that marks every moment.

The truth beside a synthetic export is held against the reference at small sizes, so that the benchmarks may trust it at
sizes that the reference cannot reach.
"""

import sqlite3
from collections import defaultdict
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
from benchmarks.synthetic_export import write_export
from benchmarks.synthetic_tables import EPOCH_NS, OP_NAMES
from benchmarks.synthetic_timeline import D2H, H2D, KERNEL, MEMSET, Spans, Timeline
from benchmarks.synthetic_truth import Truth, sweep, truth_path
from hypothesis import assume, given
from hypothesis import strategies as st
from slow_reference import Piece, innermost, own_times, spent

from workbench.analysis.device_work import call_times
from workbench.analysis.pairing import launch_rows
from workbench.analysis.range_times import range_times
from workbench.runs.schema import TABLES
from workbench.runs.writer import to_table

PASS = "activity"
SMALL = {"kernels": 70, "kernels_per_call": (5, 30)}


class Given:
    """Tables of a run, from columns."""

    def __init__(self, **columns):
        self._tables = {
            name: to_table(name, {**given, "pass": [PASS] * len(next(iter(given.values())))}).to_pandas()
            for name, given in columns.items()
        }

    def table(self, name, columns=None):
        found = self._tables.get(name, TABLES[name].empty_table().to_pandas())
        return found if columns is None else found[list(columns)]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """Rows of a small synthetic export by their seed: its tables as lists of rows, and its truth."""
    folder = tmp_path_factory.mktemp("synthetic")

    def rows(seed):
        path = folder / f"{seed}.sqlite"
        truth = write_export(path, seed=seed, **SMALL)
        queries = {
            "work": """SELECT start, end, streamId, correlationId, 'kernel' FROM CUPTI_ACTIVITY_KIND_KERNEL
                UNION ALL SELECT start, end, streamId, correlationId, 'memset' FROM CUPTI_ACTIVITY_KIND_MEMSET
                UNION ALL SELECT start, end, streamId, correlationId, iif(copyKind = 1, 'h2d', 'd2h')
                FROM CUPTI_ACTIVITY_KIND_MEMCPY""",
            "host": """SELECT start, end, correlationId, value FROM CUPTI_ACTIVITY_KIND_RUNTIME
                JOIN StringIds ON id = nameId ORDER BY start""",
            "ranges": "SELECT start, end, value, int64Value FROM NVTX_EVENTS JOIN StringIds ON id = textId",
        }
        with closing(sqlite3.connect(path)) as database:
            return {name: database.execute(query).fetchall() for name, query in queries.items()}, truth

    return rows


def calls_of(rows):
    return [(start, end) for start, end, name, _ in rows["ranges"] if name == "run"]


@pytest.mark.parametrize("seed", range(4))
def test_the_truth_of_a_synthetic_export_is_what_the_reference_finds_in_its_rows(export, seed):
    rows, truth = export(seed)
    launches = {correlation: (start, end) for start, end, correlation, _ in rows["host"]}
    syncs = [(start, end) for start, end, _, name in rows["host"] if "Synchronize" in name]
    expected = defaultdict(list)
    for begin, finish in calls_of(rows):
        mine = [row for row in rows["work"] if begin <= row[0] < finish]
        pieces = [Piece(start, end, kind in ("h2d", "d2h"), launches[id_][0]) for start, end, _, id_, kind in mine]
        for name, value in spent(begin, finish, pieces, syncs).items():
            expected[name].append(value)
        expected["queue_ns"].append(sum(row[0] - launches[row[3]][0] for row in mine if row[4] == "kernel"))
    assert expected.pop("replay_ns") == [0] * len(truth.call_starts_ns)
    assert truth.calls == expected

    spans = [(start, end) for start, end, *_ in rows["ranges"]]
    kernels = [row for row in rows["work"] if row[4] == "kernel"]
    found = {name: dict.fromkeys(("count", "kernels", "kernel_ns", "own_ns"), 0) for _, _, name, _ in rows["ranges"]}
    for *_, name, _ in rows["ranges"]:
        found[name]["count"] += 1
    for (start, end, _, correlation, _), own in zip(kernels, own_times([row[:2] for row in kernels]), strict=True):
        entry = found[rows["ranges"][innermost(sum(launches[correlation]) // 2, spans)][2]]
        entry["kernels"] += 1
        entry["kernel_ns"] += end - start
        entry["own_ns"] += own
    assert truth.ranges == found
    assert truth.pairs == len(rows["work"])
    assert truth.host_calls == len(rows["host"])
    assert truth.nvtx_ranges == len(rows["ranges"])


@pytest.mark.parametrize("seed", range(4))
def test_a_synthetic_export_looks_like_a_capture(export, seed):
    rows, truth = export(seed)
    launches = {correlation: (start, end) for start, end, correlation, _ in rows["host"]}
    assert truth.kernels == SMALL["kernels"]
    assert len(launches) == len(rows["host"])
    assert all(launches[row[3]][0] < row[0] < row[1] for row in rows["work"])  # nothing runs before it is launched
    numbers = [payload for _, _, name, payload in rows["ranges"] if name == "run"]
    assert numbers == list(range(len(truth.call_starts_ns)))
    spans = sorted((start, -end) for start, end, *_ in rows["ranges"])
    for outer, (start, end) in enumerate(spans):  # ranges nest: whatever begins inside ends inside
        assert all(-inner_end <= -end for inner, inner_end in spans[outer + 1 :] if start < inner < -end)
    ops = [(start, end) for start, end, name, _ in rows["ranges"] if name in OP_NAMES]
    assert all(innermost(launches[row[3]][0], ops) is not None for row in rows["work"])


def test_the_same_seed_gives_the_same_export_and_another_gives_another(export, tmp_path):
    (first, truth), (again, _), (other, _) = export(3), export(3), export(4)
    assert first == again
    assert first != other
    path = tmp_path / "stored.sqlite"
    write_export(path, seed=3, **SMALL)
    assert Truth.read(truth_path(path)) == truth


@pytest.mark.parametrize("seed", range(4))
def test_the_package_finds_the_truth(export, seed):
    rows, truth = export(seed)
    spans = calls_of(rows)
    calls = [next((i for i, (a, b) in enumerate(spans) if a <= row[0] < b), -1) for row in rows["work"]]

    def device(*kinds):
        chosen = [(*row, call) for row, call in zip(rows["work"], calls, strict=True) if row[4] in kinds]
        start, end, stream, correlation, kind, call = zip(*sorted(chosen), strict=True) if chosen else [()] * 6
        return {
            "start_ns": np.array(start, np.int64) + EPOCH_NS, "end_ns": np.array(end, np.int64) + EPOCH_NS,
            "stream": stream, "correlation": correlation, "call": call, "process": [truth.process] * len(call),
            **({"kind": kind} if "h2d" in kinds else {}),
        }  # fmt: skip

    start, end, correlation, name = zip(*rows["host"], strict=True)
    run = Given(
        latency={
            "call": range(len(spans)), "phase": ["measured"] * len(spans),
            "start_ns": [a + EPOCH_NS for a, _ in spans], "duration_ns": [b - a for a, b in spans],
        },
        kernels=device("kernel"), memsets=device("memset"), copies=device("h2d", "d2h"),
        launches={
            "start_ns": np.array(start) + EPOCH_NS, "end_ns": np.array(end) + EPOCH_NS, "name": name,
            "correlation": correlation, "process": [truth.process] * len(start), "thread": [1] * len(start),
        },
        ranges={
            "start_ns": [row[0] + EPOCH_NS for row in rows["ranges"]], "thread": [1] * len(rows["ranges"]),
            "end_ns": [row[1] + EPOCH_NS for row in rows["ranges"]], "name": [row[2] for row in rows["ranges"]],
        },
    )  # fmt: skip
    found = call_times(run, PASS).drop(columns="replay_ns")
    assert {name: found[name].tolist() for name in found} == {
        name: values for name, values in truth.calls.items() if name != "queue_ns"
    }
    kernels, launches = run.table("kernels"), run.table("launches")
    at = launch_rows(kernels, launches)
    queue = kernels["start_ns"].to_numpy() - launches["start_ns"].to_numpy()[at]
    assert pd.Series(queue).groupby(kernels["call"]).sum().tolist() == truth.calls["queue_ns"]
    ranges = range_times(run, PASS).set_index("name")[["count", "kernels", "device_ns"]]
    assert dict(zip(ranges.index, ranges.to_numpy().tolist(), strict=True)) == {
        name: [entry["count"], entry["kernels"], entry["own_ns"]] for name, entry in truth.ranges.items()
    }


@st.composite
def traces(draw):
    """Up to three calls with any device work: overlapping, reaching past the call, launched early, late or by nobody.

    Another process made calls with the same correlation ids, at other times.
    """
    calls, pieces, decoys, moment = [], [], [], 0
    for call in range(draw(st.integers(1, 3))):
        begin = moment + draw(st.integers(0, 5))
        moment = begin + draw(st.integers(1, 40))
        calls.append((begin, moment))
        for start in draw(st.sets(st.integers(begin, moment - 1), max_size=7)):
            launch = draw(st.none() | st.integers(0, 20).map(lambda back, start=start: start - back))
            kind = draw(st.sampled_from(["kernels", "memsets", "graphs", "h2d", "d2h", "d2d"]))
            pieces.append((call, kind, start, start + draw(st.integers(1, 25)), launch))
            decoys.append(start - draw(st.integers(0, 30)))
    syncs = draw(st.lists(st.tuples(st.integers(0, moment), st.integers(0, 40)), max_size=3))
    return calls, pieces, decoys, [(start, start + length) for start, length in syncs]


@given(traces())
def test_any_trace_is_measured_as_the_reference_does(trace):
    calls, pieces, decoys, syncs = trace
    tables = defaultdict(list)
    for row, (call, kind, start, end, _) in enumerate(pieces):
        name = kind if kind in TABLES else "copies"
        more = {"kind": kind} if name == "copies" else {}
        tables[name].append({"call": call, "start_ns": start, "end_ns": end, "correlation": row, "process": 1, **more})
    for row, (start, end) in enumerate(calls):
        tables["latency"].append({"call": row, "phase": "measured", "start_ns": start, "duration_ns": end - start})
    host = [(launch, 1, 1, row, "cudaLaunchKernel") for row, (*_, launch) in enumerate(pieces) if launch is not None]
    host += [(start, 1, 2, row, "cudaLaunchKernel") for row, start in enumerate(decoys)]
    host += [(start, end - start, 1, -1 - row, "cudaStreamSynchronize") for row, (start, end) in enumerate(syncs)]
    for start, length, process, correlation, name in sorted(host):
        tables["launches"].append(
            {"start_ns": start, "end_ns": start + length, "process": process, "correlation": correlation, "name": name}
        )
    for rows in tables.values():
        for row in rows:
            row.update({name: value + EPOCH_NS for name, value in row.items() if name in ("start_ns", "end_ns")})
        rows.sort(key=lambda row: row["start_ns"])
    found = call_times(Given(**{name: pd.DataFrame(rows).to_dict("list") for name, rows in tables.items()}), PASS)
    for call, (begin, finish) in enumerate(calls):
        mine = [
            Piece(start, min(end, finish), kind in ("h2d", "d2h"), launch, kind == "graphs")
            for of, kind, start, end, launch in pieces
            if of == call
        ]
        assert found.loc[call].to_dict() == spent(begin, finish, mine, syncs)


@given(traces())
def test_the_sweep_behind_the_truth_decides_ties_as_the_reference_does(trace):
    """Moments coincide too rarely in a small export to be seen there, and some hundred times in a large one."""
    calls, pieces, _, syncs = trace
    assume(pieces)
    codes = {"kernels": KERNEL, "h2d": H2D, "d2h": D2H}
    rows = [
        (codes.get(kind, MEMSET), start if launch is None else launch, start, min(end, calls[call][1]), call)
        for call, kind, start, end, launch in pieces
    ]
    kind, launch, start, end, call = (np.array(column, np.int64) for column in zip(*rows, strict=True))

    def spans(intervals):
        begins, ends = (np.array([span[side] for span in intervals], np.int64) for side in (0, 1))
        return Spans(begins, ends, np.zeros_like(begins), np.zeros_like(begins))

    nothing = spans([])
    part = Timeline(kind, launch, launch, start, end, call, kind, kind, spans(calls), nothing, nothing, spans(syncs), 0)
    found = sweep(part)
    for number, (begin, finish) in enumerate(calls):
        mine = [Piece(b, e, code >= H2D, launched) for code, launched, b, e, of in rows if of == number]
        expected = spent(begin, finish, mine, syncs)
        assert {name: found[name][number] for name in expected if name != "replay_ns"} == {
            name: value for name, value in expected.items() if name != "replay_ns"
        }
