"""Inputs made from a signature or read from a file, and every reason to refuse them."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from workbench import zoo
from workbench.capture.feeds import load_feeds, make_feeds, save_feeds
from workbench.config import RunConfig
from workbench.errors import FeedError, OutOfMemoryError

F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def model_of(*inputs, table_rows=None):
    """A model with these inputs, (name, type, shape); with `table_rows`, the first one indexes a table."""
    nodes, held = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs], []
    if table_rows is not None:
        held.append(numpy_helper.from_array(np.zeros((table_rows, 2), np.float32), "table"))
        first = inputs[0][0]
        nodes += [helper.make_node("Cast", [first], ["index"], to=I64)]
        nodes += [helper.make_node("Gather", ["table", "index"], ["found"], axis=0)]
    values = [helper.make_tensor_value_info(*given) for given in inputs]
    return helper.make_model(helper.make_graph(nodes, "g", values, [], held))


def feeds_of(model, **options):
    return make_feeds(model, RunConfig(model="m.onnx", **options))[0]


def refusal_of(model, **options):
    with pytest.raises(FeedError) as refusal:
        feeds_of(model, **options)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("onnx_type", "dtype"),
    [
        ("FLOAT", np.float32),
        ("DOUBLE", np.float64),
        ("FLOAT16", np.float16),
        ("BFLOAT16", ml_dtypes.bfloat16),
        ("INT8", np.int8),
        ("UINT8", np.uint8),
        ("INT32", np.int32),
        ("INT64", np.int64),
        ("UINT64", np.uint64),
        ("BOOL", np.bool_),
    ],
)
def test_each_type_is_made(onnx_type, dtype):
    made = feeds_of(model_of(("x", TensorProto.DataType.Value(onnx_type), [3, 5])))["x"]
    assert made.dtype == dtype
    assert made.shape == (3, 5)
    assert np.isfinite(made.astype(np.float64)).all()


def test_floats_are_standard_normal_noise():
    made = feeds_of(model_of(("x", F32, [200, 200])))["x"]
    assert abs(made.mean()) < 0.02
    assert abs(made.std() - 1) < 0.02


def test_the_seed_decides_the_values_and_each_input_has_its_own():
    model = model_of(("a", F32, [64]), ("b", F32, [64]))
    one, again, other = feeds_of(model, seed=1), feeds_of(model, seed=1), feeds_of(model, seed=2)
    assert (one["a"] == again["a"]).all()
    assert (one["a"] != other["a"]).any()
    assert (one["a"] != one["b"]).any()


def test_a_scalar_stays_a_scalar():
    made = feeds_of(model_of(("x", F32, []), ("n", I64, [])))
    assert made["x"].shape == made["n"].shape == ()


def test_indices_stay_inside_the_vocabulary_of_an_encoder():
    model = zoo.build("encoder", layers=1, hidden=16, heads=2, vocabulary=11)
    feeds = feeds_of(model, dims={"sequence": 500})
    ids = next(array for name, array in feeds.items() if "id" in name)
    assert ids.min() >= 0
    assert ids.max() == 10
    assert len(np.unique(ids)) == 11


def test_the_smallest_table_bounds_an_index_that_passes_through_a_cast():
    made = feeds_of(model_of(("token", TensorProto.INT32, [1000]), table_rows=3))["token"]
    assert set(made.tolist()) == {0, 1, 2}


def test_masks_are_ones_positions_count_up_and_other_integers_are_zero():
    feeds = feeds_of(
        model_of(("attention_mask", I64, [2, 4]), ("position_ids", I64, [2, 4]), ("length", I64, [2]), ("k", I64, [1]))
    )
    assert (feeds["attention_mask"] == 1).all()
    assert feeds["position_ids"].tolist() == [[0, 1, 2, 3]] * 2
    assert feeds["length"].tolist() == [0, 0]
    assert feeds["k"].tolist() == [0]


def test_positions_stay_inside_their_table():
    made = feeds_of(model_of(("position_ids", I64, [7]), table_rows=3))["position_ids"]
    assert made.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_symbols_and_sums_of_them_agree_between_inputs():
    model = model_of(
        ("x", I64, ["batch", "sequence"]),
        ("mask", I64, ["batch", "past_sequence + sequence"]),
        ("y", I64, ["batch", "past_sequence + 1"]),
    )
    feeds, notes = make_feeds(model, RunConfig(model="m", batch=4, dims={"sequence": 3}))
    assert {name: array.shape for name, array in feeds.items()} == {"x": (4, 3), "mask": (4, 131), "y": (4, 129)}
    assert len(notes) == 1
    assert "past_sequence" in notes[0]
    assert "128" in notes[0]


def test_a_whole_expression_can_be_given_its_size():
    model = model_of(("x", F32, [1, "past + 1"]), ("y", F32, [1, "2*heads"]))
    feeds = feeds_of(model, dims={"past + 1": 5, "2*heads": 6})
    assert feeds["x"].shape == (1, 5)
    assert feeds["y"].shape == (1, 6)


def test_the_batch_reaches_every_open_first_dimension_but_those_that_are_named():
    model = model_of(("x", F32, ["N", 3]), ("y", F32, [None, 2]), ("z", F32, ["N", "N"]), ("w", F32, ["M", 1]))
    feeds = feeds_of(model, batch=6, dims={"M": 2})
    assert [feeds[name].shape for name in "xyzw"] == [(6, 3), (6, 2), (6, 6), (2, 1)]


def test_defaults_are_noted_and_shapes_win():
    model = model_of(("image", F32, ["batch", 3, "height", "width"]))
    feeds, notes = make_feeds(model, RunConfig(model="m"))
    assert feeds["image"].shape == (1, 3, 224, 224)
    assert len(notes) == 3
    feeds, notes = make_feeds(model, RunConfig(model="m", shapes={"image": [2, 3, 8, 8]}))
    assert feeds["image"].shape == (2, 3, 8, 8)
    assert notes == []


TWO_INPUTS = model_of(("pixels", F32, ["batch", 3]), ("other", F32, ["colours"]))


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (TWO_INPUTS, {"shapes": {"pixel": [1, 3]}}, "did you mean 'pixels'"),
        (TWO_INPUTS, {"dims": {"color": 3}}, "did you mean 'colours'"),
        (TWO_INPUTS, {}, "--dim colours=SIZE"),
        (TWO_INPUTS, {"shapes": {"pixels": [1, 4], "other": [1]}}, "takes shape [batch, 3], not [1, 4]"),
        (TWO_INPUTS, {"shapes": {"pixels": [3], "other": [1]}}, "not [3]"),
        (model_of(("x", F32, [2])), {"dims": {"n": 1}}, "all are fixed"),
        (model_of(("x", F32, [1, None])), {}, "--shape x:"),
        (model_of(("x", TensorProto.STRING, [1])), {}, "type string"),
        (model_of(("x", TensorProto.INT4, [2])), {}, "type int4"),
    ],
)
def test_a_signature_that_is_not_met_is_refused_in_one_sentence(model, options, said):
    assert said in refusal_of(model, **options)


@pytest.mark.parametrize("size", [2**50, 2**62, 2**70])
def test_an_input_beyond_memory_is_refused_in_one_sentence(size):
    with pytest.raises(OutOfMemoryError, match=r"'other' .* use a smaller one"):
        feeds_of(TWO_INPUTS, dims={"colours": size})


def save_tensor(array, name, file):
    file.write_bytes(numpy_helper.from_array(array, name).SerializeToString())


def test_feeds_are_read_from_npz(tmp_path):
    given = {"pixels": np.ones((5, 3), np.float32), "other": np.arange(2, dtype=np.float32)}
    np.savez(tmp_path / "f.npz", **given)
    feeds = feeds_of(TWO_INPUTS, feeds=str(tmp_path / "f.npz"))
    assert list(feeds) == ["pixels", "other"]
    assert all((feeds[name] == given[name]).all() for name in given)


def test_feeds_are_read_from_protobuf_by_name_or_by_place(tmp_path):
    model = model_of(*((f"in{index}", F32, ["n"]) for index in range(11)))
    for index in range(11):  # input_10 comes after input_9, and not after input_1
        save_tensor(np.full(2, index, np.float32), "" if index % 2 else f"in{index}", tmp_path / f"input_{index}.pb")
    feeds = feeds_of(model, feeds=str(tmp_path))
    assert [feeds[f"in{index}"][0] for index in range(11)] == list(range(11))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pixels": np.ones((5, 3), np.float32)}, "lack the input 'other'"),
        ({"pixles": np.ones((5, 3), np.float32)}, "did you mean 'pixels'"),
        ({"pixels": np.ones((5, 3)), "other": np.ones(1, np.float32)}, "takes float32, not float64"),
        ({"pixels": np.ones((5, 2), np.float32), "other": np.ones(1, np.float32)}, "not [5, 2]"),
        ({"pixels": np.array([{}]), "other": np.ones(1, np.float32)}, "cannot be read"),
    ],
)
def test_a_feed_that_does_not_fit_is_refused_in_one_sentence(tmp_path, arrays, said):
    np.savez(tmp_path / "f.npz", **arrays)
    assert said in refusal_of(TWO_INPUTS, feeds=str(tmp_path / "f.npz"))


def test_a_damaged_feed_is_refused_in_one_sentence(tmp_path):
    file = tmp_path / "f.npz"
    assert "cannot be read" in refusal_of(TWO_INPUTS, feeds=str(file))
    for damage in (b"", b"text", b"PK\x03\x04 cut off"):
        file.write_bytes(damage)
        assert "cannot be read" in refusal_of(TWO_INPUTS, feeds=str(file))
    np.save(tmp_path / "one.npy", np.ones(3))
    assert "not an .npz" in refusal_of(TWO_INPUTS, feeds=str(tmp_path / "one.npy"))


def test_a_damaged_protobuf_feed_is_refused_in_one_sentence(tmp_path):
    assert "no input_0.pb" in refusal_of(TWO_INPUTS, feeds=str(tmp_path))
    for damage in (b"", b"text", onnx.TensorProto(data_type=F32, dims=[5], raw_data=b"12").SerializeToString()):
        (tmp_path / "input_0.pb").write_bytes(damage)
        assert "holds no tensor" in refusal_of(TWO_INPUTS, feeds=str(tmp_path))


def test_saved_feeds_come_back_whole(tmp_path):
    feeds = {
        "file": np.arange(3, dtype=np.int64),
        "gpu_0/data": np.ones((2, 2), np.float16),
        "b": np.array([1.5, -2.0], ml_dtypes.bfloat16),
        "scalar": np.array(7, np.int32),
    }
    save_feeds(tmp_path / "feeds.npz", feeds)
    found = load_feeds(tmp_path / "feeds.npz")
    assert list(found) == list(feeds)
    for name, array in feeds.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert (found[name] == array).all()
