"""Every binding runs the same model on the same values."""

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from workbench.capture import binding
from workbench.capture.binding import bind
from workbench.capture.session import create_session
from workbench.config import RunConfig
from workbench.errors import FeedError, SourceError, UnsupportedModelError


def session_of(model):
    return create_session(model, RunConfig(model=str(model)), "cpu")


def bound(session, feeds, kind):
    return bind(session, feeds, RunConfig(model="m", binding=kind), "cpu", None)


def test_numpy_and_device_binding_give_equal_outputs(small_model):
    session = session_of(small_model)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 8), np.float32)}
    expected = session.run(None, feeds)
    assert np.array_equal(bound(session, feeds, "numpy").call(), expected)
    assert np.array_equal(bound(session, feeds, "pinned").call(), expected)  # without a GPU there is nothing to pin for
    taken = []
    run = session.run_with_iobinding

    def listening(io_binding, options):
        run(io_binding, options)
        taken.append(io_binding.copy_outputs_to_cpu())

    session.run_with_iobinding = listening
    call = bound(session, feeds, "device").call
    call()
    call()
    assert len(taken) == 2
    assert all(np.array_equal(outputs, expected) for outputs in taken)


def saved(folder, *inputs):
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    outputs = [helper.make_tensor_value_info(f"{name}_out", kind, shape) for name, kind, shape in inputs]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info(*given) for given in inputs], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


@pytest.mark.parametrize("kind", ["numpy", "device"])
def test_scalars_booleans_and_empty_arrays_can_be_bound(tmp_path, kind):
    path = saved(
        tmp_path,
        ("scalar", TensorProto.FLOAT, []),
        ("flag", TensorProto.BOOL, [2]),
        ("empty", TensorProto.FLOAT16, [0, 3]),
    )
    feeds = {
        "scalar": np.array(1.5, np.float32),
        "flag": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float16),
    }
    bound(session_of(path), feeds, kind).call()


def test_bfloat16_can_be_bound_to_the_device_only(tmp_path):
    session = session_of(saved(tmp_path, ("x", TensorProto.BFLOAT16, [4])))
    feeds = {"x": np.arange(4).astype(ml_dtypes.bfloat16)}
    bound(session, feeds, "device").call()
    for kind in ("numpy", "pinned"):
        with pytest.raises(FeedError, match=r"'x' is bfloat16.*use binding 'device'"):
            bound(session, feeds, kind)


def cast_to(folder, kind, opset=19):
    node = helper.make_node("Cast", ["x"], ["y"], to=kind)
    ends = [helper.make_tensor_value_info(name, each, [2]) for name, each in (("x", TensorProto.FLOAT), ("y", kind))]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    (folder / "cast.onnx").write_bytes(model.SerializeToString())
    return session_of(folder / "cast.onnx")


def test_an_output_in_bfloat16_needs_the_device_too(tmp_path):
    session, feeds = cast_to(tmp_path, TensorProto.BFLOAT16), {"x": np.float32([1.5, 2])}
    assert bound(session, feeds, "device").outputs()["y"].tolist() == [1.5, 2]
    with pytest.raises(FeedError, match=r"Output 'y' is bfloat16.*use binding 'device'"):
        bound(session, feeds, "numpy")


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.FLOAT8E4M3FN])
@pytest.mark.parametrize("where", ["numpy", "device"])
def test_what_is_no_number_can_be_timed_and_not_kept(tmp_path, kind, where):
    found = bound(cast_to(tmp_path, kind), {"x": np.float32([1.5, 2])}, where)
    found.call()
    with pytest.raises(UnsupportedModelError, match=r"Output 'y' is tensor\(.* no tensor of numbers"):
        found.outputs()


@pytest.mark.parametrize(("kind", "method"), [("numpy", "run"), ("device", "run_with_iobinding")])
def test_options_of_the_call_are_passed_on(small_model, monkeypatch, kind, method):
    session, seen = session_of(small_model), []
    monkeypatch.setattr(session, method, lambda *arguments: seen.append(arguments[-1]))
    options = ort.RunOptions()
    bind(session, {"x": np.zeros((1, 8), np.float32)}, RunConfig(model="m", binding=kind), "cpu", options).call()
    assert seen == [options]


def test_pinning_without_the_drivers_library_is_one_sentence(small_model, monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(binding.ctypes, "CDLL", missing)
    config = RunConfig(model="m", binding="pinned")
    with pytest.raises(SourceError, match=r"libcuda\.so\.1: use binding 'numpy'"):
        bind(session_of(small_model), {"x": np.zeros((1, 8), np.float32)}, config, "cuda", None)
