"""Figures are pure functions: what they draw is what the tables hold, and they say when they lack data."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.tables import measured_calls, rows_of
from workbench.api import Run
from workbench.diagnosis.result import Diagnosis
from workbench.figures.classes import COLOURS
from workbench.figures.latency import latency_series
from workbench.figures.marks import COLUMNS, busy_fraction, details, merge_marks, timeline_marks
from workbench.figures.nodes import top_nodes
from workbench.figures.roofline import ceilings_in_use, roofline
from workbench.figures.samples import device_samples
from workbench.figures.shares import shares_bar
from workbench.figures.theme import shorten
from workbench.figures.timeline import timeline
from workbench.figures.units import (
    format_bytes,
    format_bytes_per_s,
    format_flops,
    format_ns,
    format_percent,
    time_scale,
)
from workbench.runs.manifest import Ceilings, LatencyInfo
from workbench.runs.reader import RunFolder

NAMES = ("compute_numpy", "launch_device", "launch_device_graph", "launch_device_nsys", "decoder_device")


@pytest.fixture(scope="module")
def opened(recorded: Callable[[str], Run]) -> dict[str, tuple[RunFolder, Diagnosis]]:
    runs = {name: recorded(name) for name in NAMES}
    return {name: (run, run.diagnosis) for name, run in runs.items()}


def marks_of(run: RunFolder, diagnosis: Diagnosis, calls: int = 3) -> pd.DataFrame:
    assert diagnosis.nodes is not None
    return timeline_marks(
        measured_calls(run, "nodes").head(calls),
        diagnosis.nodes,
        rows_of(run, "launches", "nodes"),
        rows_of(run, "syncs", "nodes"),
        rows_of(run, "ranges", "nodes"),
        device_kind="cuda",
    )


def values(array: Any) -> list[float]:
    """The numbers of a trace, whether plotly packed them or not."""
    if isinstance(array, dict):
        return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]).tolist()
    return list(array)


# units


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5_428_704, "5.43 ms"),
        (576, "576 ns"),
        (105.728, "106 ns"),
        (999_600, "1.00 ms"),
        (78_500, "78.5 µs"),
        (4.2e9, "4.20 s"),
        (86_400e9, "86,400 s"),
        (0, "0 ns"),
        (0.25, "0.250 ns"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_durations_have_three_digits_and_a_unit(value: float | None, said: str) -> None:
    assert format_ns(value) == said


def test_sizes_and_rates() -> None:
    assert format_bytes(4) == "4 B"
    assert format_bytes(33_554_432) == "33.6 MB"
    assert format_bytes_per_s(4.2388e12) == "4.24 TB/s"
    assert format_flops(7.61406e14) == "761 TFLOP/s"
    assert format_flops(None) == "–"


@pytest.mark.parametrize(
    ("fraction", "said"),
    [
        (0.0, "0 %"),
        (1.0, "100 %"),
        (1e-6, "<0.1 %"),
        (0.99999, ">99.9 %"),
        (0.737, "74 %"),
        (0.034, "3.4 %"),
        (0.998, "99.8 %"),
        (2.48, "248 %"),
        (None, "–"),
    ],
)
def test_per_cent_never_rounds_to_none_or_all(fraction: float | None, said: str) -> None:
    assert format_percent(fraction) == said


@given(st.floats(1, 1e12))
def test_a_formatted_duration_is_true_to_three_digits(value: float) -> None:
    number, unit = format_ns(value).replace(",", "").split()
    assert float(number) * {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}[unit] == pytest.approx(value, rel=0.0051)


def test_the_scale_of_an_axis_keeps_its_longest_value_readable() -> None:
    assert time_scale(9_583_793) == (1e6, "ms")
    assert time_scale(78_500) == (1e3, "µs")


# shares


def test_shares_bar_draws_every_share_in_the_colour_of_its_class(opened: Any) -> None:
    _, diagnosis = opened["compute_numpy"]
    figure = shares_bar(diagnosis.shares, diagnosis.latency.median_ns)
    assert [bar.marker.color for bar in figure.data] == [COLOURS[name] for name in diagnosis.shares]
    assert sum(bar.x[0] for bar in figure.data) == pytest.approx(100)
    said = f"PCIe copies hold {diagnosis.shares['pcie']:.0%} of a {diagnosis.latency.median_ns / 1e6:.2f} ms call"
    assert figure.layout.title.text == said.replace("%", " %")


def test_shares_bar_of_a_cpu_leaves_out_what_does_not_apply() -> None:
    shares = {"compute": 0.2, "memory": 0.1, "pcie": None, "launch": 0.7, "sync": None, "other": 0.0}
    figure = shares_bar(shares, 1e6, "cpu")
    assert [bar.name.split()[0] for bar in figure.data] == ["compute", "memory", "framework", "not"]
    assert figure.layout.title.text.startswith("Framework overhead holds 70 %")


# timeline


@pytest.mark.parametrize("name", NAMES)
def test_timeline_draws_every_row_of_the_tables(opened: Any, name: str) -> None:
    run, diagnosis = opened[name]
    marks = marks_of(run, diagnosis)
    chosen = measured_calls(run, "nodes").head(3)["call"]
    for table, lanes in {
        "nodes": ["nodes"],
        "launches": ["host calls"],
        "syncs": ["synchronisation"],
        "kernels": ["kernels"],
        "copies": ["copies to device", "copies to host"],
    }.items():
        rows = rows_of(run, table, "nodes")
        rows = rows[rows["call"].isin(chosen)]
        if table == "copies":
            rows = rows[rows["kind"].isin(["h2d", "d2h"])]
        assert marks["lane"].isin(lanes).sum() == len(rows), table


def test_timeline_keeps_the_times_of_each_mark(opened: Any) -> None:
    run, diagnosis = opened["compute_numpy"]
    figure = timeline(marks_of(run, diagnosis, calls=1))
    call = measured_calls(run, "nodes").iloc[0]
    kernels = rows_of(run, "kernels", "nodes").query("call == @call.call")
    row = list(figure.layout.yaxis.ticktext).index("kernels")
    compute = next(trace for trace in figure.data if trace.name == "compute" and trace.line.width > 1)
    x = np.array([at for at, y in zip(values(compute.x), values(compute.y), strict=True) if y == row])
    assert x.min() == pytest.approx((kernels["start_ns"].min() - call.start_ns) / 1e6)
    assert x.max() == pytest.approx((kernels["end_ns"].max() - call.start_ns) / 1e6)
    assert "(ms)" in figure.layout.xaxis.title.text


def test_timeline_says_how_busy_the_device_is(opened: Any) -> None:
    run, diagnosis = opened["launch_device"]
    marks = marks_of(run, diagnosis, calls=1)
    call = measured_calls(run, "nodes").iloc[0]
    kernels = rows_of(run, "kernels", "nodes").query("call == @call.call")
    apart = (kernels["end_ns"] - kernels["start_ns"]).sum()  # one stream: kernels do not overlap
    assert busy_fraction(marks, ("kernels",)) == pytest.approx(apart / call.duration_ns)


def test_a_blocking_copy_is_not_coloured_as_a_launch(opened: Any) -> None:
    marks = marks_of(*opened["compute_numpy"])
    classes = marks[marks["lane"] == "host calls"].groupby("name")["class"].unique().map(list).to_dict()
    assert classes["cudaMemcpyAsync"] == ["pcie"]
    assert classes["cudaStreamSynchronize"] == ["sync"]
    assert classes["cuLaunchKernelEx"] == ["launch"]


def test_too_many_marks_are_merged_and_the_title_says_so(opened: Any) -> None:
    run, diagnosis = opened["launch_device"]
    marks = marks_of(run, diagnosis)
    figure = timeline(marks, most=500)
    drawn = merge_marks(marks, 3000, 500)
    assert len(drawn) <= 500 < len(marks)
    assert f"{len(marks):,} marks are drawn as {len(drawn):,}" in figure.layout.title.text
    assert "marks are drawn as" not in timeline(marks, most=len(marks)).layout.title.text


def said(marks: pd.DataFrame) -> set[tuple[Any, ...]]:
    shown = marks[["lane", "start_ns", "end_ns", "name", "class"]].astype(object).fillna("")
    return {(*row, detail) for row, detail in zip(shown.itertuples(index=False), details(marks), strict=True)}


def test_a_mark_that_is_not_merged_keeps_all_that_it_says(opened: Any) -> None:
    marks = marks_of(*opened["compute_numpy"])
    drawn = merge_marks(marks, 10_000, len(marks) // 2)
    alone = drawn[drawn["count"] == 1]
    assert {"calls", "copies to host"} <= set(alone["lane"])
    assert len(alone) < len(drawn)
    assert said(alone) <= said(marks)


def test_details_say_whose_mark_it_is_and_how_quick_a_copy_was(opened: Any) -> None:
    marks = marks_of(*opened["compute_numpy"], calls=1)
    texts = marks.assign(detail=details(marks)).groupby("lane")["detail"].unique().map(list).to_dict()
    assert texts["calls"] == texts["host calls"] == [""]
    assert "MatMul on CUDA, compute" in texts["nodes"]
    assert any(text.startswith("of MatMul") and text.endswith(", compute") for text in texts["kernels"])
    (home,) = texts["copies to host"]
    assert home.startswith("d2h, 33.6 MB of output y at ")
    assert home.endswith("GB/s")


def test_a_copy_of_unknown_size_or_no_length_has_no_rate(opened: Any) -> None:
    marks = marks_of(*opened["compute_numpy"], calls=1)
    copy = marks[marks["lane"] == "copies to host"].head(1)
    assert details(copy.assign(bytes=None)) == ["d2h, – of output y at –"]
    assert details(copy.assign(end_ns=copy["start_ns"])) == ["d2h, 33.6 MB of output y at –"]


def test_a_timeline_without_calls_says_so(opened: Any) -> None:
    marks = marks_of(*opened["compute_numpy"], calls=0)
    assert list(marks.columns) == COLUMNS
    assert timeline(marks).layout.annotations[0].text.startswith("No call was traced")


spans = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60), st.sampled_from("ab")), min_size=1, max_size=60)


@given(spans, st.integers(1, 20))
def test_merged_marks_cover_what_their_parts_covered(parts: list[tuple[int, int, str]], most: int) -> None:
    rows = [("kernels", start, start + length, name, "memory", 1, 1.0) for start, length, name in sorted(parts)]
    merged = merge_marks(pd.DataFrame(rows, columns=COLUMNS[:7]).reindex(columns=COLUMNS), 100, most)
    assert len(merged) <= max(most, 1)
    assert merged["count"].sum() >= len(rows)  # what reaches into two marks counts in both
    covered = {moment for start, length, _ in parts for moment in range(start, start + length)}
    inside = {moment for row in merged.itertuples() for moment in range(row.start_ns, row.end_ns)}
    assert covered <= inside
    for row in merged.itertuples():
        mine = set(range(row.start_ns, row.end_ns))
        assert row.busy == pytest.approx(len(covered & mine) / len(mine))


# nodes and roofline


def test_top_nodes_sum_to_the_time_of_the_nodes(opened: Any) -> None:
    _, diagnosis = opened["decoder_device"]
    table = diagnosis.nodes.nodes
    figure = top_nodes(table, count=10)
    assert sum(sum(values(bar.x)) for bar in figure.data) == pytest.approx(table["time_ns"].head(10).sum() / 1e3)
    assert figure.layout.xaxis.title.text == "time per call (µs)"
    assert f"10 longest of {len(table)} nodes" in figure.layout.title.text


def test_roofline_draws_each_node_once_or_counts_it(opened: Any) -> None:
    run, diagnosis = opened["decoder_device"]
    table = diagnosis.nodes.nodes
    figure = roofline(table, run.manifest.ceilings, tf32=True)
    dots = [trace for trace in figure.data if trace.mode == "markers"]
    drawn = sum(len(values(trace.x)) for trace in dots)
    assert f"{len(table) - drawn} of {len(table)} nodes have no arithmetic" in figure.layout.title.text
    rates = np.sort(np.concatenate([values(trace.y) for trace in dots]))
    flops = table[["tensor_flops", "fp_flops", "special_flops"]].sum(axis=1)
    expected = np.sort((flops / table["time_ns"] * 1e9)[flops > 0])
    np.testing.assert_allclose(rates, expected)


def test_roofline_names_the_ceilings_that_the_nodes_can_reach() -> None:
    ceilings = Ceilings(flops_per_s={"tensor:tf32": 4e14, "tensor:float16": 8e14, "fp:float32": 6e13})
    nodes = pd.DataFrame({"tensor_flops": [1e9, 0.0], "dtype": ["float32", "float16"]})
    assert ceilings_in_use(nodes, ceilings, tf32=True) == {"float32 tensor units (TF32)": 4e14, "float32 units": 6e13}
    assert ceilings_in_use(nodes, ceilings, tf32=False) == {"float32 units": 6e13}


# latency and samples


def test_latency_band_keeps_the_extremes_of_many_calls() -> None:
    rng = np.random.default_rng(1)
    duration = rng.integers(1_000_000, 1_200_000, 5000)
    latency = pd.DataFrame({"call": range(5000), "phase": "measured", "duration_ns": duration})
    bare = LatencyInfo(
        median_ns=1.1e6, ci_low_ns=1.09e6, ci_high_ns=1.11e6, measured_calls=5000, warmup_calls=0, stopped_by="budget"
    )
    figure = latency_series(latency, bare)
    drawn = [y for trace in figure.data for y in values(trace.y)]
    assert min(drawn) == duration.min() / 1e6
    assert max(drawn) == duration.max() / 1e6
    assert len(drawn) < 5000


def test_latency_says_which_calls_are_out_of_the_picture(opened: Any) -> None:
    run, diagnosis = opened["compute_numpy"]
    figure = latency_series(rows_of(run, "latency", "latency"), diagnosis.latency)
    first = rows_of(run, "latency", "latency").query("call == 0")["duration_ns"].item() / 1e6
    assert f"the first call lies above the picture, at {first:.0f} ms" in figure.layout.title.text
    assert figure.layout.yaxis.range[1] < first


def test_samples_are_drawn_in_their_units(opened: Any) -> None:
    run, _ = opened["compute_numpy"]
    figure = device_samples(run.samples, run.ranges)
    highest = run.samples.query("metric == 'memory_used_bytes'")["value"].max()
    titles = {axis.title.text: axis.anchor for axis in figure.select_yaxes()}
    assert "memory<br>(GB)" in titles
    memory = figure.data[list(titles).index("memory<br>(GB)")]
    assert max(y for y in memory.y if y is not None) == pytest.approx(highest / 1e9)


# every figure


def test_figures_without_data_say_what_would_provide_it() -> None:
    bare = LatencyInfo(median_ns=1, ci_low_ns=1, ci_high_ns=1, measured_calls=0, warmup_calls=0, stopped_by="budget")
    columns = "name op_type time_ns limit dtype flops_per_s efficiency"
    amounts = "read_bytes written_bytes tensor_flops fp_flops special_flops"
    nodes = pd.DataFrame(columns=f"{columns} {amounts}".split())
    for figure in (
        timeline(pd.DataFrame(columns=COLUMNS)),
        top_nodes(nodes),
        roofline(nodes, Ceilings(), tf32=True),
        device_samples(pd.DataFrame(columns=["pass", "time_ns", "device", "metric", "value"]), pd.DataFrame()),
        latency_series(pd.DataFrame(columns=["call", "phase", "duration_ns"]), bare),
    ):
        assert not figure.data
        assert "provide" in figure.layout.annotations[0].text
        assert figure.layout.meta["empty"]


def test_names_from_files_are_shown_and_never_obeyed(opened: Any) -> None:
    run, diagnosis = opened["compute_numpy"]
    hostile = "<b>x</b>&<a href='javascript:1'>"
    table = diagnosis.nodes.nodes.assign(name=hostile)
    marks = marks_of(run, diagnosis).assign(name=hostile)
    for figure in (top_nodes(table), roofline(table, run.manifest.ceilings, tf32=True), timeline(marks)):
        texts = json.loads(figure.to_json())
        assert "&lt;b&gt;x&lt;/b&gt;&amp;" in json.dumps(texts)
        assert "<b>" not in json.dumps(texts)
        assert "<a " not in json.dumps(texts)


def test_a_long_name_keeps_both_ends() -> None:
    name = "/model/" + "x" * 100 + "/MatMul_12"
    short = shorten(name, 40)
    assert len(short) <= 40
    assert short.startswith("/model/")
    assert short.endswith("/MatMul_12")
