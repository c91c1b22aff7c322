"""What a kernel does, and on which unit, as far as its name proves it.

Two ordered lists of rules, the first match of each counts. `FAMILY_RULES` reads the operation. Only where that is a
matrix product can tensor cores run, because matrix multiply-accumulate is all they execute (NVIDIA, "CUDA C++
Programming Guide", warp matrix functions); there `UNIT_RULES` reads the unit, and what no rule proves stays unknown.

The names are NVIDIA's, ONNX Runtime's, PyTorch's and Triton's habits, no interface: a rule says in words what it took
for proof, so that a reader can disagree. Patterns hold no `::` and no word boundary where a mangled name
(`_ZN5cudnn4cnn…`) would lack it, so that both spellings match.

RE2 (through Arrow) searches in time linear in the text whatever the pattern (Cox, "Regular Expression Matching in the
Wild", 2010), and no more than `EXAMINED_CHARACTERS` of a name are read, so that a hostile name costs no more than a
long one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

FAMILIES: Final = ("GEMM", "convolution", "attention", "elementwise", "reduction", "copy", "other")
EXAMINED_CHARACTERS: Final = 2048
"""The function and the template arguments that tell it apart stand first; recorded names have up to 483."""

NO_RULE: Final = "no rule knows this name"
_MATRIX_UNKNOWN: Final = "the name does not say on which unit"


class FamilyRule(NamedTuple):
    """A pattern (RE2), the family that it shows, why, and whether the kernel multiplies matrices."""

    pattern: str
    family: str
    reason: str
    multiplies: bool = False


class UnitRule(NamedTuple):
    """A pattern (RE2), whether it shows tensor cores, and why."""

    pattern: str
    tensor_cores: bool
    reason: str


FAMILY_RULES: Final = (
    FamilyRule(r"(?i)nccl|nvshmem|all_?reduce|cross_device_reduce", "other", "communication between GPUs"),
    # TorchInductor says the kind of kernel before the operators fused in it (pointwise, reduction, template)
    FamilyRule(r"triton_tem_fused.*attention", "attention", "Triton attention template", True),
    FamilyRule(r"triton_tem_fused.*conv", "convolution", "Triton convolution template", True),
    FamilyRule(r"triton_tem_", "GEMM", "Triton matrix-product template", True),
    FamilyRule(r"triton_(?:red|per|spl)_", "reduction", "Triton reduction or scan"),
    FamilyRule(r"triton_(?:poi|for)_", "elementwise", "Triton pointwise"),
    # launchers whose template arguments name other things: what launches them decides, so they come early
    FamilyRule(r"FillFunctor|uninitialized_(?:fill|copy)", "copy", "fills or copies memory"),
    FamilyRule(r"direct_copy_kernel|index_elementwise_kernel", "copy", "PyTorch copy, or gather by index"),
    FamilyRule(r"elementwise_kernel", "elementwise", "PyTorch elementwise launcher"),
    FamilyRule(r"_[A-Za-z]+ElementWise", "elementwise", "ONNX Runtime elementwise launcher"),
    FamilyRule(r"(?:^|[^A-Za-z_])reduce_kernel", "reduction", "PyTorch reduction launcher"),
    FamilyRule(r"Device(?:Segmented)?Reduce", "reduction", "CUB reduction"),
    FamilyRule(r"DeviceScan|(?i:cum_?sum|cum_?prod|prefix_?sum)", "reduction", "prefix sum"),
    FamilyRule(r"RadixSort|[Mm]ergeSort|[Bb]itonic|[Tt]op_?[Kk]|sort_", "other", "sorting"),
    FamilyRule(r"DeviceSelect|DevicePartition|DeviceHistogram|DeviceRunLength", "other", "CUB selection or histogram"),
    FamilyRule(r"parallel_for|ParallelFor", "elementwise", "Thrust, one element each"),
    FamilyRule(
        r"(?i)flash_?(?:attn|attention|fwd|bwd|fprop|bprop)|fmha|fused_mha|gem[mv]_mha|sdpa|attention_?kernel"
        r"|multi_?head_?attention|paged_?attention|batchprefill|batchdecode",
        "attention",
        "fused attention",
        True,
    ),
    FamilyRule(r"(?i)split_?k_?reduce|reduce_?split_?k", "GEMM", "sums the parts of a split-K GEMM"),
    FamilyRule(r"init_device_workspace|computeOffsets|EmptyKernel", "other", "prepares another kernel"),
    FamilyRule(r"(?i)nchwtonhwc|nhwctonchw|nchwtonchhw|nchwtofolded|foldednhwc", "copy", "cuDNN layout change"),
    FamilyRule(r"xmma_(?:fprop|dgrad|wgrad)", "convolution", "NVIDIA xmma convolution", True),
    FamilyRule(r"(?:^|[^a-z])(?:\d*)(?:fprop|dgrad|wgrad)", "convolution", "fprop, dgrad or wgrad: convolution", True),
    FamilyRule(r"_[shid]\d*cudnn_", "convolution", "cuDNN convolution, older naming", True),
    FamilyRule(r"fft2d_[cr]2[cr]|(?i:flip_filter)", "convolution", "cuDNN convolution by Fourier transform"),
    FamilyRule(r"(?i)im2col|col2im|vol2col|col2vol", "convolution", "unfolds the input of a convolution"),
    FamilyRule(
        r"(?i)convolve|winograd|implicit_?gemm|depth_?wise|deconv|convolution|conv(?:fwd|bwd|dgrad|wgrad|_?[123]d)",
        "convolution",
        "convolution by name",
        True,
    ),
    FamilyRule(r"dot_kernel|reduce_1Block_kernel", "reduction", "cuBLAS dot product"),
    # not `cublasGemvParams…`: cuBLAS passes these to kernels of every kind
    FamilyRule(r"gemv|(?:^|[^s])Gemv", "GEMM", "matrix times vector", True),
    FamilyRule(r"nvjet", "GEMM", "cuBLASLt nvjet, a GEMM", True),
    FamilyRule(r"(?i)gemm|mat_?mul|(?:^|_)bmm_", "GEMM", "GEMM by name", True),
    FamilyRule(r"RNN|LSTM|GRU_", "other", "recurrent network", True),
    # softmax and normalisation read each row to reduce it: they are bound as a reduction is
    FamilyRule(r"(?i)softmax", "reduction", "softmax: reduces each row"),
    FamilyRule(
        r"bn_fw_inf|batch_norm_transform_input|batch_norm_elemt|(?i:batch_?norm_?infer)",
        "elementwise",
        "batch normalisation with known statistics",
    ),
    FamilyRule(
        r"(?i)(?:layer|rms|group|instance|batch|l2|lp)_?norm|welford|bn_[fb]w_|ln_[fb]wd",
        "reduction",
        "normalisation: reduces each row or channel",
    ),
    FamilyRule(r"(?i)pooling|(?:max|avg|average)_?pool", "reduction", "pooling: reduces each window"),
    # not `reduced`: cuDNN passes a `reduced_divisor` to kernels of every kind
    FamilyRule(r"[Rr]educe(?:[^d]|$)|[Rr]eduction|(?i:arg_?(?:max|min))", "reduction", "reduction by name"),
    FamilyRule(r"asum_kernel|nrm2_kernel", "reduction", "cuBLAS norm"),
    FamilyRule(
        r"op_generic_tensor_kernel|op_tensor_kernel|add_tensor_kernel", "elementwise", "cuDNN elementwise operation"
    ),
    FamilyRule(r"(?i)bias", "elementwise", "adds or broadcasts a bias"),
    FamilyRule(
        r"(?i)transpose|permut|memcpy|memset|CatArrayBatchedCopy|copy_?(?:kernel|vectorized|packed)|index_?select"
        r"|gather|scatter",
        "copy",
        "moves elements",
    ),
    FamilyRule(
        r"_Fill|(?:Concat|Split|Slice|Expand|Tile|Pad|OneHot|EyeLike|Compress|Reverse\w*|Trilu|SpaceDepth|DepthSpace"
        r"|Fill|Append|Copy)\w*[Kk]ernel",
        "copy",
        "moves, repeats or fills elements",
    ),
    FamilyRule(
        r"(?i)gelu|relu|silu|swish|sigmoid|tanh|activation|dropout|quantize|rotary|rope_|clip|arange|rangekernel"
        r"|where|axpy|scal_kernel|resize|upsampl|interpolat|grid_?sampl",
        "elementwise",
        "one output element from a few inputs",
    ),
    FamilyRule(
        r"Unary|Binary|Ternary|Cast(?:[A-Z_<]|$)|(?i:element_?wise|elem_?wise|pointwise)",
        "elementwise",
        "elementwise by name",
    ),
)

UNIT_RULES: Final = (
    UnitRule(r"splitkv_combine|FwdCombine|bwd_dot_do_o|bwd_convert|Bwd(?:Pre|Post)process", False, "no matrix product"),
    # xmma is built for GPUs without tensor cores too (sm50_xmma_…), so the word alone proves nothing
    UnitRule(r"ffma|_simt_|OpClassSimt|MmaSimt", False, "FFMA or SIMT: CUDA cores"),
    UnitRule(r"tensor\d+x\d+x\d+", True, "shape of a tensor-core instruction, as tensor16x8x8"),
    UnitRule(r"warpgroupsize|[Ww]gmma|WGMMA|Gmma|GMMA", True, "warpgroup MMA, a tensor-core instruction"),
    UnitRule(
        r"tensorop|TensorOp(?:[^t]|$)|wmma|hmma|imma|HMMA|IMMA|Umma|UMMA|tcgen05|mma_?(?:sync|m\d+n\d+k\d+)",
        True,
        "tensor-core instruction by name",
    ),
    # accumulator type, then the M, N and K of the instruction without separators: s16816gemm is FP32, m16n8k16
    UnitRule(
        r"_[shidcz](?:884|1688|16816|16832|16864|8816|8832|161616|83216|32816)[a-z]",
        True,
        "shape of a tensor-core instruction, as s16816",
    ),
    UnitRule(r"tf32", True, "TF32 exists in tensor cores alone"),
    # its letters are the types of the inputs, the arithmetic and the output; s, FP32, may run on either unit
    UnitRule(r"nvjet_(?:sm\d+_)?[htq]", True, "nvjet with FP16 (h), BF16 (t) or FP8 (q) inputs"),
    UnitRule(r"(?:^|_)g?[sdcz]gemm", False, "plain sgemm, dgemm, cgemm or zgemm: CUDA cores"),
    UnitRule(r"(?:maxwell|pascal|volta|turing|ampere)_hgemm", False, "plain hgemm: CUDA cores"),
    UnitRule(r"_[shi]cudnn_", False, "plain scudnn, hcudnn or icudnn: CUDA cores"),
    UnitRule(r"gemv|(?:^|[^s])Gemv", False, "gemv: CUDA cores"),
    UnitRule(r"MatMulFloatInt4Kernel|MatMulFloat8bKernel", False, "ONNX Runtime MatMulNBits for one row: CUDA cores"),
    UnitRule(r"flash_[fb]wd_|FlashAttn[FB]wdSm|flash_[fb]prop", True, "FlashAttention takes 16- and 8-bit types alone"),
    UnitRule(r"fmha_v\d|fused_mha|gemm_mha", True, "TensorRT fused attention"),
    # CUTLASS memory-efficient attention: half from sm70 and everything from sm80 is a tensor-core GEMM, the rest SIMT
    # (PyTorch, aten/src/ATen/native/transformers/cuda/mem_eff_attention/gemm_kernel_utils.h, `DefaultGemmType`)
    UnitRule(
        r"fmha_cutlass[FB]_(?:f16_\w*sm7|\w*sm(?:8|9|1\d)\d)|AttentionKernel.{1,20}half_t.{1,30}Sm7"
        r"|AttentionKernel.{1,60}Sm(?:8|9|1\d)\d",
        True,
        "memory-efficient attention, tensor-core build",
    ),
    UnitRule(
        r"fmha_cutlass[FB]_|AttentionKernel.{1,60}Sm[57]", False, "memory-efficient attention, SIMT build"
    ),
)  # fmt: skip


def kernel_rules(names: Sequence[str | None]) -> pd.DataFrame:
    """Family and tensor-core use of kernels, from their names: one row per name, in order.

    names: demangled or mangled, each as often as the caller likes; pass the distinct ones of a large table.

    Columns: `name`; `family`, one of `FAMILIES`; `tensor_cores`, nullable boolean, null where the name does not tell;
    `rule`, in words what was taken for proof. A name that is null or that no rule knows is `other` and unknown.
    """
    # as bytes: a name that an importer could not decode may hold what is no UTF-8
    text = pa.array([(name or "")[:EXAMINED_CHARACTERS].encode(errors="replace") for name in names], pa.binary())
    by_family = _first_match(text, [rule.pattern for rule in FAMILY_RULES])
    known = by_family >= 0
    multiplies = np.array([rule.multiplies for rule in FAMILY_RULES])[by_family] & known
    by_unit = np.full(len(names), -1)
    by_unit[multiplies] = _first_match(text.filter(pa.array(multiplies)), [rule.pattern for rule in UNIT_RULES])
    found = [_verdict(family, unit) for family, unit in zip(by_family.tolist(), by_unit.tolist(), strict=True)]
    table = pd.DataFrame(found, columns=["family", "tensor_cores", "rule"])
    table.insert(0, "name", pd.Series(list(names), dtype=object))
    return table.astype({"tensor_cores": "boolean"})


def _verdict(family_rule: int, unit_rule: int) -> tuple[str, bool | None, str]:
    if family_rule < 0:
        return "other", None, NO_RULE
    family = FAMILY_RULES[family_rule]
    if not family.multiplies:
        return family.family, False, family.reason
    if unit_rule < 0:
        return family.family, None, f"{family.reason}; {_MATRIX_UNKNOWN}"
    unit = UNIT_RULES[unit_rule]
    return family.family, unit.tensor_cores, f"{family.reason}; {unit.reason}"


def _first_match(text: pa.Array, patterns: Sequence[str]) -> NDArray[np.int64]:
    """Position of the first pattern that occurs in each text, -1 for none: int64[n]."""
    first = np.full(len(text), -1, np.int64)
    left = np.arange(len(text))
    for at, pattern in enumerate(patterns):
        matched = pc.match_substring_regex(text, pattern).to_numpy(zero_copy_only=False)
        first[left[matched]] = at
        left, text = left[~matched], text.filter(pa.array(~matched))
    return first
