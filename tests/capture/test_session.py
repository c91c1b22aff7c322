"""Sessions do what the configuration says; what ONNX Runtime says of a failure becomes one sentence."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from workbench.capture import machine, tensorrt
from workbench.capture import session as module
from workbench.capture.session import create_session, explain, run_options
from workbench.config import RunConfig
from workbench.errors import (
    CpuFallbackError,
    FeedError,
    ModelError,
    OutOfMemoryError,
    SourceError,
    UnsupportedModelError,
    WorkbenchError,
    WorkerError,
)

F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def saved(folder, nodes, inputs, *, opset=17, ir_version=10, domains=(), held=()):
    output = helper.make_tensor_value_info("y", F32, None)
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info(*i) for i in inputs], [output], held)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    return folder / "m.onnx"


def session_of(path, **options):
    return create_session(path, RunConfig(model=str(path), provider="cpu", **options), "cpu")


def refusal_of(kind, call, *arguments, **options):
    with pytest.raises(kind) as refusal:
        call(*arguments, **options)
    text = str(refusal.value)
    assert type(refusal.value) is kind
    assert "\n" not in text
    assert "/onnxruntime_src" not in text
    assert "[ONNXRuntimeError]" not in text
    return text


X = ("x", F32, [2, 3])


@pytest.mark.parametrize(
    ("nodes", "extra", "said"),
    [
        ([helper.make_node("Frobnicate", ["x"], ["y"])], {}, "no implementation of Frobnicate "),
        (
            [helper.make_node("Frobnicate", ["x"], ["y"], domain="com.acme")],
            {"domains": ["com.acme"]},
            "no implementation of com.acme:Frobnicate ",
        ),
    ],
)
def test_an_operator_that_onnx_runtime_lacks_is_named(tmp_path, nodes, extra, said):
    path = saved(tmp_path, nodes, [X], **extra)
    assert said in refusal_of(UnsupportedModelError, session_of, path)


@pytest.mark.parametrize(
    ("nodes", "extra", "said"),
    [
        ([helper.make_node("Relu", ["x"], ["y"])], {"opset": 99}, "Opset 99"),
        ([helper.make_node("Relu", ["x"], ["y"])], {"ir_version": 99}, "IR version: 99"),
        ([helper.make_node("And", ["x", "x"], ["y"])], {}, "tensor(float)"),
        ([helper.make_node("Add", ["x", "nowhere"], ["y"])], {}, "'nowhere'"),
        ([helper.make_node("F", ["x"], ["y"], domain="com.acme")], {}, "com.acme"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(tmp_path, nodes, extra, said):
    assert said in refusal_of(ModelError, session_of, saved(tmp_path, nodes, [X], **extra))


def call_of(path, feeds):
    session = session_of(path)

    def call():
        try:
            session.run(None, feeds)
        except Exception as error:
            raise explain(error) from None

    return call


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        (np.ones((2, 4), np.float32), "Got: 4 Expected: 3"),
        (np.ones(3, np.float32), "rank"),
        (np.ones((2, 3)), "tensor(double)"),
    ],
)
def test_an_input_that_does_not_fit_is_a_feed_error(tmp_path, feed, said):
    path = saved(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], [X])
    assert said in refusal_of(FeedError, call_of(path, {"x": feed}))


def test_sizes_that_do_not_agree_inside_the_model_are_a_feed_error(tmp_path):
    both = [("x", F32, ["a", "b"]), ("z", F32, ["c", "d"])]
    feeds = {"x": np.ones((2, 3), np.float32), "z": np.ones((4, 3), np.float32)}
    for op_type in ("MatMul", "Add"):
        path = saved(tmp_path, [helper.make_node(op_type, ["x", "z"], ["y"])], both)
        assert op_type in refusal_of(FeedError, call_of(path, feeds))
    target = numpy_helper.from_array(np.array([7, 7]), "target")
    path = saved(tmp_path, [helper.make_node("Reshape", ["x", "target"], ["y"])], both[:1], held=[target])
    assert "requested shape:{7,7}" in refusal_of(FeedError, call_of(path, {"x": feeds["x"]}))


def test_an_allocation_that_fails_is_out_of_memory(tmp_path):
    path = saved(tmp_path, [helper.make_node("ConstantOfShape", ["s"], ["y"])], [("s", I64, [1])])
    assert str(2**45) in refusal_of(OutOfMemoryError, call_of(path, {"s": np.array([2**43])}))


@pytest.mark.parametrize(
    ("said", "requested"),
    [
        ("AllocateRawInternal Failed to allocate memory for requested buffer of size 4294967296", "4294967296"),
        ("BFCArena::Extend Available memory of 1048576 is smaller than requested bytes of 268435456", "268435456"),
    ],
)
def test_the_allocation_that_failed_is_named(said, requested):
    explained = explain(RuntimeError(f"[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {said}"))
    assert isinstance(explained, OutOfMemoryError)
    assert f"an allocation of {requested} bytes failed" in str(explained)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), OutOfMemoryError),
        (RuntimeError("std::bad_alloc"), OutOfMemoryError),
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=h"), OutOfMemoryError),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED; CUDA_ERROR_OUT_OF_MEMORY"), OutOfMemoryError),
        (RuntimeError("NOT_IMPLEMENTED : Could not find an implementation for Conv(11) node"), UnsupportedModelError),
        (RuntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Failed to load"), ModelError),
        (RuntimeError("CUDA failure 700: an illegal memory access was encountered"), WorkerError),
    ],
)
def test_each_message_has_its_kind(error, kind):
    assert type(explain(error)) is kind


def test_what_is_explained_already_stays_as_it_is():
    error = FeedError("as it is")
    assert explain(error) is error


def test_an_explanation_is_short_and_keeps_its_cause():
    explained = explain(RuntimeError("cause " + "x" * 10_000 + "\nand more"))
    assert isinstance(explained, WorkbenchError)
    assert len(str(explained)) < 500
    assert "RuntimeError: cause" in str(explained)


def test_session_options_are_in_force(small_model):
    given = {
        "graph_optimization_level": "basic",
        "execution_mode": "parallel",
        "enable_mem_pattern": False,
        "entries": {"session.disable_prepacking": "1"},
    }
    options = session_of(small_model, session=given, intra_op_threads=1, inter_op_threads=2).get_session_options()
    assert options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert options.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert options.enable_mem_pattern is False
    assert options.get_session_config_entry("session.disable_prepacking") == "1"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 2)


def test_options_that_are_not_set_are_onnx_runtimes_own(small_model):
    ours = session_of(small_model).get_session_options()
    plain = ort.SessionOptions()
    for name in ("execution_mode", "enable_mem_pattern", "enable_mem_reuse", "intra_op_num_threads"):
        assert getattr(ours, name) == getattr(plain, name)


def test_the_profiled_session_also_writes_its_optimised_graph(small_model, tmp_path):
    config = RunConfig(model=str(small_model))
    session = create_session(
        small_model, config, "cpu", profile_prefix=tmp_path / "ort", optimized_model=tmp_path / "optimized.onnx"
    )
    session.run(None, {"x": np.ones((1, 8), np.float32)})
    assert session.end_profiling().startswith(str(tmp_path / "ort"))
    assert (tmp_path / "optimized.onnx").is_file()


def test_run_options_are_made_only_when_something_is_set(small_model):
    assert run_options(RunConfig(model="m")) is None
    given = {"entries": {"gpu_graph_id": "7"}, "only_execute_path_to_fetches": True}
    options = run_options(RunConfig(model="m", run=given))
    assert options.only_execute_path_to_fetches is True
    assert options.get_run_config_entry("gpu_graph_id") == "7"


def test_a_silent_fall_back_to_the_cpu_names_the_library_that_is_missing(small_model, monkeypatch):
    class Cpu:
        def __init__(self, *arguments, **options):
            pass

        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(ort, "InferenceSession", Cpu)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(module, "missing_cuda_libraries", lambda: ["libcudnn.so.9"])
    config = RunConfig(model=str(small_model))
    assert "because libcudnn.so.9 did not load" in refusal_of(
        CpuFallbackError, create_session, small_model, config, "cuda"
    )
    monkeypatch.setattr(module, "missing_cuda_libraries", list)
    assert "CUDA provider did not start" in refusal_of(CpuFallbackError, create_session, small_model, config, "cuda")


def test_a_package_without_cuda_is_named(small_model, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    config = RunConfig(model=str(small_model))
    said = refusal_of(CpuFallbackError, create_session, small_model, config, "cuda")
    assert "install onnxruntime-gpu" in said


class Recorded:
    """In the place of a session: keeps what it was made with, and says that these providers are in force."""

    def __init__(self, in_force):
        self.in_force = in_force

    def __call__(self, _model, _options, *, providers, enable_fallback):
        assert not enable_fallback
        self.asked = providers
        return self

    def get_providers(self):
        return self.in_force


ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def tensorrt_session(monkeypatch, in_force, **options):
    made = Recorded(in_force)
    monkeypatch.setattr(ort, "InferenceSession", made)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ALL)
    monkeypatch.setattr(module, "tensorrt_problem", str)
    create_session("m.onnx", RunConfig(model="m.onnx", provider="tensorrt", **options), "cuda")
    return made.asked


def test_tensorrt_comes_before_cuda_on_the_same_device(monkeypatch):
    asked = tensorrt_session(
        monkeypatch, ALL, cuda={"device_id": 1, "use_tf32": False}, tensorrt={"trt_fp16_enable": True}
    )
    assert asked == [
        ("TensorrtExecutionProvider", {"trt_fp16_enable": "1", "device_id": "1"}),
        ("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"}),
        "CPUExecutionProvider",
    ]


def test_a_graph_is_captured_by_the_provider_that_runs_the_nodes(monkeypatch):
    own, cuda, _ = tensorrt_session(monkeypatch, ALL, cuda_graph=True, binding="device")
    assert own[1]["trt_cuda_graph_enable"] == "1"
    assert "enable_cuda_graph" not in cuda[1]


def test_tensorrt_left_out_in_silence_is_an_error(monkeypatch):
    with pytest.raises(SourceError, match="workbench doctor"):
        tensorrt_session(monkeypatch, ALL[1:])
    with pytest.raises(CpuFallbackError):
        tensorrt_session(monkeypatch, ALL[2:])


@pytest.mark.skipif(machine.gpu_present(), reason="TensorRT may be installed on a machine with a GPU")
@pytest.mark.skipif("TensorrtExecutionProvider" not in ort.get_available_providers(), reason="built without TensorRT")
def test_missing_tensorrt_is_named_with_the_package_that_fits(small_model):
    said = refusal_of(
        SourceError, create_session, small_model, RunConfig(model=str(small_model), provider="tensorrt"), "cuda"
    )
    assert "libnvinfer.so.10" in said
    assert "tensorrt-cu13>=10,<11" in said


def test_tensorrt_is_loaded_from_its_package_the_core_first(tmp_path, monkeypatch):
    package = tmp_path / "tensorrt_libs"
    package.mkdir()
    for name in ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"):
        (package / name).touch()
    (package / "__init__.py").write_text("raise ImportError('not to be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    loaded = []
    monkeypatch.setattr(tensorrt.ctypes, "CDLL", lambda path: loaded.append(Path(path).name))
    tensorrt._preload_tensorrt(["libcublas.so.13", "libnvonnxparser.so.10", "libnvinfer.so.10"])
    assert loaded == ["libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10"]


def test_an_onnx_runtime_without_tensorrt_says_which_package_has_it(monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ALL[1:])
    assert "install onnxruntime-gpu" in tensorrt.tensorrt_problem()
