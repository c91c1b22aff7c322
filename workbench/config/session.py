"""Session and run options, with the config keys that ONNX Runtime knows.

ONNX Runtime accepts a misspelt session config key in silence, so the known keys stand here: read from the strings
of ONNX Runtime 1.31.1's own library. A key that a newer version adds is accepted with `allow_unknown_entries`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from workbench.config.strict import Strict, nearest
from workbench.errors import ConfigError

SESSION_ENTRIES: Final = frozenset(
    """
    ep.context_embed_mode ep.context_enable ep.context_file_path ep.context_model_external_initializers_file_name
    ep.cuda.fpa_intb_gemm ep.cuda.fpa_intb_profile_m ep.cuda.gqa_workspace_max_total_sequence_length
    ep.enable_weightless mlas.disable_kleidiai mlas.use_lut_gemm
    mlas.enable_gemm_fastmath_arm64_bfloat16 mlas.qnbit.force_fp32
    optimization.constant_folding_max_output_size_in_bytes optimization.disable_specified_optimizers
    optimization.enable_cast_chain_elimination optimization.enable_gelu_approximation
    optimization.minimal_build_optimizations session.allow_released_opsets_only
    session.collect_node_memory_stats_to_file session.compile_only session.debug_layout_transformation
    session.disable_aot_function_inlining session.disable_cpu_ep_fallback session.disable_double_qdq_remover
    session.disable_model_compile session.disable_prepacking session.disable_qdq_constant_folding
    session.disable_quant_qdq session.dynamic_block_base session.enable_dq_matmulnbits_fusion
    session.enable_quant_qdq_cleanup session.fail_on_suboptimal_compiled_model session.force_spinning_stop
    session.graph_optimizations_loop_level session.inter_op.allow_spinning session.inter_op.spin_backoff_max
    session.inter_op.spin_duration_us session.intra_op.allow_spinning session.intra_op.spin_backoff_max
    session.intra_op.spin_duration_us session.intra_op_thread_affinities session.layer_assignment_settings
    session.load_model_format session.max_shape_override session.model_external_initializers_file_folder_path
    session.name_based_layer_assignment session.node_partition_config_file
    session.optimized_model_external_initializers_file_name
    session.optimized_model_external_initializers_min_size_in_bytes session.prepack.enable_parallel
    session.qdq_matmulnbits_accuracy_level session.qdq_matmulnbits_block_size session.qdqisint8allowed
    session.record_ep_graph_assignment_info session.resource_cuda_partitioning_settings
    session.save_external_prepacked_constant_initializers session.save_model_format session.set_denormal_as_zero
    session.strict_shape_type_inference session.use_device_allocator_for_initializers session.use_env_allocators
    session.use_external_initializer_file_buffers_directly session.use_memory_mapped_ort_model
    session.use_ort_model_bytes_directly session.use_ort_model_bytes_for_initializers session.x64quantprecision
    """.split()
)
RUN_ENTRIES: Final = frozenset(
    ("disable_synchronize_execution_providers", "gpu_graph_id", "memory.enable_memory_arena_shrinkage")
)


def _check_entries(entries: Iterable[str], known: frozenset[str], kind: str) -> None:
    for key in entries:
        if key not in known:
            raise ConfigError(
                f"Unknown {kind} config key {key!r}, which ONNX Runtime would ignore in silence: {nearest(key, known)}"
            )


class SessionOptions(Strict):
    """Session options; None leaves ONNX Runtime's default in force. `entries` are session config keys."""

    graph_optimization_level: Literal["disable", "basic", "extended", "layout", "all"] = "all"
    execution_mode: Literal["sequential", "parallel"] | None = None
    execution_order: Literal["default", "priority_based"] | None = None
    enable_mem_pattern: bool | None = None
    enable_mem_reuse: bool | None = None
    enable_cpu_mem_arena: bool | None = None
    use_deterministic_compute: bool | None = None
    log_severity_level: int = Field(3, ge=0, le=4)
    entries: dict[str, str] = {}
    allow_unknown_entries: bool = False

    @model_validator(mode="after")
    def _known_entries(self) -> Self:
        if not self.allow_unknown_entries:
            _check_entries(self.entries, SESSION_ENTRIES, "session")
        return self


class RunOptions(Strict):
    """Options of each call: config `entries`, and `only_execute_path_to_fetches`."""

    only_execute_path_to_fetches: bool | None = None
    entries: dict[str, str] = {}

    @model_validator(mode="after")
    def _known_entries(self) -> Self:
        _check_entries(self.entries, RUN_ENTRIES, "run")
        return self
