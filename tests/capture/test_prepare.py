"""What is written before anything runs: the changed model, its feeds, and what is said of them."""

import numpy as np
import onnx
import pytest

from workbench import zoo
from workbench.capture.feeds import load_feeds
from workbench.capture.prepare import CALIBRATION_SAMPLES, prepare
from workbench.config import RunConfig
from workbench.errors import FeedError
from workbench.runs.writer import MODEL_GRAPH

ENCODER = {"layers": 1, "hidden": 32, "heads": 2, "feed_forward": 32, "vocabulary": 50, "positions": 12}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return zoo.write("encoder", tmp_path_factory.mktemp("model") / "encoder.onnx", **ENCODER)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "run"
    made.mkdir()
    return made


def test_an_unchanged_model_is_run_where_it_lies(small_model, folder):
    prepared = prepare(RunConfig(model=small_model), folder)
    assert prepared.model_path == small_model
    assert not prepared.optimized
    assert (prepared.info.part, prepared.info.conversions, prepared.later_feeds) == (None, [], [])
    prepared.remove_files()
    assert [file.name for file in folder.iterdir()] == [MODEL_GRAPH]
    assert small_model.is_file()


@pytest.mark.slow
def test_conversions_follow_the_part_in_their_order(encoder, folder):
    """The part's input is an activation, so that its feeds are cut, then cast, with the model."""
    name = next(node.name for node in onnx.load(encoder).graph.node if node.op_type == "MatMul")
    config = RunConfig(model=encoder, dims={"sequence": 7}, part={"node": name})
    plain = prepare(config, folder)
    whole = load_feeds(plain.feeds_path)
    prepared = prepare(config.changed(conversions=["float16_io", "optimized"]), folder)
    assert prepared.optimized
    assert prepared.info.part == {"node": name}
    assert prepared.info.conversions == ["float16_io", "optimized"]
    assert prepared.info.sha256 == plain.info.sha256  # of the user's file
    assert set(prepared.info.feed_dtypes.values()) == {"float16"} == {each.type for each in prepared.info.inputs}
    for key, values in load_feeds(prepared.feeds_path).items():
        np.testing.assert_array_equal(values, whole[key].astype(np.float16))
    assert [note.split()[1] for note in prepared.notes if note.startswith("Conversion")] == [
        "'float16_io'",
        "'optimized'",
    ]
    prepared.remove_files()
    assert [file.name for file in folder.iterdir()] == [MODEL_GRAPH]
    assert prepared.model_path.is_file()  # in the cache


def test_later_shapes_get_feeds_of_the_same_seed(encoder, folder):
    later = [{"input_ids": [1, 9], "attention_mask": [1, 9]}, {"input_ids": [3, 5], "attention_mask": [3, 5]}]
    config = RunConfig(model=encoder, dims={"batch": 1, "sequence": 7}, later_shapes=later)
    prepared = prepare(config, folder)
    found = [load_feeds(path) for path in prepared.later_feeds]
    assert [{name: list(array.shape) for name, array in each.items()} for each in found] == later
    alone = prepare(RunConfig(model=encoder, shapes=later[1]), folder)
    np.testing.assert_array_equal(load_feeds(alone.feeds_path)["input_ids"], found[1]["input_ids"])
    prepared.remove_files()
    assert [file.name for file in folder.iterdir()] == [MODEL_GRAPH]


def test_later_shapes_must_fit_the_model(small_model, folder):
    with pytest.raises(FeedError, match=r"takes shape \[1, 8\], not \[2, 8\]"):
        prepare(RunConfig(model=small_model, later_shapes=[{"x": [2, 8]}]), folder)


@pytest.mark.slow
def test_static_quantization_sees_made_samples_and_says_how_many(small_model, folder):
    prepared = prepare(RunConfig(model=small_model, conversions=["int8_static"]), folder)
    assert prepared.notes[-1].endswith(f"calibration samples: {CALIBRATION_SAMPLES}.")
    assert sorted(path.name for path in folder.iterdir()) == ["feeds.npz", MODEL_GRAPH]


@pytest.mark.slow
def test_static_quantization_sees_only_what_the_user_feeds(small_model, folder, tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.ones((1, 8), np.float32))
    prepared = prepare(RunConfig(model=small_model, conversions=["int8_static"], feeds=tmp_path / "mine.npz"), folder)
    assert prepared.notes[-1].endswith("calibration samples: 1.")
