"""Parts cut out of a model: they compute what the whole model computes there, on the values that reach them."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from workbench import zoo
from workbench.capture import part as module
from workbench.capture import tensors
from workbench.capture.feeds import load_feeds, save_feeds
from workbench.capture.part import PART_FILE, WEIGHTS_FILE, cut_part
from workbench.capture.subgraph import Wiring, extract
from workbench.config import Part
from workbench.errors import (
    ConfigError,
    FeedError,
    ModelError,
    OutOfMemoryError,
    UnsupportedModelError,
    WorkerTimeoutError,
)

F32, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def weight(name, *shape, seed=0):
    return numpy_helper.from_array(np.random.default_rng(seed).standard_normal(shape, np.float32), name)


def saved(folder, nodes, inputs, outputs, held=(), **options):
    """A model file; inputs are (name, type, shape) and outputs names of float32 tensors."""
    values = [helper.make_tensor_value_info(*each) for each in inputs]
    results = [helper.make_tensor_value_info(name, F32, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", values, results, held)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    model = helper.make_model(graph, opset_imports=imports, **{"ir_version": 10, **options})
    (folder / "whole.onnx").write_bytes(model.SerializeToString())
    return folder / "whole.onnx"


@pytest.fixture
def child():
    """Have a child process compute the values that reach the part, as is always done outside these tests."""


@pytest.fixture(autouse=True)
def quickly(request, monkeypatch):
    """Without `child`, compute them in this process: what crosses to a child and back does not depend on the graph."""

    def here(module, arguments, **limits):
        model, weights_folder, feeds, values = map(Path, arguments)
        save_feeds(values, tensors._compute(model, weights_folder, load_feeds(feeds)))

    if "child" not in request.fixturenames:
        monkeypatch.setattr(tensors, "run_child", here)


@pytest.fixture
def residual(tmp_path):
    """x → c1 → r1 → (c2 → add ← r1) → mean; a symbolic batch, and c2 has no name."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"]),
        helper.make_node("Add", ["c2", "r1"], ["sum"], "add"),
        helper.make_node("GlobalAveragePool", ["sum"], ["y"], "mean"),
    ]
    held = [weight("w1", 4, 3, 3, 3), weight("w2", 4, 4, 1, 1, seed=1)]
    return saved(tmp_path, nodes, [("x", F32, ["n", 3, "h", "w"])], ["y"], held)


IMAGE = {"x": np.random.default_rng(7).standard_normal((2, 3, 8, 8), np.float32)}


def cut(path, feeds, timeout_s=60, **part):
    return cut_part(path, Part(**part), feeds, path.parent, timeout_s=timeout_s)


def outputs_of(path, feeds, names=None):
    """What ONNX Runtime itself computes, with the named tensors made outputs of the model."""
    model = onnx.load(path)
    if names:
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def refusal_of(kind, path, feeds, **part):
    with pytest.raises(kind) as refusal:
        cut(path, feeds, **part)
    text = str(refusal.value)
    assert type(refusal.value) is kind
    assert "\n" not in text
    assert text.endswith((".", "?"))
    return text


def test_a_node_runs_alone_with_its_real_shapes_and_values(child, residual):
    path, feeds, notes = cut(residual, IMAGE, node="Conv#1")
    assert path == residual.parent / PART_FILE
    part = onnx.load(path)
    onnx.checker.check_model(part, full_check=True)
    assert [node.op_type for node in part.graph.node] == ["Conv"]
    assert [value.name for value in part.graph.input] == ["r1"]  # the weight is no input
    assert feeds["r1"].shape == (2, 4, 8, 8)
    reaching, result = outputs_of(residual, IMAGE, ["r1", "c2"])
    np.testing.assert_allclose(feeds["r1"], reaching, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(outputs_of(path, feeds)[0], result, rtol=1e-4, atol=1e-5)
    assert "Conv#1" in notes[-1]
    assert "r1 float32[2, 4, 8, 8]" in notes[-1]


@pytest.mark.parametrize(
    ("declared", "expected"), [(["n", 3, 8, 8], [None, 4, 8, 8]), ([2, 3, 8, 8], [2, 4, 8, 8]), (None, [None] * 4)]
)
def test_a_dimension_is_fixed_in_the_part_where_it_is_in_the_whole_model(tmp_path, declared, expected):
    """Else ONNX Runtime would compute shapes ahead in the part that it computes in every call of the whole model."""
    conv = helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1])
    nodes = [conv, helper.make_node("Relu", ["c"], ["y"])]
    path = saved(tmp_path, nodes, [("x", F32, declared)], ["y"], [weight("w", 4, 3, 3, 3)])
    part, feeds, _ = cut(path, IMAGE, node="Relu#0")
    assert feeds["c"].shape == (2, 4, 8, 8)
    graph = onnx.load(part).graph
    for value in (*graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim
        assert [dim.dim_value if dim.HasField("dim_value") else None for dim in dims] == expected
    outputs_of(part, {"c": feeds["c"][:1, :, :8, :8]} if expected[0] is None else feeds)


def test_a_block_computes_what_the_whole_model_computes_there(residual):
    path, feeds, notes = cut(residual, IMAGE, inputs=["c1"], outputs=["sum", "r1"])
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Relu", "Conv", "Add"]
    expected = outputs_of(residual, IMAGE, ["sum", "r1"])
    for got, wanted in zip(outputs_of(path, feeds), expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert "3 nodes" in notes[-1]


def test_inputs_of_the_model_need_no_run(residual, monkeypatch):
    def never(*_arguments, **_options):
        raise AssertionError

    monkeypatch.setattr(module, "output_values", never)
    path, feeds, _ = cut(residual, IMAGE, inputs=["x"], outputs=["r1"])
    assert feeds.keys() == {"x"}
    assert len(onnx.load(path).graph.node) == 2


def test_a_plain_graph_is_cut_as_onnx_itself_cuts_it():
    """`onnx.utils.Extractor` is the reference; it wants a type for every tensor at the border."""
    model = zoo.build("encoder", layers=1, hidden=32, heads=2)
    wiring = Wiring(model.graph)
    reference = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    cut_nodes = 0
    for index, node in enumerate(wiring.nodes):
        inputs = [name for name in wiring.reads[index] if name in wiring.dynamic]
        if inputs:
            cut_nodes += 1
            block = wiring.between(inputs, node.output)
            ours = extract(model, block.nodes, [], []).graph
            theirs = reference.extract_model(inputs, list(node.output)).graph
            assert list(ours.node) == list(theirs.node)
            assert list(ours.initializer) == list(theirs.initializer)
    assert cut_nodes > 10


@st.composite
def wired(draw):
    """A graph of sums over inputs i0 to i2 and weights w0 and w1, with bounds for a block in it."""
    tensors, nodes = ["i0", "i1", "i2", "w0", "w1"], []
    for index in range(draw(st.integers(1, 8))):
        reads = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3))
        nodes.append(helper.make_node("Sum", reads, [f"t{index}"]))
        tensors.append(f"t{index}")
    values = [helper.make_tensor_value_info(name, F32, [1]) for name in tensors[:3]]
    graph = helper.make_graph(nodes, "g", values, [], [weight(name, 1) for name in tensors[3:5]])
    inputs = draw(st.sets(st.sampled_from([name for name in tensors if name[0] != "w"]), min_size=1))
    outputs = draw(st.sets(st.sampled_from(tensors[5:]), min_size=1)) - inputs
    return graph, inputs, outputs


@given(wired())
def test_a_block_is_what_the_outputs_need_and_no_more(drawn):
    graph, inputs, outputs = drawn
    makers = {node.output[0]: node for node in graph.node}

    def needs(name):
        """Every tensor on the way up from `name`, as far as the inputs of the block."""
        if name in inputs or name not in makers:
            return {name}
        return {name}.union(*map(needs, makers[name].input))

    needed = set().union(*map(needs, outputs))
    block = Wiring(graph).between(inputs, outputs)
    closed = not any(name[0] == "i" and name not in inputs for name in needed)
    assert closed == (not block.bypasses)
    if closed:
        assert {graph.node[index].output[0] for index in block.nodes} == needed & makers.keys() - inputs
        assert block.nodes == sorted(block.nodes)
        assert block.inputs == needed & inputs
    else:  # naming what bypasses the inputs as inputs closes the block
        assert not Wiring(graph).between({*inputs, *block.bypasses}, outputs).bypasses


def test_only_what_follows_the_border_is_run(tmp_path):
    """The last node cannot run on any provider, and lies after the part."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"], "exp"),
        helper.make_node("Neg", ["e"], ["m"], "neg"),
        helper.make_node("Frobnicate", ["m"], ["y"], "far", domain="com.acme"),
    ]
    path = saved(tmp_path, nodes, [("x", F32, [2])], ["y"])
    x = np.array([0, 1], np.float32)
    part, feeds, _ = cut(path, {"x": x}, node="neg")
    np.testing.assert_allclose(outputs_of(part, feeds)[0], -np.exp(x), rtol=1e-6)


def test_what_depends_on_no_input_stays_inside(tmp_path):
    """A quantised weight, its scale from a Constant node, and a transposition of both."""
    scale = helper.make_node("Constant", [], ["scale"], value=numpy_helper.from_array(np.float32(0.5)))
    nodes = [
        scale,
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], "dequantise"),
        helper.make_node("Transpose", ["w"], ["wt"], "transpose", perm=[1, 0]),
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "wt"], ["y"], "product"),
    ]
    held = [numpy_helper.from_array(np.arange(6, dtype=np.int8).reshape(2, 3), "q")]
    path = saved(tmp_path, nodes, [("x", F32, ["n", 3])], ["y"], held)
    x = {"x": np.ones((4, 3), np.float32)}
    part, feeds, _ = cut(path, x, node="product")
    assert feeds.keys() == {"r"}
    assert [node.op_type for node in onnx.load(part).graph.node][-1] == "MatMul"
    np.testing.assert_array_equal(outputs_of(part, feeds)[0], outputs_of(path, x)[0])
    assert "while it loads" in refusal_of(ModelError, path, x, node="transpose")
    _, feeds, notes = cut(path, x, inputs=["wt", "r"], outputs=["y"])
    assert feeds.keys() == {"r"}
    assert "'wt' is constant" in notes[0]
    assert "depends on an input" in refusal_of(ConfigError, path, x, inputs=["wt"], outputs=["y"])
    assert "not computed" in refusal_of(ConfigError, path, x, inputs=["x"], outputs=["wt"])


@pytest.fixture
def branching(tmp_path):
    """An If whose branches read a value, a weight and a Constant from outside; its node `inner` has a name."""
    two = helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2)))
    result = [helper.make_tensor_value_info("b", F32, None)]
    then = helper.make_graph(
        [helper.make_node("MatMul", ["r", "w"], ["a"], "inner"), helper.make_node("Mul", ["a", "two"], ["b"])],
        "then", [], result,
    )  # fmt: skip
    other = helper.make_graph([helper.make_node("Neg", ["r"], ["b"])], "else", [], result)
    nodes = [
        two,
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("Not", ["flag"], ["turned"], "not"),
        helper.make_node("If", ["turned"], ["y"], "choice", then_branch=then, else_branch=other),
    ]
    return saved(tmp_path, nodes, [("x", F32, ["n", 3]), ("flag", BOOL, [])], ["y"], [weight("w", 3, 3)])


def test_a_node_with_branches_takes_along_what_they_read_from_outside(branching):
    feed = {"x": np.ones((2, 3), np.float32), "flag": np.array(False)}
    part, feeds, _ = cut(branching, feed, node="choice")
    assert feeds.keys() == {"turned", "r"}
    assert feeds["turned"].dtype == np.bool_
    np.testing.assert_array_equal(outputs_of(part, feeds)[0], outputs_of(branching, feed)[0])


def test_what_lies_inside_a_branch_cannot_be_cut(branching):
    feed = {"x": np.ones((2, 3), np.float32), "flag": np.array(False)}
    assert "inside the subgraph" in refusal_of(ConfigError, branching, feed, node="inner")
    assert "inside the subgraph" in refusal_of(ConfigError, branching, feed, inputs=["x"], outputs=["a"])


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"inputs": ["c2"], "outputs": ["sum"]}, "also reads r1,"),
        ({"inputs": ["x", "c1"], "outputs": ["r1"]}, "Input 'x'"),
        ({"inputs": ["c2", "r1"], "outputs": ["sum", "c1"]}, "Output 'c1'"),
        ({"inputs": ["c1"], "outputs": ["c1"]}, "Output 'c1'"),
        ({"inputs": ["c1"], "outputs": ["w1"]}, "Output 'w1'"),
        ({"inputs": ["c1"], "outputs": ["summ"]}, "did you mean 'sum'?"),
        ({"inputs": ["elsewhere"], "outputs": ["sum"]}, "no tensor 'elsewhere'"),
    ],
)
def test_bounds_that_do_not_close_are_refused(residual, bounds, said):
    assert said in refusal_of(ConfigError, residual, IMAGE, **bounds)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("conv1_nchwc", "nearest are 'conv1'"),
        ("fused relu1", "nearest are 'relu1'"),
        ("Conv#2", "Conv#0 to Conv#1"),
        ("Convv", "'Conv#1'"),
        ("§§§", "OpType#k"),
    ],
)
def test_a_name_that_is_not_in_the_file_gets_the_nearest(residual, asked, said):
    assert said in refusal_of(ConfigError, residual, IMAGE, node=asked)


def test_a_name_that_two_nodes_share_is_no_address(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["r"], "same"), helper.make_node("Tanh", ["r"], ["y"], "same")]
    path = saved(tmp_path, nodes, [("x", F32, [2])], ["y"])
    x = {"x": np.array([-1, 1], np.float32)}
    assert "Relu#0, Tanh#0" in refusal_of(ConfigError, path, x, node="same")
    part, feeds, _ = cut(path, x, node="Tanh#0")
    np.testing.assert_allclose(outputs_of(part, feeds)[0], np.tanh([0, 1]), rtol=1e-6)


def test_optional_inputs_and_outputs_that_nobody_reads_are_left_out(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Clip", ["r", "", "top"], ["c"], "clip"),
        helper.make_node("MaxPool", ["c"], ["p", "indices"], "pool", kernel_shape=[2]),
        helper.make_node("Neg", ["p"], ["y"]),
    ]
    path = saved(tmp_path, nodes, [("x", F32, [1, 1, 4])], ["y"], [numpy_helper.from_array(np.float32(2), "top")])
    x = {"x": np.array([[[1, 5, 3, 0]]], np.float32)}
    part, feeds, _ = cut(path, x, node="clip")
    assert feeds.keys() == {"r"}
    np.testing.assert_array_equal(outputs_of(part, feeds)[0], [[[1, 2, 2, 0]]])
    part, _, _ = cut(path, x, node="pool")
    assert [value.name for value in onnx.load(part).graph.output] == ["p"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int64", "bool"])
def test_each_type_reaches_the_part(tmp_path, dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype))
    nodes = [helper.make_node("Cast", ["x"], ["t"], to=kind), helper.make_node("Cast", ["t"], ["y"], "back", to=F32)]
    path = saved(tmp_path, nodes, [("x", F32, [3])], ["y"])
    part, feeds, _ = cut(path, {"x": np.array([0, 1, 3], np.float32)}, node="back")
    assert feeds["t"].dtype.name == dtype
    assert feeds["t"].astype(np.float32).tolist() == ([0, 1, 1] if dtype == "bool" else [0, 1, 3])
    assert onnx.load(part).graph.input[0].type.tensor_type.elem_type == kind


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([helper.make_node("Cast", ["x"], ["t"], to=TensorProto.STRING)], "tensor(string)"),
        ([helper.make_node("Cast", ["x"], ["t"], to=TensorProto.FLOAT8E4M3FN)], "tensor(float8e4m3fn)"),
        ([helper.make_node("SequenceConstruct", ["x"], ["t"])], "seq(tensor(float))"),
    ],
)
def test_a_type_that_cannot_be_fed_is_named(tmp_path, nodes, said):
    last = helper.make_node("SequenceAt", ["t", "i"], ["y"], "last") if "seq" in said else None
    last = last or helper.make_node("Cast", ["t"], ["y"], "last", to=F32)
    graph = helper.make_graph(
        [*nodes, last], "g", [helper.make_tensor_value_info("x", F32, [2])],
        [helper.make_tensor_value_info("y", F32, None)], [numpy_helper.from_array(np.int64(0), "i")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10), tmp_path / "m.onnx")
    assert said in refusal_of(ModelError, tmp_path / "m.onnx", {"x": np.ones(2, np.float32)}, node="last")


@pytest.mark.parametrize("inline_bytes", [1 << 30, 1 << 10])
def test_weights_outside_the_file_come_along(tmp_path, monkeypatch, inline_bytes):
    """Both for the values that reach the part and for the part itself, inside its file or beside it."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["t"], "first"),
        helper.make_node("MatMul", ["t", "w2"], ["y"], "second"),
    ]
    held = [weight("w1", 8, 64), weight("w2", 64, 16, seed=1)]
    whole = saved(tmp_path, nodes, [("x", F32, ["n", 8])], ["y"], held)
    x = {"x": np.ones((2, 8), np.float32)}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    path = Path("elsewhere/m.onnx")
    onnx.save_model(onnx.load(whole), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    monkeypatch.setattr(module, "_INLINE_BYTES", inline_bytes)
    part, feeds, _ = cut_part(path, Part(node="second"), x, tmp_path, timeout_s=60)
    np.testing.assert_allclose(feeds["t"], outputs_of(whole, x, ["t"])[0], rtol=1e-4, atol=1e-5)
    result = ort.InferenceSession(part, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    np.testing.assert_allclose(result, outputs_of(whole, x)[0], rtol=1e-4, atol=1e-5)
    beside = {WEIGHTS_FILE} if inline_bytes < 64 * 16 * 4 else set()
    assert {file.name for file in tmp_path.iterdir()} == {"whole.onnx", "elsewhere", PART_FILE, *beside}


def test_a_file_of_an_old_format_is_cut(tmp_path):
    """Before IR version 4, initializers are inputs as well."""
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"], "product")]
    path = saved(tmp_path, nodes, [("x", F32, [2, 3]), ("w", F32, [3, 3])], ["y"], [weight("w", 3, 3)], ir_version=3)
    x = {"x": np.ones((2, 3), np.float32)}
    part, feeds, _ = cut(path, x, node="product")
    assert feeds.keys() == {"r"}
    np.testing.assert_array_equal(outputs_of(part, feeds)[0], outputs_of(path, x)[0])


def test_a_function_of_the_model_comes_along(tmp_path):
    body = [helper.make_node("Mul", ["a", "a"], ["s"]), helper.make_node("Neg", ["s"], ["b"])]
    function = helper.make_function("com.acme", "NegSquare", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("NegSquare", ["e"], ["y"], "square", domain="com.acme"),
    ]
    path = saved(tmp_path, nodes, [("x", F32, [2])], ["y"], functions=[function])
    part, feeds, _ = cut(path, {"x": np.array([0, 1], np.float32)}, node="square")
    np.testing.assert_allclose(outputs_of(part, feeds)[0], -np.exp(np.array([0, 2])), rtol=1e-6)


def test_what_stops_the_run_before_the_part_is_one_sentence(tmp_path):
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["f"], domain="com.acme"),
        helper.make_node("Relu", ["f"], ["y"], "relu"),
    ]
    path = saved(tmp_path, nodes, [("x", F32, [2])], ["y"])
    said = refusal_of(UnsupportedModelError, path, {"x": np.ones(2, np.float32)}, node="relu")
    assert "com.acme:Frobnicate" in said
    assert "on the CPU" in said
    assert "'x'" in refusal_of(FeedError, path, {}, node="relu")


def test_a_wrong_feed_and_a_size_beyond_memory_keep_their_class(child, tmp_path):
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Relu", ["c"], ["y"], "relu")]
    path = saved(tmp_path, nodes, [("s", I64, [1])], ["y"])
    assert str(2**45) in refusal_of(OutOfMemoryError, path, {"s": np.array([2**43])}, node="relu")
    assert "tensor(float)" in refusal_of(FeedError, path, {"s": np.ones(1, np.float32)}, node="relu")


def test_a_run_that_takes_too_long_is_ended(child, residual):
    with pytest.raises(WorkerTimeoutError, match="raise --timeout"):
        cut(residual, IMAGE, timeout_s=0.01, node="add")
    assert not (residual.parent / PART_FILE).exists()
    assert [file.name for file in residual.parent.iterdir()] == [residual.name]
