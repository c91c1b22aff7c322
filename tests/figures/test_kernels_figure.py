"""The picture of the kernels draws what the table holds, in one colour per family."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.kernel_names import FAMILIES, kernel_rules
from workbench.analysis.kernel_times import KernelTimes, kernel_times
from workbench.api import Run
from workbench.figures.classes import COLOURS
from workbench.figures.kernels import FAMILY_COLOURS, short_name, tensor_cores, top_kernels


@pytest.fixture(scope="module")
def times(recorded: Callable[[str], Run]) -> KernelTimes:
    found = kernel_times(recorded("resnet50_b64_device"))
    assert found is not None
    return found


def times_of(own_ns: dict[str, int]) -> KernelTimes:
    """One call of kernels that ran once each."""
    time_ns = list(own_ns.values())
    columns = dict.fromkeys(("own_ns", "median_ns", "min_ns", "max_ns"), time_ns)
    share = [each / sum(time_ns) for each in time_ns]
    return KernelTimes(kernel_rules(list(own_ns)).assign(count=1, share=share, **columns), 1, "activity")


def bars(figure: go.Figure) -> dict[str, float]:
    """Length of each bar by its label, whatever its family."""
    labels = figure.layout.yaxis.ticktext
    return {labels[row]: float(x) for bar in figure.data for row, x in zip(bar.y, bar.x, strict=True)}


def test_every_bar_is_a_kernel_with_its_time_per_call(times: KernelTimes) -> None:
    figure = top_kernels(times, count=10)
    rows = sorted((row, float(x)) for bar in figure.data for row, x in zip(bar.y, bar.x, strict=True))
    assert [row for row, _ in rows] == list(range(10))
    assert figure.layout.xaxis.title.text == "time per call (ms)"
    assert [x for _, x in rows] == pytest.approx((times.kernels["own_ns"].head(10) / times.calls / 1e6).to_list())


def test_bars_have_the_colour_of_their_family(times: KernelTimes) -> None:
    figure = top_kernels(times)
    assert {bar.width for bar in figure.data} == {0.75}  # left to itself, plotly lets bars of one family cover others
    drawn = {row: bar.name for bar in figure.data for row in bar.y}
    assert drawn == times.kernels["family"].head(15).to_dict()
    assert {bar.name: bar.marker.color for bar in figure.data} == {
        family: FAMILY_COLOURS[family] for family in set(drawn.values())
    }
    assert set(FAMILY_COLOURS) == set(FAMILIES)
    assert len({*FAMILY_COLOURS.values(), *COLOURS.values()}) == len(FAMILY_COLOURS) + len(COLOURS)


def test_title_sums_families_and_tensor_cores_and_admits_what_it_does_not_know() -> None:
    known = times_of({"ampere_sgemm_128x64_nn": 30, "volta_h884gemm_64x64_nn": 45, "triton_poi_fused_relu_0": 25})
    assert top_kernels(known).layout.title.text == (
        "GEMM kernels take 75 % of the kernel time; kernels that use tensor cores take 45 %"
    )
    unknown = times_of({"unheard_of": 90, "volta_h884gemm_64x64_nn": 10})
    assert top_kernels(unknown).layout.title.text == (
        "Other kernels take 90 % of the kernel time; kernels that use tensor cores take 10 %, "
        "and for 90 % the name does not tell"
    )


def test_names_from_others_are_no_markup() -> None:
    figure = top_kernels(times_of({"<b>gemm</b><a href='x'>": 5}))
    assert list(bars(figure).values()) == [5]
    assert "<b>" not in figure.to_json()
    assert "<a" not in figure.to_json()


def test_a_run_without_kernels_says_what_would_provide_them() -> None:
    figure = top_kernels(None)
    assert figure.layout.meta["empty"]
    assert "the activity pass" in figure.layout.annotations[0].text


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("nvjet_sm90_hsh_256x128_64x4_1x2_h_bz_coopA_NNT", "nvjet_sm90_hsh_256x128_64x4_1x2_h_bz_coopA_NNT"),
        (
            "void onnxruntime::cuda::_UnaryElementWise<float, float, onnxruntime::cuda::OP_Tanh<float>, (int)256, "
            "(int)4>(const T1 *, T2 *, T3, long)",
            "_UnaryElementWise<float, float, OP_Tanh<float>, 256, 4>",
        ),
        (
            "std::enable_if<!(false), void>::type internal::gemvx::kernel<int, float, false, cublasGemvParamsEx<int> >"
            "(cublasGemvParamsEx<int>)",
            "gemvx::kernel<int, float, false, cublasGemvParamsEx<int> >",
        ),
        ("void <unnamed>::softmax_warp_forward<float>(T2 *, const T1 *, int)", "softmax_warp_forward<float>"),
        ("void (anonymous namespace)::softmax_warp_forward<float>(float*)", "softmax_warp_forward<float>"),
        ("void cutlass::Kernel2<s1688gemm>(T1::Params)", "cutlass::Kernel2<s1688gemm>"),
        ("plain(int)", "plain"),
        ("", ""),
    ],
)  # fmt: skip
def test_short_names_keep_the_function_and_its_arguments(name: str, short: str) -> None:
    assert short_name(name) == short


@given(st.text("abK:<>()[] ,*1", max_size=60))
def test_a_short_name_is_never_longer_nor_empty(name: str) -> None:
    short = short_name(name)
    assert len(short) <= len(name)
    assert short.strip() or not name.strip()


@pytest.mark.parametrize(("value", "said"), [(True, "yes"), (False, "no"), (pd.NA, "unknown"), (None, "unknown")])
def test_tensor_cores_in_words(value: object, said: str) -> None:
    assert tensor_cores(value) == said
