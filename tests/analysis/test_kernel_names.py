"""Names that real libraries give their kernels lead to the right family and unit; hostile ones cost nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.kernel_names import (
    EXAMINED_CHARACTERS,
    FAMILIES,
    FAMILY_RULES,
    NO_RULE,
    UNIT_RULES,
    kernel_rules,
)
from workbench.api import Run
from workbench.capture.demangle import demangle

GEMM, CONV, ATTENTION, ELEMENTWISE, REDUCTION, COPY, OTHER = FAMILIES

# what each library calls its kernels, as traces show them; parameter lists that decide nothing are left out
EXAMPLES = {
    # cuBLAS and cuBLASLt
    "nvjet_sm90_hsh_256x128_64x4_1x2_h_bz_coopA_NNT": (GEMM, True),
    "nvjet_tst_128x96_64x7_4x1_v_bz_bias_TNT": (GEMM, True),
    "nvjet_qqtst_128x256_128x6_2x1_2cta_v_bz_TNT": (GEMM, True),
    "nvjet_sss_tf32_128x256_TNT": (GEMM, True),
    "nvjet_sm100_sss_64x32_64x16_2x1_2cta_h_bz_TNT": (GEMM, None),
    "sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x32_stage4_warpsize2x2x1_tensor16x8x16_kernel": (GEMM, True),
    "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize64x256x8_stage3_warpsize1x4x1_ffma_aligna4_alignc4"
    "_execute_split_k_kernel__5x_cublas": (GEMM, False),
    "sm90_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x128x32_warpgroupsize1x1x1_execute_segment_k_off"
    "_kernel__5x_cublas": (GEMM, True),
    "void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_64x64_16x6_nn_align4>(T1::Params)": (GEMM, True),
    "void cutlass::Kernel2<cutlass_80_simt_sgemm_64x64_8x5_nn_align1>(T1::Params)": (GEMM, False),
    "cutlass_80_wmma_tensorop_s161616gemm_f16_32x32_128x2_tn_align8": (GEMM, True),
    "ampere_fp16_s16816gemm_fp16_128x64_ldg8_relu_f2f_stages_64x4_nn": (GEMM, True),
    "ampere_s16816gemm_bf16_64x64_ldg8_stages_64x5_tn": (GEMM, True),
    "volta_h884gemm_256x64_ldg8_nn": (GEMM, True),
    "ampere_sgemm_128x64_nn": (GEMM, False),
    "ampere_sgemm_32x32_sliced1x4_tn": (GEMM, False),
    "volta_gcgemm_32x32_nt": (GEMM, False),
    "maxwell_hgemm_256x128_nt": (GEMM, False),
    "void magma_sgemmEx_kernel<float, float, float, true, false, 6, 4, 6, 3, 4>(int, int, int)": (GEMM, False),
    "void gemmSN_TN_kernel<float, 128, 16, 2, 4, 4, 4, true, cublasGemvTensorStridedBatched<float>>": (GEMM, None),
    "void gemv2T_kernel_val<int, int, __half, __half, __half, float, 128, 16, 4, 4, false, true>": (GEMM, False),
    "std::enable_if<!T7, void>::type internal::gemvx::kernel<int, int, float, float, float, float, (bool)0>": (
        GEMM,
        False,
    ),
    "void cublasLt::splitKreduce_kernel<32, 16, int, float, float, float, float, false>": (GEMM, False),
    "void dot_kernel<float, 128, 0, cublasDotParams<cublasGemvTensorStridedBatched<float const>>>": (REDUCTION, False),
    "void asum_kernel<int, float, float, float, 128>(cublasAsumParams<int, float, float>)": (REDUCTION, False),
    "void cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<cute::tuple<int, int, int>, cutlass::gemm"
    "::collective::CollectiveMma<cutlass::gemm::MainloopSm90TmaGmmaWarpSpecialized<7>>>>": (GEMM, True),
    # cuDNN
    "sm80_xmma_fprop_implicit_gemm_f32f32_f32f32_f32_nchwkcrs_nchw_tilesize32x32x8_stage3_warpsize1x2x1_g1_ffma"
    "_aligna4_alignc4_execute_kernel__5x_cudnn": (CONV, False),
    "sm50_xmma_fprop_conv2d_c1_k1_f32f32_f32_f32_nchwkcrs_nchw_tilesize10x40x8_threadsize4x4_r3s3": (CONV, None),
    "sm80_xmma_dgrad_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize128x64x16_stage4"
    "_warpsize2x2x1_g1_tensor16x8x8_kernel_cudnn": (CONV, True),
    "void cutlass__5x_cudnn::Kernel<cutlass_tensorop_f16_s16816fprop_optimized_f16_256x128_32x3_nhwc_align8>": (
        CONV,
        True,
    ),
    "turing_fp16_s1688cudnn_fp16_256x128_ldg8_relu_f2f_exp_medium_nhwc_tn_v1": (CONV, True),
    "volta_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1": (CONV, False),
    "_5x_cudnn_ampere_scudnn_128x64_relu_interior_nn_v1": (CONV, False),
    "void implicit_convolve_sgemm<float, float, 1024, 5, 5, 3, 3, 3, 1, false, false, true>": (CONV, False),
    "void cudnn::cnn::conv2d_grouped_direct_kernel<false, true, false, false, 0, 0, int, float>": (CONV, None),
    "void cudnn::winograd_nonfused::winogradForwardData4x4<float, float>": (CONV, None),
    "void fft2d_r2c_32x32<float, false, 0u, false>(float2*, float const*, int, int)": (CONV, False),
    "cudnn_generated_fort_native_sm80_convFwd_pointwise_pointwise_knob_20_32x32x128_0_0": (CONV, None),
    "cudnn_generated_fort_native_sm120_matMul_pointwise_pointwise_knob_20_32x32x128_0_0": (GEMM, None),
    "cudnn_generated_fort_native_sdpa_sm80_flash_fprop_wmma_f16_knob_6_128x64x64_4x1x1_kernel0_0": (ATTENTION, True),
    "cudnn_generated_oss_sdpa_sm100_flash_fprop_f16_knob_7_128x128x64_4x1x1_cga1x1x1_kernel0_0": (ATTENTION, True),
    "void cask_plugin__5x_cudnn::xmma__5x_cudnn::init_device_workspace_kernel<xmma__5x_cudnn::implicit_gemm::fprop"
    "::Warp_specialized_params_non_template<xmma__5x_cudnn::Grid_constant_params> >": (OTHER, False),
    "void cudnn::engines_precompiled::nchwToNhwcKernel<float, float, float, false, true>": (COPY, False),
    "void cudnn::pooling_fw_4d_kernel<float, float, cudnn::maxpooling_func<float>>(cudnn::reduced_divisor)": (
        REDUCTION,
        False,
    ),
    "void op_generic_tensor_kernel<3, float, float, float, 256>(cudnnTensorStruct, reducedDivisorArray)": (
        ELEMENTWISE,
        False,
    ),
    "void cudnn::bn_fw_inf_1C11_kernel_NCHW<float, float, true, 1>(float, float)": (ELEMENTWISE, False),
    "void RNN_blockPersist_fp_LSTM<__half, __half, __half, 16, 256>": (OTHER, None),
    # attention
    "void flash_fwd_kernel<Flash_fwd_kernel_traits<128, 64, 64, 4, false, cutlass::half_t>>": (ATTENTION, True),
    "void pytorch_flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<64, 64, 256, 4>>": (ATTENTION, True),
    "void onnxruntime::flash::flash_fwd_splitkv_combine_kernel<Flash_fwd_kernel_traits<64>>": (ATTENTION, False),
    "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<flash::CollectiveMainloopFwdSm90<2>>>>": (
        ATTENTION,
        True,
    ),
    "fmha_cutlassF_f16_aligned_64x64_rf_sm75(PyTorchMemEffAttention::AttentionKernel<cutlass::half_t>::Params)": (
        ATTENTION,
        True,
    ),
    "fmha_cutlassF_f32_aligned_64x64_rf_sm80": (ATTENTION, True),
    "fmha_cutlassF_f32_aligned_64x64_rf_sm75": (ATTENTION, False),
    "void onnxruntime::contrib::cuda::attention_kernel_batched_impl<AttentionKernel<cutlass::half_t, "
    "cutlass::arch::Sm80, true, 64, 64, 64, true, true>>": (ATTENTION, True),
    "fmha_v2_flash_attention_fp16_S_64_128_sm80_kernel": (ATTENTION, True),
    "__mye8037_gemm_mha_v2": (ATTENTION, True),
    "void onnxruntime::contrib::cuda::masked_multihead_attention_kernel<float, 128, 4, 16, 64>": (ATTENTION, None),
    # ONNX Runtime
    "void onnxruntime::cuda::_UnaryElementWise<float, float, onnxruntime::cuda::OP_Tanh<float>, 256, 4>": (
        ELEMENTWISE,
        False,
    ),
    "void onnxruntime::contrib::cuda::VectorizedBiasGeluKernel<float>(long, float const*)": (ELEMENTWISE, False),
    "void onnxruntime::contrib::cuda::FastGeluKernel<float, 256u>(float, float, int)": (ELEMENTWISE, False),
    "void onnxruntime::cuda::cuApplyLayerNorm<float, float, float, false>": (REDUCTION, False),
    "void onnxruntime::contrib::cuda::SkipLayerNormKernelSmall<float, 80u, 8, false>": (REDUCTION, False),
    "void onnxruntime::cuda::softmax_warp_forward<float, float, float, 10, false>": (REDUCTION, False),
    "void onnxruntime::cuda::detail::reduce_matrix_rows_kernel<float, float, float>": (REDUCTION, False),
    "void onnxruntime::cuda::_CumSumInt64BlockKernel<256>(long const*, long*)": (REDUCTION, False),
    "void onnxruntime::cuda::Transpose3DKernel<int, 32u>(long, long, long, int const*, int*)": (COPY, False),
    "void onnxruntime::cuda::_ConcatKernelOutputMajor<int>(onnxruntime::cuda::DivMod<int>)": (COPY, False),
    "void onnxruntime::cuda::_SplitKernelSameSplitDim<float>(onnxruntime::cuda::fast_divmod)": (COPY, False),
    "void onnxruntime::cuda::_GatherKernel<int>(long, long, onnxruntime::cuda::DivMod<int>)": (COPY, False),
    "void onnxruntime::contrib::cuda::MatMulFloatInt4Kernel<__half, 128, false>(__half*)": (GEMM, False),
    # PyTorch
    "void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>": (COPY, False),
    "void at::native::elementwise_kernel<128, 2, at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)>": (
        COPY,
        False,
    ),
    "void at::native::unrolled_elementwise_kernel<at::native::CUDAFunctor_add<float>>": (ELEMENTWISE, False),
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps<float>>>": (
        REDUCTION,
        False,
    ),
    "void at::native::(anonymous namespace)::CatArrayBatchedCopy<float, unsigned int, 4, 64, 64>": (COPY, False),
    "void (anonymous namespace)::indexSelectLargeIndex<float, long, unsigned int, 2, 2, -2, true>": (COPY, False),
    "void at::native::im2col_kernel<float>(long, float const*, long, long)": (CONV, False),
    # Triton, CUB, Thrust, NCCL
    "triton_poi_fused_convolution_relu_3": (ELEMENTWISE, False),
    "triton_per_fused_native_layer_norm_0": (REDUCTION, False),
    "triton_tem_fused_addmm_7": (GEMM, None),
    "triton_tem_fused_convolution_4": (CONV, None),
    "triton_tem_fused_flex_attention_0": (ATTENTION, None),
    "void cub::CUB_200400_SM_900::DeviceReduceSingleTileKernel<float>": (REDUCTION, False),
    "void cub::CUB_200400_SM_900::DeviceRadixSortOnesweepKernel<float>": (OTHER, False),
    "void cub::CUB_200400_SM_900::DeviceSelectSweepKernel<int>": (OTHER, False),
    "void thrust::cuda_cub::core::_kernel_agent<thrust::cuda_cub::__parallel_for::ParallelForAgent<int>>": (
        ELEMENTWISE,
        False,
    ),
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)": (OTHER, False),
    "generatedNativePointwise": (ELEMENTWISE, False),
    "my_very_own_kernel(float*)": (OTHER, None),
}

# which operators a family may work for: a 1×1 convolution is a GEMM, and its bias is added apart from it
OPERATORS = {
    GEMM: "MatMul FusedMatMul Gemm Conv",
    CONV: "Conv",
    ELEMENTWISE: "Add Sub Mul Sum Cast Relu Tanh Abs Neg Exp Sigmoid BiasGelu Gemm Conv",
    REDUCTION: "BiasSoftmax Softmax SkipLayerNormalization LayerNormalization ReduceSum MaxPool AveragePool CumSum",
    COPY: "Transpose Concat Gather Conv",
    OTHER: "Conv",
}

MANGLED = [
    "_ZN2at6native24vectorized_gather_kernelILi16ElEEvPcS2_PT0_illllb",
    "_ZN11onnxruntime4cuda20softmax_warp_forwardIfffLi10ELb0EEEvPT0_PKT_iii",
    "_ZN11onnxruntime4cuda6detail25reduce_matrix_rows_kernelIfffEEvPKT_PT0_ii",
    "_ZN11onnxruntime4cuda17_UnaryElementWiseIffNS0_7OP_TanhIfEELi256ELi4EEEvPKT_PT0_T1_l",
    "_ZN7cutlass7Kernel2I50cutlass_80_tensorop_s1688gemm_64x64_16x6_nn_align4EEvNT_6ParamsE",
    "_ZN2at6native13reduce_kernelILi512ELi1ENS0_8ReduceOpIfNS0_7MeanOpsIffffEEjfLi4ELi4EEEEEvT1_",
    "_ZN8internal5gemvx6kernelIiiffffLb0ELb1ELb0ELb0ELi6ELb0E18cublasGemvParamsExIi30cublasGemvTensorStridedBatched"
    "IKfES5_S3_IfEfEEENSt9enable_ifIXntT5_EvE4typeET11_",
]


def read(names: list[str]) -> dict[str, tuple[str, bool | None]]:
    rows = kernel_rules(names).itertuples()
    return {row.name: (row.family, None if pd.isna(row.tensor_cores) else bool(row.tensor_cores)) for row in rows}


def test_known_names() -> None:
    found = read(list(EXAMPLES))
    assert {name: found[name] for name in EXAMPLES if found[name] != EXAMPLES[name]} == {}


def test_every_rule_decides_some_example() -> None:
    used = {reason for rule in kernel_rules(list(EXAMPLES))["rule"] for reason in rule.split("; ")}
    reasons = [rule.reason for rule in (*FAMILY_RULES, *UNIT_RULES)]
    assert len(set(reasons)) == len(reasons)
    assert set(reasons) - used == set()


@pytest.fixture(scope="module")
def launched(recorded: Callable[[str], Run]) -> list[tuple[str, str]]:
    """(kernel, operator that launched it), each once, over recorded runs of different models."""

    def pairs() -> Iterator[tuple[str, str]]:
        for name in ("compute_device", "memory_device", "encoder_device", "decoder_device", "resnet50_b64_device"):
            nodes = recorded(name).diagnosis.nodes
            assert nodes is not None
            kernels = nodes.device[(nodes.device["table"] == "kernels") & (nodes.device["node"] >= 0)]
            operators = nodes.executions["op_type"].astype(str).to_numpy()[kernels["node"]]
            yield from zip(kernels["name"].astype(str), operators, strict=True)

    return sorted(set(pairs()))


def test_recorded_kernels_have_a_family_that_their_node_needs(launched: list[tuple[str, str]]) -> None:
    table = kernel_rules([kernel for kernel, _ in launched])
    wrong = [
        (operator, found.family, found.name)
        for (_, operator), found in zip(launched, table.itertuples(), strict=True)
        if operator not in OPERATORS[found.family].split()
    ]
    assert wrong == []
    assert table["tensor_cores"].notna().all()
    assert set(table["family"]) == set(OPERATORS)
    assert NO_RULE not in set(table["rule"])


@pytest.mark.parametrize("mangled", MANGLED)
def test_mangled_names_are_read_as_demangled_ones(mangled: str) -> None:
    plain = demangle(mangled)
    if plain == mangled:
        pytest.skip("no C++ runtime is at hand to demangle")
    raw, clear = kernel_rules([mangled, plain]).drop(columns="name").to_dict("records")
    assert raw == clear
    assert raw["rule"] != NO_RULE


@given(st.lists(st.none() | st.text(st.characters(exclude_categories=[]))))
def test_any_text_gets_a_row(names: list[str | None]) -> None:
    table = kernel_rules(names)
    assert table["name"].to_list() == names
    assert set(table["family"]) <= set(FAMILIES)
    assert str(table["tensor_cores"].dtype) == "boolean"


def test_only_the_beginning_of_a_long_name_is_read() -> None:
    long = "x" * EXAMINED_CHARACTERS
    assert kernel_rules([f"{long}gemm"])["rule"].to_list() == [NO_RULE]
    assert kernel_rules([f"gemm{long}"])["family"].to_list() == [GEMM]


def test_hostile_names_are_no_burden() -> None:
    hostile = ["(" * 1_000_000, "AttentionKernel" * 100_000, "\udcff\x00" * 1_000_000]
    assert kernel_rules(hostile)["family"].to_list() == [OTHER, ATTENTION, OTHER]


def test_null_and_no_names() -> None:
    assert kernel_rules([]).columns.to_list() == ["name", "family", "tensor_cores", "rule"]
    [found] = kernel_rules([None]).to_dict("records")
    assert (found["family"], found["rule"]) == (OTHER, NO_RULE)
