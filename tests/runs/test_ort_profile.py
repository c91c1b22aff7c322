"""The profile that ONNX Runtime wrote on an H200: eight unary operators over 64 Mi floats, thirteen calls."""

import json

import pytest

from workbench.errors import SourceError
from workbench.runs.ort_profile import read_ort_profile

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
