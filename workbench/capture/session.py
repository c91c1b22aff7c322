"""An ONNX Runtime session that does what the configuration says, or an error that says why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.capture.libraries import missing_cuda_libraries
from workbench.capture.tensorrt import TENSORRT, tensorrt_problem
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

if TYPE_CHECKING:
    import onnxruntime as ort

CUDA: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
_LEVELS: Final = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
# ONNX Runtime refuses to save a model above 2 GB in one file, and the weights are not needed: they go to a side file.
_WEIGHTS_ASIDE: Final = {
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
}


def create_session(
    model: Path,
    config: RunConfig,
    device: str,
    *,
    profile_prefix: Path | None = None,
    optimized_model: Path | None = None,
) -> ort.InferenceSession:
    """A session on `device` (`cuda` or `cpu`). `profile_prefix` turns the profiler on.

    With provider `tensorrt`, TensorRT comes before CUDA, which takes the nodes that TensorRT leaves. Raises
    `CpuFallbackError` when ONNX Runtime left the GPU in silence, `SourceError` when TensorRT is not there,
    `UnsupportedModelError`, `ModelError`, `OutOfMemoryError`.
    """
    import onnxruntime as ort

    options = _session_options(config, profile_prefix, optimized_model)
    providers = _providers(config) if device == "cuda" else [CPU]
    try:
        # Without this, ONNX Runtime answers any failure, be it a full device, with a session on the next provider.
        session = ort.InferenceSession(str(model), options, providers=providers, enable_fallback=False)
    except Exception as error:
        raise explain(error) from None
    in_force = session.get_providers()
    if device == "cuda" and CUDA not in in_force:
        missing = missing_cuda_libraries()
        cause = f"{', '.join(missing)} did not load" if missing else "the CUDA provider did not start"
        raise CpuFallbackError(
            f"ONNX Runtime fell back to the CPU because {cause}: install them with pip install 'ort-workbench[gpu]', "
            "or accept the CPU with --allow-cpu."
        )
    if device == "cuda" and config.provider == "tensorrt" and TENSORRT not in in_force:
        raise SourceError(
            "ONNX Runtime left TensorRT out because its provider did not start: run `workbench doctor`, or use "
            "provider 'cuda'."
        )
    return session


def _providers(config: RunConfig) -> list[Any]:
    """The providers of a session on the GPU, the first choice first; raises when one that is asked for is not there."""
    import onnxruntime as ort

    if CUDA not in ort.get_available_providers():
        raise CpuFallbackError(
            f"This onnxruntime {ort.__version__} has no CUDA provider: remove it and install onnxruntime-gpu."
        )
    cuda = config.cuda.to_provider_options()
    if config.provider != "tensorrt":
        return [(CUDA, {**cuda, **({"enable_cuda_graph": "1"} if config.cuda_graph else {})}), CPU]
    if problem := tensorrt_problem():
        raise SourceError(f"Provider 'tensorrt' cannot be used: {problem}, or use provider 'cuda'.")
    # ONNX Runtime captures a graph only of nodes that one provider runs, here TensorRT
    graph = {"trt_cuda_graph_enable": "1"} if config.cuda_graph else {}
    own = {**config.tensorrt.to_provider_options(), **graph, "device_id": cuda["device_id"]}
    return [(TENSORRT, own), (CUDA, cuda), CPU]


def _session_options(config: RunConfig, profile_prefix: Path | None, optimized: Path | None) -> ort.SessionOptions:
    import onnxruntime as ort

    given = config.session
    options = ort.SessionOptions()
    options.log_severity_level = given.log_severity_level
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[given.graph_optimization_level])
    if given.execution_mode:
        options.execution_mode = getattr(ort.ExecutionMode, f"ORT_{given.execution_mode.upper()}")
    if given.execution_order:
        options.execution_order = getattr(ort.ExecutionOrder, given.execution_order.upper())
    for name in ("enable_mem_pattern", "enable_mem_reuse", "enable_cpu_mem_arena", "use_deterministic_compute"):
        if getattr(given, name) is not None:
            setattr(options, name, getattr(given, name))
    if config.intra_op_threads:
        options.intra_op_num_threads = config.intra_op_threads
    if config.inter_op_threads:
        options.inter_op_num_threads = config.inter_op_threads
    entries = dict(given.entries)
    if optimized:
        options.optimized_model_filepath = str(optimized)
        entries = {**_WEIGHTS_ASIDE, **entries}
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    if profile_prefix:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    return options


def run_options(config: RunConfig) -> ort.RunOptions | None:
    """The options of each call, or None when nothing was set."""
    import onnxruntime as ort

    given = config.run
    if not given.entries and given.only_execute_path_to_fetches is None:
        return None
    options = ort.RunOptions()
    if given.only_execute_path_to_fetches is not None:
        options.only_execute_path_to_fetches = given.only_execute_path_to_fetches
    for key, value in given.entries.items():
        options.add_run_config_entry(key, value)
    return options


_OUT_OF_MEMORY: Final = re.compile(r"failed to allocate|out of memory|bad_alloc|BFCArena|ERROR_OUT_OF_MEMORY", re.I)
# of BFCArena on the CPU and on the GPU, the latter when `gpu_mem_limit` stops it
_REQUESTED: Final = re.compile(r"requested (?:buffer of size|bytes of) (?P<bytes>\d+)", re.I)
_NO_KERNEL: Final = re.compile(r"could not find an implementation for (?:the node )?(?P<op>[\w.:/()]+)", re.I)
_NO_OPERATOR: Final = re.compile(r"(?:No Op registered for|Fatal error: )\s*(?P<op>[\w.:]+)", re.I)
_WRONG_INPUT: Final = re.compile(
    r"invalid (?:dimensions|rank|feed|input name)|unexpected input data type|dimension mismatch|cannot be reshaped|"
    r"out of data bounds|attempting to broadcast",
    re.I,
)
_BAD_MODEL: Final = re.compile(
    r"INVALID_PROTOBUF|INVALID_GRAPH|NO_MODEL|NO_SUCHFILE|Invalid model|Protobuf parsing|opset|IR version", re.I
)
# the status tag, and the place in ONNX Runtime's source with its function's signature
_NOISE: Final = re.compile(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |/onnxruntime_src/\S+:\d+ .*?\) (?:const )?")


def explain(error: BaseException) -> WorkbenchError:
    """One sentence with the cause and the remedy for an exception that ONNX Runtime raised."""
    if isinstance(error, WorkbenchError):
        return error
    text = " ".join(str(error).split())
    cause = _NOISE.sub("", text)[:300].rstrip(". ")
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        size = _REQUESTED.search(text)
        what = f"an allocation of {size['bytes']} bytes failed ({cause})" if size else cause
        return OutOfMemoryError(f"Out of memory: {what}: use a smaller batch or shape, or raise cuda.gpu_mem_limit.")
    if found := _NO_KERNEL.search(text) or _NO_OPERATOR.search(text):
        return UnsupportedModelError(
            f"ONNX Runtime has no implementation of {found['op']} here: export the model without it, or update "
            "onnxruntime."
        )
    if _WRONG_INPUT.search(text):
        return FeedError(f"The inputs do not fit the model ({cause}): give matching --shape, --dim or --feeds.")
    if _BAD_MODEL.search(text):
        return ModelError(f"ONNX Runtime cannot load the model ({cause}): export it again.")
    return WorkerError(f"ONNX Runtime failed ({type(error).__name__}: {cause}): try another provider or other options.")
