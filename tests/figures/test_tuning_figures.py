"""The figures of tuning draw what the tables hold: every row once, at its numbers, called what it is."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.figures.axes import log_axis
from workbench.figures.classes import COLOURS
from workbench.figures.cold_start import cold_start
from workbench.figures.experiments import COLUMNS, OUTCOMES, before_after
from workbench.figures.kernels import FAMILY_COLOURS
from workbench.figures.pareto import front_of, pareto
from workbench.figures.sweep import class_letter, sweep_map
from workbench.figures.units import format_rate

NAN = math.nan
NO_DIFFERENCE = "no difference that these data can show"
_P50 = ("latency:p50", "ns", 1.56e6)
_NONE = (NAN, NAN, NAN)
EXPERIMENTS = pd.DataFrame(
    [
        ("graph", "CUDA graph", *_P50, 5.35e5, 0.343, 0.338, 0.349, "faster", 0.36, 0.31, 0.42, "within"),
        ("tf32", "TF32 off", *_P50, 1.66e6, 1.064, 1.05, 1.08, "slower", *_NONE, "within"),
        ("fp16", "FP16 <b>", *_P50, 1.2e6, 0.77, 0.75, 0.79, "faster", 0.7, 0.5, 0.9, "beyond"),
        ("nhwc", "NHWC", *_P50, 1.561e6, 1.001, 0.99, 1.01, NO_DIFFERENCE, *_NONE, "not checked"),
        ("two", "Two rounds", *_P50, 1.4e6, 0.9, NAN, NAN, "not measured", *_NONE, "within"),
        ("int8", "INT8", *_P50, NAN, *_NONE, "does not apply", 0.8, 0.6, 1.1, "not checked"),
    ],
    columns=COLUMNS,
)


def dots(figure: go.Figure) -> dict[str, dict[int, float]]:
    """Row → place of the dots of each name in the legend."""
    marks = [trace for trace in figure.data if trace.mode == "markers" and trace.name]
    return {trace.name: dict(zip(map(int, trace.y), map(float, trace.x), strict=True)) for trace in marks}


def everything_said(figure: go.Figure) -> str:
    return json.dumps(figure.to_plotly_json(), default=str, ensure_ascii=False)


# before and after


def test_every_measured_ratio_is_one_dot_called_by_its_outcome() -> None:
    found = dots(before_after(EXPERIMENTS))
    predicted = found.pop("predicted")
    assert found == {
        "faster": {0: 0.343},
        "slower": {1: 1.064},
        "outputs changed": {2: 0.77},
        "no difference": {3: 1.001},
        "not measured": {4: 0.9},
    }
    assert predicted == {0: 0.36, 2: 0.7, 5: 0.8}


def test_whiskers_reach_from_low_to_high_and_an_unknown_interval_has_none() -> None:
    figure = before_after(EXPERIMENTS)
    whiskers = {trace.name: trace.error_x for trace in figure.data if trace.error_x.array is not None}
    assert whiskers["faster"].array == pytest.approx([0.006])
    assert whiskers["faster"].arrayminus == pytest.approx([0.005])
    assert whiskers["not measured"].array == whiskers["not measured"].arrayminus == [0]


def test_changed_outputs_are_no_help_and_what_was_not_measured_does_not_count() -> None:
    figure = before_after(EXPERIMENTS)
    assert figure.layout.title.text == "1 of 5 helped; graph 0.343×"
    assert before_after(EXPERIMENTS.iloc[[1, 2, 5]]).layout.title.text == "None of 2 changes helped"
    assert before_after(EXPERIMENTS.iloc[[0]]).layout.title.text == "graph: 1.56 ms → 535 µs"
    assert before_after(EXPERIMENTS.iloc[[5]]).layout.title.text == "int8: does not apply"


def test_labels_carry_the_times_and_the_reason_of_a_missing_one() -> None:
    labels = before_after(EXPERIMENTS).layout.yaxis.ticktext
    assert "1.56 ms → 535 µs (0.343×)" in labels[0]
    assert "1.56 → 1.66 ms (1.06×)" in labels[1]
    assert "does not apply" in labels[5]
    assert not any("nan" in label for label in labels)


def test_names_cannot_become_markup() -> None:
    assert "FP16 <b>" not in everything_said(before_after(EXPERIMENTS))
    candidates = pd.DataFrame([("<i>a</i>", 1, 1.0, 1, True, None)], columns=CANDIDATES)
    assert "<i>a" not in everything_said(pareto(candidates, best="<i>a</i>"))
    assert "<i>a" not in everything_said(cold_start(steps({"<i>a</i>": {"import": 5}})))


@pytest.mark.parametrize(("ratio", "kind"), [(0.26, "linear"), (0.24, "log"), (3.9, "linear"), (4.1, "log")])
def test_the_axis_is_logarithmic_for_a_change_of_more_than_fourfold(ratio: float, kind: str) -> None:
    rows = EXPERIMENTS.iloc[[3]].assign(ratio=ratio, low=ratio, high=ratio)
    axis = before_after(rows).layout.xaxis
    assert (axis.type or "linear") == kind
    drawn = [10**each for each in axis.range] if kind == "log" else axis.range
    assert drawn[0] < min(ratio, 1) < max(ratio, 1) < drawn[1]


def test_metrics_are_named_in_each_row_where_they_differ() -> None:
    memory = EXPERIMENTS.iloc[[0]].assign(metric="memory", unit="bytes", base=4e9, variant=2e9, outcome="smaller")
    figure = before_after(pd.concat([EXPERIMENTS.iloc[[0]], memory]))
    assert "memory: 4.00 → 2.00 GB" in figure.layout.yaxis.ticktext[1]
    assert "faster, smaller" in dots(figure)
    assert figure.layout.xaxis.title.text == "variant / base"


def test_outcomes_differ_in_colour_or_symbol_and_never_look_like_a_class_or_family() -> None:
    looks = [(look.colour, look.symbol) for look in OUTCOMES.values()]
    assert len(set(looks)) == len(looks)
    assert not {colour for colour, _ in looks} & {*COLOURS.values(), *FAMILY_COLOURS.values()}


# Pareto front

CANDIDATES = ["name", "latency_ns", "items_per_s", "memory_bytes", "feasible", "error"]
FIVE = pd.DataFrame(
    [
        ("quick", 1_000_000, 1000.0, 10**9, True, None),
        ("middle", 2_000_000, 3000.0, 2 * 10**9, True, None),
        ("beaten", 3_000_000, 2000.0, 3 * 10**9, True, None),
        ("too slow", 9_000_000, 9000.0, 4 * 10**9, False, None),
        ("unknown memory", 4_000_000, 3500.0, None, True, None),
        ("failed", None, NAN, None, False, "out of memory"),
    ],
    columns=CANDIDATES,
).astype({"latency_ns": "Int64", "memory_bytes": "Int64"})


def named(figure: go.Figure, name: str) -> go.Scatter:
    return next(trace for trace in figure.data if trace.name == name)


def test_the_front_is_of_the_feasible_and_the_others_are_hollow() -> None:
    figure = pareto(FIVE, best="middle", latency_name="P99 latency")
    assert list(named(figure, "front").x) == pytest.approx([1, 2, 4])
    assert list(named(figure, "misses a constraint").x) == [9]
    assert named(figure, "misses a constraint").marker.symbol.endswith("open")
    assert list(named(figure, "peak memory not known").x) == [4]
    assert list(named(figure, "measured").marker.color) == pytest.approx([1, 2, 3])
    assert (list(named(figure, "best: middle").x), list(named(figure, "best: middle").y)) == ([2], [3000])
    assert figure.layout.xaxis.title.text == "P99 latency (ms)"
    assert figure.layout.title.text == "Best: 3,000 items/s at 2.00 ms; 1 cannot be drawn"


def test_memory_can_be_the_axis_and_latency_the_colour() -> None:
    figure = pareto(FIVE, across="memory", best="middle")
    assert figure.layout.xaxis.title.text == "peak memory (GB)"
    assert list(named(figure, "front").x) == pytest.approx([1, 2])
    assert list(named(figure, "measured").marker.color) == pytest.approx([1, 2, 3])
    assert figure.layout.title.text == "Best: 3,000 items/s at 2.00 GB; 2 cannot be drawn"


points = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12)


@given(points)
def test_the_front_holds_what_no_other_beats(found: list[tuple[int, int]]) -> None:
    cost, gain = np.array(found, np.float64).reshape(-1, 2).T
    beaten = [any(c <= x and g >= y and (c, g) != (x, y) for c, g in found) for x, y in found]
    assert front_of(cost, gain).tolist() == [not each for each in beaten]


# batch × concurrency

CELLS = pd.DataFrame(
    {
        "batch": [1, 1, 8, 8],
        "concurrency": [1, 4, 1, 4],
        "p50_ns": pd.array([10**6, 2 * 10**6, 3 * 10**6, None], "Int64"),
        "p90_ns": pd.array([10**6, 2 * 10**6, 3 * 10**6, None], "Int64"),
        "p99_ns": pd.array([1_100_000, 2_200_000, None, None], "Int64"),
        "items_per_s": [1000.0, 2000.0, 2666.7, NAN],
        "peak_device_bytes": pd.array([10**9, None, 10**9, None], "Int64"),
        "peak_host_bytes": pd.array([10**9, None, 10**9, None], "Int64"),
        "klass": ["launch", "compute+memory", "inconclusive", None],
        "note": [None, None, "P99 not measured, because 60 calls are too few", None],
        "error_kind": [None, None, None, "OutOfMemoryError"],
        "error": [None, None, None, "The device ran out of memory."],
    }
)


def test_each_cell_of_the_map_holds_its_numbers_and_class() -> None:
    (heat,) = [trace for trace in sweep_map(CELLS).data if trace.type == "heatmap"]
    np.testing.assert_array_equal(heat.z, [[1000, 2000], [2666.7, np.nan]])
    assert heat.text[0][0] == "<b>1,000</b><br>1.10 ms<br>L"
    assert heat.text[0][1].endswith("C+M")
    assert heat.text[1][0] == "<b>2,670</b><br>–<br>?"
    assert "too few" in heat.hovertext[1][0]


def test_a_cell_without_memory_is_hatched_and_says_why() -> None:
    (bar,) = [trace for trace in sweep_map(CELLS).data if trace.type == "bar"]
    assert (list(bar.x), list(bar.base + np.array(bar.y) / 2)) == ([1], [1])
    assert bar.marker.pattern.shape == "/"
    assert bar.text[0].replace("<br>", " ") == "out of memory"
    assert "The device ran out of memory." in bar.hovertext[0]


def test_knee_and_best_are_outlined_where_they_lie() -> None:
    figure = sweep_map(CELLS, knee=(1, 4), best=(8, 1), constraint="p99<3ms", met=False)
    outlines = {
        trace.name: (np.mean(trace.x[:4]), np.mean(trace.y[:4])) for trace in figure.data if trace.type == "scatter"
    }
    assert outlines == {"knee: batch 1 × 4": (1, 0), "best: batch 8 × 1": (0, 1)}
    assert figure.layout.title.text == "p99<3ms is never met; closest batch 8 × 1: 2,670 items/s".replace("<", "&lt;")


def test_a_map_of_failures_alone_says_so() -> None:
    assert sweep_map(CELLS.iloc[[3]]).layout.title.text == "No cell could be measured"
    assert sweep_map(CELLS.iloc[:0]).layout.meta == {"empty": True}


def test_letters_and_rates() -> None:
    assert [class_letter(klass) for klass in ("compute", "launch+pcie", "inconclusive")] == ["C", "L+P", "?"]
    assert [format_rate(rate) for rate in (12_345.0, 0.12345, None, NAN)] == [
        "12,300 items/s",
        "0.123 items/s",
        "–",
        "–",
    ]


# cold start


def steps(configurations: dict[str, dict[str, int | None]]) -> pd.DataFrame:
    rows = [
        (name, step, ns, None if ns is None else ns - 1, None if ns is None else ns + 2)
        for name, found in configurations.items()
        for step, ns in found.items()
    ]
    columns = ["configuration", "step", "duration_ns", "low_ns", "high_ns"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:], "Int64"))


def bars(figure: go.Figure) -> list[tuple[str, int, float]]:
    return [
        (trace.name, int(row), float(x))
        for trace in figure.data
        if trace.type == "bar"
        for row, x in zip(trace.y, trace.x, strict=True)
    ]


TWO = steps(
    {
        "base": {"import": 100, "session": 300, "first call": 500, "shape 2": 50, "shape 3": 40},
        "variant": {"import": 100, "session": None, "first call": 200},
    }
)


def test_every_step_is_a_segment_of_its_configuration() -> None:
    figure = cold_start(TWO)
    assert bars(figure) == [
        ("import", 0, 100), ("import", 1, 100), ("session", 0, 300), ("first call", 0, 500), ("first call", 1, 200),
        ("later shapes", 0, 50), ("later shapes", 0, 40),
    ]  # fmt: skip
    assert [trace.name for trace in figure.data if trace.showlegend].count("later shapes") == 1
    assert figure.layout.xaxis.title.text == "time (ns)"
    assert figure.layout.title.text == "base starts in 990 ns: 51 % first call"


def test_an_unknown_step_makes_the_sum_a_lower_bound() -> None:
    labels = cold_start(TWO).layout.yaxis.ticktext
    assert ">990 ns<" in labels[0]
    assert ">at least 300 ns<" in labels[1]
    alone = cold_start(steps({"a": {"import": 5, "session": None}, "b": {"import": None}}))
    assert alone.layout.title.text.startswith("a starts in at least 5 ns")
    assert "not timed" in alone.layout.yaxis.ticktext[1]
    assert cold_start(steps({"b": {"import": None}})).layout.meta == {"empty": True}


def test_the_interval_of_a_step_stands_at_its_end() -> None:
    wide = TWO.assign(low_ns=TWO["duration_ns"] - 10, high_ns=TWO["duration_ns"] + 20)
    whiskers = named(cold_start(wide), "95 % interval")
    ends = {(round(float(y)), float(x)) for x, y in zip(whiskers.x, whiskers.y, strict=True)}
    assert ends == {(0, 100), (0, 400), (0, 900), (0, 950), (0, 990), (1, 100), (1, 300)}
    assert (set(whiskers.error_x.arrayminus), set(whiskers.error_x.array)) == ({10}, {20})


# axes


@given(st.floats(1e-4, 1e4), st.floats(1.5, 1e6))
def test_a_logarithmic_axis_holds_its_values_and_ticks_that_can_be_read(low: float, factor: float) -> None:
    axis = log_axis(low, low * factor)
    begin, end = axis["range"]
    assert begin < math.log10(low) < math.log10(low * factor) < end
    assert all(begin <= math.log10(tick) <= end for tick in axis["tickvals"])
    assert len(axis["tickvals"]) <= 10
    assert [float(said.replace(",", "")) for said in axis["ticktext"]] == pytest.approx(axis["tickvals"])
