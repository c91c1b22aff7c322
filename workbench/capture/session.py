"""An ONNX Runtime session that does what the configuration says, or an error that says why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from workbench.capture.libraries import missing_cuda_libraries
from workbench.config import RunConfig
from workbench.errors import (
    CpuFallbackError,
    FeedError,
    ModelError,
    OutOfMemoryError,
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

    Raises `CpuFallbackError` when ONNX Runtime left the GPU in silence, `UnsupportedModelError`, `ModelError`,
    `OutOfMemoryError`.
    """
    import onnxruntime as ort

    options = _session_options(config, profile_prefix, optimized_model)
    providers: list[Any] = [CPU]
    if device == "cuda":
        if CUDA not in ort.get_available_providers():
            raise CpuFallbackError(
                f"This onnxruntime {ort.__version__} has no CUDA provider: remove it and install onnxruntime-gpu."
            )
        given = config.cuda.to_provider_options()
        providers = [(CUDA, {**given, **({"enable_cuda_graph": "1"} if config.cuda_graph else {})}), CPU]
    try:
        session = ort.InferenceSession(str(model), options, providers=providers)
    except Exception as error:
        raise explain(error) from None
    if device == "cuda" and session.get_providers()[0] != CUDA:
        missing = missing_cuda_libraries()
        cause = f"{', '.join(missing)} did not load" if missing else "the CUDA provider did not start"
        raise CpuFallbackError(
            f"ONNX Runtime fell back to the CPU because {cause}: install them with pip install 'ort-workbench[gpu]', "
            "or accept the CPU with --allow-cpu."
        )
    return session


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
        return OutOfMemoryError(f"Out of memory ({cause}): use a smaller batch or shape, or raise cuda.gpu_mem_limit.")
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
