"""Profiles recorded on one clock with their launches: the offset is taken away, and must be found again or refused."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from workbench.runs import clock_join
from workbench.runs.clock_join import MIN_FIT, join_clocks
from workbench.runs.reader import RunFolder

TAKEN_NS = 1_700_000_000_123_456_789
MANY_NODES = [
    "compute_device", "compute_numpy", "decoder_device", "encoder_device", "launch_device", "launch_device_graph",
    "launch_device_nsys", "launch_numpy", "resnet50_b1_device", "resnet50_b1_device_nsys", "resnet50_b1_graph",
    "resnet50_b1_numpy", "resnet50_b64_device",
]  # fmt: skip
FEW_NODES = ["memory_device", "memory_numpy", "pcie_device", "pcie_numpy", "pcie_pinned"]


@pytest.fixture(scope="module")
def recorded(h200):
    """Nodes, runs and launches of a recorded run, the first two without their epoch."""
    known = {}

    def load(name):
        if name not in known:
            run = RunFolder(h200 / name)
            launches = run.launches[run.launches["pass"] == "nodes"]
            runs = run.session_events[run.session_events["name"] == "model_run"].sort_values("start_ns")
            frames = run.nodes, runs, launches
            nodes, runs, launches = (pa.Table.from_pandas(frame, preserve_index=False) for frame in frames)
            known[name] = moved(nodes, -TAKEN_NS), moved(runs, -TAKEN_NS), launches
        return known[name]

    return load


def moved(table, by_ns):
    at = table.column_names.index("start_ns")
    return table.set_column(at, "start_ns", [pa.array(table["start_ns"].to_numpy() + by_ns)])


def between(table, start_ns, end_ns):
    starts = table["start_ns"].to_numpy()
    return table.filter(pa.array((starts >= start_ns) & (starts < end_ns)))


def is_right(join):
    return join.offset_ns is not None and abs(join.offset_ns - TAKEN_NS) <= join.residual_ns


@pytest.mark.parametrize("name", MANY_NODES)
def test_the_true_offset_is_found_again(recorded, name):
    join = join_clocks(*recorded(name))
    assert is_right(join), join
    assert min(join.inside, join.held) > MIN_FIT
    assert join.residual_ns < 12_000
    assert join.reason == ""


@pytest.mark.parametrize("name", FEW_NODES)
def test_few_nodes_are_joined_right_or_not_at_all(recorded, name):
    join = join_clocks(*recorded(name))
    assert is_right(join) or join.reason.startswith("The clocks are not joined, because ")


@pytest.mark.parametrize(
    "name", [
        "compute_device", "resnet50_b1_graph", "memory_device", pytest.param("launch_numpy", marks=pytest.mark.slow)
    ],
)  # fmt: skip
def test_other_calls_on_either_side_never_mislead(recorded, name):
    """The profile and the trace each miss some calls of the other: found right, or refused when none is common."""
    nodes, runs, launches = recorded(name)
    starts = [*runs["start_ns"].to_pylist(), 1 << 61]
    count = len(runs)
    profiles = [(0, count), (1, count), (0, count - 1), (count // 2, count)]
    traces = [(1, count), (0, count - 1), (0, count // 2), (2, count - 2)]
    found = 0
    for (a, b), (c, d) in itertools.product(profiles, traces):
        own, called = (between(table, starts[a], starts[b]) for table in (nodes, runs))
        seen = between(launches, starts[c] + TAKEN_NS, starts[d] + TAKEN_NS)
        join = join_clocks(own, called, seen)
        assert is_right(join) or join.offset_ns is None, (a, b, c, d, join)
        assert min(b, d) > max(a, c) or join.offset_ns is None
        found += is_right(join)
    assert found >= 6


def test_files_of_different_runs_are_refused(recorded):
    # two runs of one model are the likeliest to be taken for each other
    models = [("resnet50_b1_device", "resnet50_b1_graph"), ("launch_device", "launch_numpy")]
    alike = [pair for model in models for pair in itertools.permutations(model)]
    for ours, theirs in [*alike, *itertools.permutations(["resnet50_b1_device", "launch_device", "compute_device"], 2)]:
        nodes, runs, _ = recorded(ours)
        join = join_clocks(nodes, runs, recorded(theirs)[2])
        assert join.offset_ns is None, (ours, theirs, join)
        assert join.reason


def test_threads_that_the_sides_do_not_share_are_not_used(recorded):
    nodes, runs, launches = recorded("launch_device")
    at = launches.column_names.index("thread")
    anonymous = launches.set_column(at, "thread", [pa.nulls(len(launches), pa.int64())])
    assert is_right(join_clocks(nodes, runs, anonymous))


def made(periods_ns, seed=0):
    """One kernel from each of 40 nodes of 20 µs in every call, the calls `periods_ns` apart, from two threads."""
    rng = np.random.default_rng(seed)
    begun = np.cumsum(periods_ns)
    starts = (begun[:, None] + np.arange(40) * 25_000 + rng.integers(0, 3_000, (len(begun), 40))).ravel()
    calls = starts + 8_000 + rng.integers(0, 4_000, len(starts))
    thread = np.repeat(np.arange(len(begun)) % 2, 40) + 70
    truncated = (starts - starts[0]) // 1000 * 1000
    nodes = {
        "start_ns": truncated, "duration_ns": np.full(len(starts), 20_000), "thread": thread,
        "name": [f"n{k}" for k in range(40)] * len(begun), "provider": ["CUDAExecutionProvider"] * len(starts),
    }  # fmt: skip
    runs = {"start_ns": begun - starts[0], "duration_ns": np.full(len(begun), 1_010_000)}
    launches = {
        "start_ns": calls,
        "end_ns": calls + 3_000,
        "thread": thread,
        "name": ["cudaLaunchKernel"] * len(starts),
    }
    return pa.table(nodes), pa.table(runs), pa.table(launches), int(starts[0])


def test_calls_that_repeat_like_a_clock_are_refused():
    nodes, runs, launches, _ = made(np.full(12, 2_000_000))
    join = join_clocks(nodes, runs, launches)
    assert join.offset_ns is None
    assert "repeat so regularly" in join.reason


def test_jitter_between_calls_tells_them_apart():
    periods = np.random.default_rng(1).integers(1_500_000, 2_500_000, 12)
    nodes, runs, launches, truth = made(periods)
    join = join_clocks(nodes, runs, launches)
    assert abs(join.offset_ns - truth) <= join.residual_ns


def test_other_work_of_the_process_does_not_mislead():
    """Launches before, after and on a thread that makes no calls, as many as those of the profile."""
    periods = np.random.default_rng(1).integers(1_500_000, 2_500_000, 12)
    nodes, runs, launches, truth = made(periods)
    rng = np.random.default_rng(2)
    times = launches["start_ns"].to_numpy()
    noise = np.concatenate([times[0] - rng.integers(1, 10**8, 300), times[-1] + rng.integers(10**6, 10**8, 300)])
    names = ["cudaLaunchKernel"] * 600 + ["cudaMemcpyAsync"] * 100
    noise = np.concatenate([noise, rng.integers(times[0], times[-1], 100)])
    threads = rng.choice([70, 71, 72], 700)
    other = pa.table({"start_ns": noise, "end_ns": noise + 2_000, "thread": threads, "name": names})
    join = join_clocks(nodes, runs, pa.concat_tables([launches, other]))
    assert abs(join.offset_ns - truth) <= join.residual_ns


def test_a_sample_of_the_launches_finds_the_same(recorded, monkeypatch):
    monkeypatch.setattr(clock_join, "_SAMPLE", 500)
    assert is_right(join_clocks(*recorded("launch_device_graph")))


def test_clocks_that_drift_apart_are_refused():
    periods = np.random.default_rng(1).integers(1_500_000, 2_500_000, 60)
    nodes, runs, launches, _ = made(periods)
    starts = launches["start_ns"].to_numpy()
    drifted = starts + (starts - starts[0]) // 1000  # 1 ms in a second, against nodes of 20 µs
    at = launches.column_names.index("start_ns")
    launches = launches.set_column(at, "start_ns", [pa.array(drifted)])
    launches = launches.set_column(launches.column_names.index("end_ns"), "end_ns", [pa.array(drifted + 3_000)])
    assert join_clocks(nodes, runs, launches).offset_ns is None


def test_nothing_to_go_by_is_said():
    nodes, runs, launches, _ = made(np.full(3, 2_000_000))
    for some in ((nodes[:0], runs, launches), (nodes, runs[:0], launches), (nodes, runs, launches[:10])):
        join = join_clocks(*some)
        assert join.offset_ns is None
        assert "too few" in join.reason
    far = pa.concat_tables([launches, moved(launches[:1], 10**17)])
    assert "more than a day" in join_clocks(nodes, runs, far).reason
