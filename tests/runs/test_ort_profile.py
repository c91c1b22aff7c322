"""A profile that ONNX Runtime wrote on an H200 (eight unary operators over 64 Mi floats, 13 calls), and made ones."""

import json
from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import SourceError
from workbench.runs.ort_profile import OrtProfile, read_ort_profile
from workbench.runs.writer import to_table

PROFILE = "ort_profile_h200_memory.json"
START_NS = 1_795_262_550_494_948_474
OPERATORS = ["Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Exp", "Sigmoid", "Tanh"]
ELEMENTS = 64 * 2**20


@pytest.fixture(scope="module")
def tables(capture):
    return {name: table.to_pandas() for name, table in read_ort_profile(capture(PROFILE), START_NS).items()}


def test_every_node_stands_once_in_every_call_and_in_order(tables):
    nodes = tables["nodes"]
    assert sorted(nodes["call"].unique()) == list(range(13))
    for _, call in nodes.sort_values("start_ns").groupby("call"):
        assert call["op_type"].tolist() == OPERATORS
        assert call["node_index"].tolist() == list(range(8))


def test_names_have_lost_the_profilers_suffix(tables):
    assert set(tables["nodes"]["name"]) == {f"{operator}{index}" for index, operator in enumerate(OPERATORS)}


def test_shapes_and_sizes_are_those_of_the_model(tables):
    nodes = tables["nodes"]
    for column in ("input_shapes", "output_shapes"):
        assert {json.dumps(json.loads(text)) for text in nodes[column]} == {json.dumps([{"float": [ELEMENTS]}])}
    assert set(nodes["output_bytes"]) == set(nodes["activation_bytes"]) == {4 * ELEMENTS}
    assert set(nodes["parameter_bytes"]) == {0}
    assert set(nodes["provider"]) == {"CUDAExecutionProvider"}


def test_times_are_on_the_epoch_and_nodes_lie_inside_their_run(tables):
    nodes, session = tables["nodes"], tables["session_events"]
    assert nodes["start_ns"].min() > START_NS
    assert nodes["start_ns"].max() < START_NS + 10 * 10**9
    runs = session[session["name"] == "model_run"].set_index("call")
    assert runs.index.tolist() == list(range(13))
    begun = runs["start_ns"].reindex(nodes["call"]).to_numpy()
    ended = begun + runs["duration_ns"].reindex(nodes["call"]).to_numpy()
    assert (nodes["start_ns"].to_numpy() >= begun).all()
    assert (nodes["start_ns"] + nodes["duration_ns"] <= ended + 1000).all()  # the profiler counts whole microseconds


def test_creating_the_session_is_outside_any_call(tables):
    session = tables["session_events"].set_index("name")
    assert session.loc["session_initialization", "call"] == -1
    assert session.loc["model_loading_uri", "call"] == -1


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "{}",
        lambda text: '"text"',
        lambda text: "[1, 2]",
        lambda text: '[{"ph": "X", "cat": "Session"}]',
        lambda text: text.replace('"ts"', '"time"'),
        lambda text: text.replace('"output_size": "', '"output_size": "many'),
    ],
)
def test_a_damaged_profile_is_one_sentence(capture, tmp_path, damage):
    file = tmp_path / "damaged.json"
    before = capture(PROFILE).read_text(encoding="utf-8")
    file.write_text(damage(before))
    assert file.read_text() != before
    with pytest.raises(SourceError, match=r"damaged\.json.*record it again") as refusal:
        read_ort_profile(file, START_NS)
    assert "\n" not in str(refusal.value)


def test_a_missing_profile_is_one_sentence(tmp_path):
    with pytest.raises(SourceError, match="record it again"):
        read_ort_profile(tmp_path / "none.json", START_NS)


@pytest.fixture(scope="module")
def profile(capture):
    return OrtProfile(capture(PROFILE))


def event(category, name, ts, dur, tid=1, **args):
    return {"cat": category, "pid": 7, "tid": tid, "dur": dur, "ts": ts, "ph": "X", "name": name, "args": args}


def node(name, ts, dur=5, tid=1, **args):
    known = {"op_name": "Relu", "provider": "P", "node_index": "0"}
    return event("Node", f"{name}_kernel_time", ts, dur, tid, **{**known, **args})


def run(ts, dur, tid=1):
    return event("Session", "model_run", ts, dur, tid)


def profile_of(folder, events, name="p.json"):
    path = folder / name
    path.write_text("[\n" + ",\n".join(map(json.dumps, events)) + "\n]\n")
    return OrtProfile(path)


def calls(profile):
    nodes = profile.tables()["nodes"]
    return dict(zip(nodes["name"].to_pylist(), nodes["call"].to_pylist(), strict=True))


def test_the_profile_tells_what_it_holds(profile):
    assert (profile.calls, profile.sessions, profile.nodes_outside_calls) == (13, 1, 0)
    assert (profile.cut, profile.truncated, profile.dropped_events, profile.skipped) == (False, False, None, 0)
    assert (profile.threads, profile.processes) == ([488], {488})


def test_times_count_from_the_start_that_is_given(profile):
    then, shifted = profile.tables()["nodes"], profile.tables(START_NS)["nodes"]
    assert then["start_ns"][0].as_py() == 38_025_000  # "ts": 38025 of the first node in the file
    assert {b - a for a, b in zip(then["start_ns"].to_pylist(), shifted["start_ns"].to_pylist(), strict=True)} == {
        START_NS
    }


def test_batches_are_the_table(profile):
    for name, table in profile.tables(5).items():
        parts = list(profile.batches(name, 5, rows=10))
        assert len(parts) == -(-len(table) // 10)
        assert pa.concat_tables(parts).equals(table)
        assert to_table(name, table).num_rows == len(table)


def test_text_that_repeats_is_stored_once(profile):
    nodes = profile.tables()["nodes"].combine_chunks()
    for name in ("name", "op_type", "provider", "input_shapes", "output_shapes"):
        column = nodes[name].chunk(0)
        assert column.dictionary.to_pylist() == list(dict.fromkeys(nodes[name].to_pylist()))


def test_events_belong_to_the_run_on_their_own_thread(tmp_path):
    """Two threads call at once; file order is the order of ends."""
    profile = profile_of(tmp_path, [
        node("a0", 110, tid=1), node("b0", 120, tid=2), run(100, 50, tid=1), node("b1", 160, tid=2),
        run(115, 60, tid=2), node("a1", 210, tid=1), run(200, 50, tid=1), node("none", 180, tid=1),
        node("early", 111, tid=2),
    ])  # fmt: skip
    assert calls(profile) == {"a0": 0, "b0": 1, "b1": 1, "a1": 2, "none": -1, "early": -1}
    assert (profile.calls, profile.nodes_outside_calls, profile.threads) == (3, 2, [1, 2])


def test_a_worker_thread_serves_the_only_run_at_that_time(tmp_path):
    profile = profile_of(tmp_path, [
        node("alone", 110, tid=9), node("both", 130, tid=9), run(100, 50, tid=1), node("after", 170, tid=9),
        run(120, 60, tid=2), node("outside", 195, tid=9),
    ])  # fmt: skip
    assert calls(profile) == {"alone": 0, "both": -1, "after": 1, "outside": -1}


@given(st.data())
def test_calls_agree_with_a_slow_search(tmp_path_factory, data):
    events, runs = [], []
    for tid in (1, 2):
        borders = sorted(data.draw(st.sets(st.integers(0, 60), max_size=6)))
        for start, end in zip(borders[::2], borders[1::2], strict=False):
            runs.append((start, end, tid))
    runs.sort()
    moments = data.draw(st.lists(st.tuples(st.integers(0, 60), st.sampled_from([1, 2, 3])), max_size=12))
    events = [node(str(number), ts, 1, tid) for number, (ts, tid) in enumerate(moments)]
    events += [run(start, end - start, tid) for start, end, tid in runs]
    if not events:
        return
    found = calls(profile_of(tmp_path_factory.mktemp("slow"), events))
    callers = {tid for _, _, tid in runs}
    starts = sorted(range(len(runs)), key=lambda i: runs[i][0])
    for number, (ts, tid) in enumerate(moments):
        holding = [call for call, i in enumerate(starts) if runs[i][0] <= ts <= runs[i][1]]
        if tid in callers:
            holding = [call for call in holding if runs[starts[call]][2] == tid][-1:]
        ambiguous = {runs[i][0] for i in range(len(runs))}
        if len(ambiguous) == len(runs):  # runs that start in the same microsecond may be numbered either way
            assert found[str(number)] == (holding[0] if len(holding) == 1 else -1)


def test_sessions_follow_one_another(tmp_path):
    loading, ready = event("Session", "model_loading_uri", 0, 9), event("Session", "session_initialization", 10, 9)
    begun = [loading, ready, node("a", 110), run(100, 50)]
    profile = profile_of(tmp_path, [*begun, loading, ready, node("b", 115, tid=3), run(102, 50)])
    tables = profile.tables()
    assert profile.sessions == 2
    assert tables["nodes"]["session"].to_pylist() == [0, 1]
    assert tables["session_events"]["session"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert calls(profile) == {"a": 0, "b": 1}
    assert profile_of(tmp_path, [ready, run(1, 2), ready, run(1, 2)]).sessions == 2


def test_a_truncated_profile_says_how_many_events_it_lacks(tmp_path):
    """The last call has no model_run, which the profiler would have written after its nodes."""
    marker = event("Session", "profile_truncated", 999, 0, max_num_events="5", dropped_event_count="88002")
    profile = profile_of(tmp_path, [node("a", 110), run(100, 50), node("b", 210), node("c", 220), marker])
    assert (profile.truncated, profile.dropped_events, profile.cut) == (True, 88002, False)
    assert (profile.calls, profile.nodes_outside_calls) == (1, 2)
    assert calls(profile) == {"a": 0, "b": -1, "c": -1}
    assert profile.tables()["session_events"]["name"].to_pylist() == ["model_run"]


def test_a_profile_cut_in_a_record_keeps_what_came_before(capture, tmp_path):
    text = capture(PROFILE).read_text(encoding="utf-8")
    path = tmp_path / "cut.json"
    path.write_text(text[: text.rindex('"provider"')])  # in the last node, so the last call has no model_run
    profile = OrtProfile(path)
    assert profile.cut
    assert profile.calls == 12
    assert profile.nodes_outside_calls == 7
    with pytest.raises(SourceError, match=r"cut\.json ends in the middle: record it again"):
        read_ort_profile(path, START_NS)


def test_damaged_events_are_counted(tmp_path):
    bad = [
        {**run(1, 1), "ts": 1.5}, {**run(1, 1), "ts": -1}, {**run(1, 1), "dur": 1 << 60}, {**run(1, 1), "tid": "1"},
        {**run(1, 1), "name": None}, {**run(1, 1), "cat": "GPU"}, {}, {**run(1, 1), "tid": 1 << 70},
        node("n", 1, output_size="many"), node("n", 1, output_size=str(1 << 70)), node("n", 1, output_size=["1"]),
        node("n", 1, input_type_shape="[]"), node("n", 1, input_type_shape=[{"float": ["x"]}]), node("n", 1, op_name=1),
    ]  # fmt: skip
    profile = profile_of(tmp_path, [node("good", 110), run(100, 50), *bad])
    assert profile.skipped == len(bad)
    assert calls(profile) == {"good": 0}


def test_what_an_older_profile_lacks_is_unknown(tmp_path):
    """Versions before 1.5 wrote fences around each node, and neither sizes nor shapes."""
    bare = {"op_name": "Conv"}
    profile = profile_of(tmp_path, [
        event("Node", "_fence_before", 105, 1, **bare), event("Node", "_kernel_time", 110, 5, **bare), run(100, 50),
    ])  # fmt: skip
    (row,) = profile.tables()["nodes"].to_pylist()
    assert (row["name"], row["op_type"], row["call"]) == ("", "Conv", 0)
    unknown = "provider node_index input_shapes output_shapes activation_bytes parameter_bytes output_bytes".split()
    assert [row[column] for column in unknown] == [None] * len(unknown)
    assert profile.skipped == 0


def test_shapes_that_change_are_told_apart(tmp_path):
    shapes = [[{"float": [batch, 3]}] for batch in (1, 2, 1)]
    events = [node("n", 10 * i, output_type_shape=shape) for i, shape in enumerate(shapes)]
    found = profile_of(tmp_path, events).tables()["nodes"]["output_shapes"].to_pylist()
    assert [json.loads(text) for text in found] == shapes


def test_names_that_utf8_cannot_hold_are_read(tmp_path):
    assert list(calls(profile_of(tmp_path, [node("a\ud83d", 1), node("naïve", 2), run(0, 9)]))) == ["a?", "naïve"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ort_2026-11-21_15-58-51_262.json", datetime(2026, 11, 21, 15, 58, 51)),
        ("p_2024-02-29_00-00-00.json", datetime(2024, 2, 29)),
        ("p_2023-02-29_00-00-00.json", None),
        ("profile.json", None),
    ],
)
def test_the_files_name_hints_at_its_time(tmp_path, name, hint):
    assert profile_of(tmp_path, [run(1, 1)], name).file_time_hint == hint
