"""Options of ONNX Runtime's CUDA provider, as `get_provider_options()` lists them, and of its TensorRT provider."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from workbench.config.strict import Strict
from workbench.errors import ConfigError

# An address is only good inside the process that owns it, and every pass is a process of its own.
_ADDRESSES: Final = ("user_compute_stream", "gpu_external_alloc", "gpu_external_free", "gpu_external_empty_cache")


class CudaOptions(Strict):
    """CUDA provider options; None leaves ONNX Runtime's default in force, and is not passed on.

    `gpu_mem_limit` is in bytes, `tunable_op_max_tuning_duration_ms` in milliseconds. The addresses
    (`user_compute_stream`, `gpu_external_*`) are known but refused, because they belong to the calling process.
    `enable_cuda_graph` is set through `RunConfig.cuda_graph`, which checks what a graph needs.
    """

    device_id: int = Field(0, ge=0)
    has_user_compute_stream: bool | None = None
    user_compute_stream: int | None = None
    do_copy_in_default_stream: bool | None = None
    use_ep_level_unified_stream: bool | None = None
    gpu_mem_limit: int | None = Field(None, gt=0)
    arena_extend_strategy: Literal["kNextPowerOfTwo", "kSameAsRequested"] | None = None
    gpu_external_alloc: int | None = None
    gpu_external_free: int | None = None
    gpu_external_empty_cache: int | None = None
    cudnn_conv_algo_search: Literal["EXHAUSTIVE", "HEURISTIC", "DEFAULT"] | None = None
    cudnn_conv_use_max_workspace: bool | None = None
    cudnn_conv1d_pad_to_nc1d: bool | None = None
    prefer_nhwc: bool | None = None
    fuse_conv_bias: bool | None = None
    enable_cudnn: bool | None = None
    use_tf32: bool | None = None
    sdpa_kernel: int | None = Field(None, ge=0)
    enable_cuda_graph: bool | None = None
    enable_skip_layer_norm_strict_mode: bool | None = None
    tunable_op_enable: bool | None = None
    tunable_op_tuning_enable: bool | None = None
    tunable_op_max_tuning_duration_ms: int | None = Field(None, ge=0)
    external_data_loader_reading_threads: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _refuse_addresses(self) -> Self:
        for name in (*_ADDRESSES, "has_user_compute_stream"):
            if getattr(self, name):
                raise ConfigError(
                    f"Option 'cuda.{name}' needs an address of the running process, but every pass runs in a "
                    "process of its own: leave it out."
                )
        return self

    def to_provider_options(self) -> dict[str, str]:
        """The options that are set, as the strings ONNX Runtime takes (booleans as 0 and 1)."""
        return _as_text(self)


class TensorrtOptions(Strict):
    """TensorRT provider options; None leaves ONNX Runtime's default in force.

    `trt_max_workspace_size` is in bytes. An engine is built when the session is made, which takes minutes for large
    models; with `trt_engine_cache_enable` it is kept in `trt_engine_cache_path`.
    """

    trt_fp16_enable: bool | None = None
    trt_bf16_enable: bool | None = None
    trt_int8_enable: bool | None = None
    trt_max_workspace_size: int | None = Field(None, gt=0)
    trt_builder_optimization_level: int | None = Field(None, ge=0, le=5)
    trt_engine_cache_enable: bool | None = None
    trt_engine_cache_path: str | None = None
    trt_timing_cache_enable: bool | None = None
    trt_cuda_graph_enable: bool | None = None

    def to_provider_options(self) -> dict[str, str]:
        """The options that are set, as the strings ONNX Runtime takes (booleans as 0 and 1)."""
        return _as_text(self)


def _as_text(options: Strict) -> dict[str, str]:
    given = options.model_dump(exclude_none=True)
    return {name: str(int(value)) if isinstance(value, bool) else str(value) for name, value in given.items()}
