"""The model file: whole or refused in one sentence, its signature, and its copy at another batch size."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from workbench import zoo
from workbench.capture.model import has_fixed_batch, model_inputs, read_model, rebatch, sha256
from workbench.errors import ModelError

F32 = TensorProto.FLOAT


def refusal_of(path):
    with pytest.raises(ModelError) as refusal:
        read_model(path)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not an ONNX file"),
        (b"This is a text file, no model.\n" * 20, "is not an ONNX file"),
        (bytes(range(256)) * 4, "is not an ONNX file"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "is not an ONNX file"),
    ],
)
def test_what_is_no_onnx_file_is_refused(tmp_path, content, said):
    (tmp_path / "m.onnx").write_bytes(content)
    assert said in refusal_of(tmp_path / "m.onnx")


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(tmp_path, small_model, kept):
    data = small_model.read_bytes()
    (tmp_path / "m.onnx").write_bytes(data[: int(len(data) * kept)])
    assert "is cut off or damaged" in refusal_of(tmp_path / "m.onnx")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "No such file" in refusal_of(tmp_path / "m.onnx")
    assert "directory" in refusal_of(tmp_path)


@pytest.fixture
def external(tmp_path):
    """A model whose weights lie in w.bin, 4000 bytes from offset 0."""
    weight = numpy_helper.from_array(np.ones(1000, np.float32), "w")
    value = helper.make_tensor_value_info("x", F32, [1000])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])], "g", [value], [helper.make_tensor_value_info("y", F32, [1000])]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    model.graph.initializer.append(weight)
    onnx.save_model(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return tmp_path / "m.onnx"


def test_external_data_is_checked_and_not_read(external):
    model = read_model(external)
    assert model.graph.initializer[0].data_location == TensorProto.EXTERNAL
    assert not model.graph.initializer[0].raw_data


def test_missing_external_data_is_named(external):
    external.with_name("w.bin").unlink()
    assert "w.bin, which is missing" in refusal_of(external)


def test_external_data_that_is_cut_off_is_named(external):
    file = external.with_name("w.bin")
    file.write_bytes(file.read_bytes()[:-1])
    assert "is cut off (3999 of at least 4000 bytes)" in refusal_of(external)


def test_a_position_that_is_no_number_does_not_crash(external):
    model = onnx.load_model(external, load_external_data=False)
    next(e for e in model.graph.initializer[0].external_data if e.key == "length").value = "long"
    external.write_bytes(model.SerializeToString())
    assert read_model(external).graph.node[0].op_type == "Add"  # ONNX Runtime refuses it with its own words


def test_inputs_are_those_that_must_be_fed():
    values = [
        helper.make_tensor_value_info("x", F32, ["batch", None, 3]),
        helper.make_tensor_value_info("weight", F32, [3]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        helper.make_tensor_value_info("half", TensorProto.BFLOAT16, [1]),
        helper.make_tensor_value_info("wide", TensorProto.DOUBLE, [1]),
    ]
    graph = helper.make_graph([], "g", values, [], [numpy_helper.from_array(np.ones(3, np.float32), "weight")])
    found = {given.name: (given.dtype, given.shape) for given in model_inputs(helper.make_model(graph))}
    assert found == {
        "x": ("float32", ("batch", None, 3)),
        "flag": ("bool", ()),
        "half": ("bfloat16", (1,)),
        "wide": ("float64", (1,)),
    }


def test_an_input_that_is_no_tensor_is_refused():
    sequence = helper.make_tensor_sequence_value_info("s", F32, None)
    with pytest.raises(ModelError, match="'s' is no tensor"):
        model_inputs(helper.make_model(helper.make_graph([], "g", [sequence], [])))


def test_an_input_of_an_unknown_type_is_undefined():
    value = helper.make_tensor_value_info("x", F32, [1])
    for unknown in (0, 99):
        value.type.tensor_type.elem_type = unknown
        assert model_inputs(helper.make_model(helper.make_graph([], "g", [value], [])))[0].dtype == "undefined"


def test_sha256_is_that_of_the_file(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(("batch", "fixed"), [(1, False), (4, True)])
def test_a_fixed_batch_is_seen(batch, fixed):
    assert has_fixed_batch(read_model(zoo.resnet50_path()), batch) is fixed


def fill_with_noise(model, rng):
    """The shipped weights are constant fills, which would hide mixed-up rows."""
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for fill in [node for node in model.graph.node if node.op_type == "ConstantOfShape"]:
        shape = shapes[fill.input[0]]
        values = rng.standard_normal(shape, np.float32) * np.float32(np.prod(shape[1:]) ** -0.5)
        values = np.abs(values) if len(shape) == 1 else values  # a variance is positive
        model.graph.initializer.append(numpy_helper.from_array(values, fill.output[0]))
        model.graph.node.remove(fill)


def run_rows(model, rows):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})[0]


@pytest.mark.slow
def test_a_rebatched_resnet50_gives_the_rows_of_batch_1():
    model = read_model(zoo.resnet50_path())
    rng = np.random.default_rng(0)
    fill_with_noise(model, rng)
    softmax = model.graph.node.pop()  # it would round all but the largest logit to 0
    model.graph.output[0].name = softmax.input[0]
    rows = rng.standard_normal((2, 3, 224, 224), np.float32)
    together = run_rows(rebatch(model, 2), rows)
    alone = np.concatenate([run_rows(model, rows[i : i + 1]) for i in range(2)])
    largest = np.abs(alone).max()
    assert np.abs(alone[0] - alone[1]).max() > 0.01 * largest
    assert np.abs(together - alone).max() < 1e-4 * largest


def reshaped(target):
    """x [1, 6] reshaped to `target`."""
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "target"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", F32, [1, 6])],
        [helper.make_tensor_value_info("y", F32, [1, 6])],
        [numpy_helper.from_array(np.array(target, np.int64), "target")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def test_a_reshape_that_names_the_batch_is_opened():
    rows = np.arange(18, dtype=np.float32).reshape(3, 6)
    assert run_rows(rebatch(reshaped([1, 2, 3]), 3), rows).tolist() == rows.reshape(3, 2, 3).tolist()


def test_rebatching_leaves_the_original_alone():
    model = reshaped([1, 6])
    before = model.SerializeToString(deterministic=True)
    rebatch(model, 3)
    assert model.SerializeToString(deterministic=True) == before


def two_inputs(*firsts):
    values = [helper.make_tensor_value_info(f"x{i}", F32, [first, 2]) for i, first in enumerate(firsts)]
    return helper.make_model(helper.make_graph([helper.make_node("Add", ["x0", "x1"], ["y"])], "g", values, []))


@pytest.mark.parametrize("model", [two_inputs(1, 8), two_inputs("batch", 8), two_inputs(None, None)])
def test_inputs_without_a_common_fixed_batch_are_refused(model):
    with pytest.raises(ModelError, match="share no fixed batch"):
        rebatch(model, 4)


def test_a_batch_that_does_not_reach_the_outputs_is_refused():
    with pytest.raises(ModelError, match="'y' keeps a first dimension of 2 at batch 4"):
        rebatch(reshaped([2, -1]), 4)


def test_weights_outside_the_file_are_refused(external):
    with pytest.raises(ModelError, match="outside the file"):
        rebatch(read_model(external), 4)
