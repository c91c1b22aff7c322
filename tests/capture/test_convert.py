"""Conversions: each runs and stays near the float32 outputs, or says in one sentence why not."""

from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from convertible import node, request_for, save, write_models
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from workbench.capture.convert import files
from workbench.capture.convert.__main__ import carry_out
from workbench.capture.convert.failures import failure
from workbench.capture.convert.files import sort_nodes
from workbench.capture.convert.precision import bfloat16
from workbench.capture.prepare import prepare
from workbench.config import RunConfig
from workbench.errors import ModelError

pytestmark = pytest.mark.slow  # real runs, each in processes of its own


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


def outputs(path: Path, feeds, optimise=True) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    types = {given.name: np.float16 if "float16" in given.type else None for given in session.get_inputs()}
    return session.run(None, {name: array.astype(types[name] or array.dtype) for name, array in feeds.items()})


def relative_error(found: list[np.ndarray], base: list[np.ndarray]) -> float:
    """Root mean square of the difference over that of the base, the largest of the outputs."""
    return max(
        float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2) / np.mean(b.astype(np.float64) ** 2)))
        for a, b in zip(found, base, strict=True)
    )


def operators(path: Path) -> Counter[str]:
    return Counter(each.op_type for each in onnx.load(path).graph.node)


# float16 keeps 11 bits, INT8 8, INT4 4: what a layer loses adds up over at most 20 of them
TOLERANCE = {"float16": 4e-3, "float16_io": 4e-3, "int8_dynamic": 0.06, "int8_static": 0.1}
TOLERANCE |= {"int8_weights": 0.02, "int4_weights": 0.25, "fixed_shapes": 1e-5, "optimized": 1e-5}
SIGN = {"int8_dynamic": "DynamicQuantizeLinear", "int8_static": "QuantizeLinear"}
SIGN |= {"int8_weights": "MatMulNBits", "int4_weights": "MatMulNBits"}


@pytest.mark.parametrize("conversion", TOLERANCE)
@pytest.mark.parametrize("name", ["encoder", "convolution"])
def test_outputs_stay_near_those_of_float32(models, tmp_path, name, conversion):
    request, feeds = request_for(models[name], conversion, tmp_path / "out")
    carry_out(request)
    error = relative_error(outputs(request.target, feeds, conversion != "optimized"), outputs(models[name], feeds))
    assert error < TOLERANCE[conversion]
    assert not request.scratch.exists()
    if conversion in SIGN:
        assert operators(request.target)[SIGN[conversion]] > 0
        assert error > 0
    if conversion == "optimized":
        assert sum(operators(request.target).values()) < sum(operators(models[name]).values())


@pytest.mark.parametrize("conversion", ["float16", "float16_io"])
def test_float16_holds_no_float32_weight_and_changes_the_border_only_when_asked(models, tmp_path, conversion):
    request, _ = request_for(models["convolution"], conversion, tmp_path / "out")
    carry_out(request)
    model = onnx.load(request.target)
    onnx.checker.check_model(model, full_check=True)
    assert {each.data_type for each in model.graph.initializer} == {TensorProto.FLOAT16}
    border = {each.type.tensor_type.elem_type for each in (*model.graph.input, *model.graph.output)}
    assert border == {TensorProto.FLOAT if conversion == "float16" else TensorProto.FLOAT16}


def test_what_stays_in_float32_is_counted_and_gets_one_cast_a_value(models, tmp_path):
    request, feeds = request_for(models["wide"], "float16", tmp_path / "out")
    carry_out(request)
    model = onnx.load(request.target)
    onnx.checker.check_model(model, full_check=True)  # refuses a value made twice, and unsorted nodes
    # input and output; `a` into TopK and CumSum together, and what each of them makes
    assert (tmp_path / "out/notes.json").read_text() == (
        "[\"Conversion 'float16' added 5 Cast nodes and left 2 nodes in float32.\"]"
    )
    assert relative_error(outputs(request.target, feeds), outputs(models["wide"], feeds)) < 4e-3


def test_bfloat16_keeps_the_range_that_float16_lacks(tmp_path):
    wide = np.float32([[1e6, -3.0], [1e-12, 2.0]])
    nodes = [node("MatMul", "x W", "m", name="product"), node("Add", "m B", "y", name="add")]
    source = save(
        tmp_path / "m.onnx", nodes, {"x": [1, 2]}, {"y": [1, 2]}, {"W": wide, "B": np.float32([1e5, 0.5])}, 13
    )
    request, _ = request_for(source, "bfloat16", tmp_path / "out")
    request.scratch.mkdir()
    bfloat16(request)
    model = onnx.load(request.target)
    onnx.checker.check_model(model, full_check=True)
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    assert weights["W"].dtype == weights["B"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(weights["W"], wide.astype(ml_dtypes.bfloat16))
    found = ReferenceEvaluator(model).run(None, {"x": np.float32([[2.0, 1.0]])})[0]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[2.1e6, -3.5]], rtol=2**-7)  # 8 bits


def test_bfloat16_raises_the_opset_to_the_first_that_has_its_operators(models, tmp_path):
    request, _ = request_for(models["convolution"], "bfloat16", tmp_path / "out")
    request.scratch.mkdir()
    notes = bfloat16(request)
    model = onnx.load(request.target)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 22  # of Conv in bfloat16
    assert notes == ["Conversion 'bfloat16' added 2 Cast nodes and left 0 nodes in float32."]


def test_bfloat16_on_the_cpu_names_the_operator_that_is_missing(models, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    config = RunConfig(model=str(models["convolution"]), conversions=["bfloat16"])
    with pytest.raises(ModelError, match=r"to 'bfloat16' at node 'conv' \(Conv\), because .* leave it out\.$"):
        prepare(config, tmp_path)
    assert list(tmp_path.glob("cache/models/converted/*")) == []


@pytest.mark.parametrize(
    ("name", "conversion", "words"),
    [
        ("integers", "int8_dynamic", "no MatMul or Conv with a float32 weight"),
        ("integers", "int4_weights", "no MatMul with a constant weight"),
        ("integers", "int8_weights", "no MatMul with a constant weight"),
        ("wide", "fixed_shapes", "no open dimension"),
    ],
)
def test_nothing_to_convert_is_said(models, tmp_path, name, conversion, words):
    with pytest.raises(ModelError, match=words):
        carry_out(request_for(models[name], conversion, tmp_path / "out")[0])


def test_a_float16_model_has_nothing_to_convert(models, tmp_path):
    first, _ = request_for(models["convolution"], "float16_io", tmp_path / "out")
    carry_out(first)
    request = first.model_copy(update={"source": first.target, "folder": tmp_path / "again", "conversion": "float16"})
    request.folder.mkdir()
    with pytest.raises(ModelError, match="no float32 weight or input"):
        carry_out(request)


def test_fixed_shapes_fixes_what_follows_too(models, tmp_path):
    request, _ = request_for(models["encoder"], "fixed_shapes", tmp_path / "out")
    carry_out(request)
    graph = onnx.load(request.target).graph
    found = [[dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in (*graph.input, *graph.output)]
    assert found == [[2, 7], [2, 7], [2, 7, 64]]


@pytest.mark.parametrize("conversion", ["float16", "int8_static", "int4_weights", "fixed_shapes"])
def test_large_models_keep_their_weights_beside_the_graph(models, tmp_path, monkeypatch, conversion):
    """With the limit at no bytes, the source too lies in two files."""
    for module in ("files", "quantize", "shapes"):
        monkeypatch.setattr(f"workbench.capture.convert.{module}.MOST_IN_ONE_FILE_BYTES", 0)
    source = tmp_path / "source" / "encoder.onnx"
    source.parent.mkdir()
    onnx.save_model(
        onnx.load(models["encoder"]), source, save_as_external_data=True, location="weights", size_threshold=0
    )
    request, feeds = request_for(source, conversion, tmp_path / "out")
    carry_out(request)
    beside = files.external_files(onnx.load(request.target, load_external_data=False))
    assert [(request.folder / name).is_file() for name in beside] == [True]
    assert relative_error(outputs(request.target, feeds), outputs(models["encoder"], feeds)) < TOLERANCE[conversion]


@given(count=st.integers(1, 10), seed=st.integers(0, 2**32 - 1))
def test_sorting_puts_nodes_behind_what_they_read_and_keeps_a_sorted_order(count, seed):
    rng = np.random.default_rng(seed)
    reads = [np.flatnonzero(rng.random(index) < 0.4) for index in range(count)]  # node k reads some before it
    nodes = [helper.make_node("Sum", [f"v{k}" for k in reads[each]] or ["x"], [f"v{each}"]) for each in range(count)]
    graph = helper.make_graph([nodes[each] for each in rng.permutation(count)], "g", [], [])
    sort_nodes(graph)
    made = [int(each.output[0][1:]) for each in graph.node]
    assert sorted(made) == list(range(count))
    assert all(made.index(before) < made.index(after) for after in range(count) for before in reads[after])
    sort_nodes(graph)
    assert [int(each.output[0][1:]) for each in graph.node] == made


def test_failures_name_the_node_from_the_words_of_onnxruntime(tmp_path):
    mixed = [node("MatMul", "x W", "y", name="mixed")]
    path = save(tmp_path / "m.onnx", mixed, {"x": [2, 2]}, {"y": [2, 2]}, {"W": np.ones((2, 2), np.float16)})
    with pytest.raises(Exception, match="Type") as caught:
        outputs(path, {})
    said = str(failure("float16", caught.value))
    assert said.startswith("The model cannot be converted to 'float16' at node 'mixed' (MatMul), because Type Error")
    assert str(tmp_path) not in said
    assert "ONNXRuntimeError" not in said


def test_a_node_without_a_kernel_for_its_types_is_said_to_be_one():
    """ONNX Runtime's words for a bfloat16 BatchNormalization on CUDA."""
    raised = RuntimeError(
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: !node_provider_type.empty() was "
        "false. Provider type for BatchNormalization node with name 'n1' is not set."
    )
    said = str(failure("bfloat16", raised))
    assert "at node 'n1' (BatchNormalization), because no provider has a kernel of it for these types: " in said


def test_failures_name_the_node_that_a_python_tool_was_at():
    def tool():
        current = helper.make_node("Resize", ["x"], ["y"], name="enlarge")
        return {}[current.op_type]

    with pytest.raises(KeyError) as caught:
        tool()
    said = str(failure("int8_static", caught.value))
    assert (
        said
        == "The model cannot be converted to 'int8_static' at node 'enlarge' (Resize), because 'Resize': leave it out."
    )
