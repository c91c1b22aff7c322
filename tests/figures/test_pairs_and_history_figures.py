"""Every round is one dot at its ratio, every trial one at its value, and the line below them is the best so far."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.figures.history import search_history
from workbench.figures.metrics import format_change, format_interval, format_ratio, metric_name
from workbench.figures.rounds import round_ratios

PAIRS = pd.DataFrame(
    [
        ("graph", 0, 2e6, 1e6, 0.5, True),
        ("graph", 1, 2e6, 1.2e6, 0.6, False),
        ("graph", 1, 2e6, 1.1e6, 0.55, True),
        ("<b>", 0, 2e6, 2e6, 1.0, True),
        ("<b>", 1, 2e6, math.nan, math.nan, True),
    ],
    columns=["arm", "round", "base", "variant", "ratio", "counts"],
)
INTERVALS = {"graph": (0.4, 0.7), "<b>": None}


def named(figure: go.Figure, name: str) -> Any:
    return next(trace for trace in figure.data if trace.name == name)


def test_rounds_that_count_are_dots_and_those_that_do_not_are_crosses() -> None:
    figure = round_ratios(PAIRS, INTERVALS, "ns")
    assert list(named(figure, "a round").x) == [0.5, 0.55, 1.0]
    assert list(named(figure, "measured again, does not count").x) == [0.6]
    assert list(named(figure, "98 % interval of the mean").x) == [0.4, 0.7, None]
    assert figure.layout.title.text == "Widest of 2: graph, 2 rounds: 0.500× to 0.550×"
    assert named(figure, "a round").hovertext[1] == "graph, round 2<br>2.00 → 1.10 ms: 0.550×"


def test_rounds_lie_inside_the_row_of_their_arm_the_first_above() -> None:
    figure = round_ratios(PAIRS, INTERVALS, "ns")
    first, second, other = named(figure, "a round").y
    assert -0.5 < first < 0 < second < 0.5 < other < 1


def test_pairs_that_were_not_measured_are_no_dots() -> None:
    assert round_ratios(PAIRS.iloc[[4]], INTERVALS, "ns").layout.meta == {"empty": True}
    assert round_ratios(PAIRS.iloc[[1]], INTERVALS, "ns").layout.title.text == "No round counts"


@pytest.mark.parametrize(("ratio", "kind"), [(0.26, "linear"), (0.24, "log")])
def test_the_axis_holds_all_rounds_and_one(ratio: float, kind: str) -> None:
    axis = round_ratios(PAIRS.assign(ratio=ratio), {"graph": None, "<b>": None}, "ns").layout.xaxis
    low, high = [10**each for each in axis.range] if kind == "log" else axis.range
    assert (axis.type or "linear") == kind
    assert low < ratio < 1 < high


def trials(*rows: tuple[str, bool | None, float]) -> pd.DataFrame:
    found = [(number, f"<i>{number}", *row) for number, row in enumerate(rows)]
    return pd.DataFrame(found, columns=["number", "words", "state", "feasible", "value"])


def history(table: pd.DataFrame, smaller: bool = True) -> go.Figure:
    return search_history(table, metric="latency:p99", unit="ns", smaller_is_better=smaller)


HISTORY = trials(
    ("complete", True, 4e6), ("complete", False, 1e6), ("complete", True, 3e6), ("pruned", True, 9e6),
    ("failed", None, math.nan), ("complete", True, 5e6), ("impossible", None, math.nan),
)  # fmt: skip


def test_trials_are_told_apart_and_the_line_follows_those_that_keep_the_constraints() -> None:
    figure = history(HISTORY)
    dots = {trace.name: list(trace.x) for trace in figure.data if trace.mode == "markers"}
    assert dots == {"complete": [0, 2, 5], "misses a constraint": [1], "given up early": [3]}
    assert list(named(figure, "best so far").y) == pytest.approx([4, 3, 3, 3])
    assert list(named(figure, "best so far").x) == [0, 2, 5, 6]
    assert figure.layout.title.text == "Best 3.00 ms, of trial 2; 7 trials; 2 not measured"
    assert figure.layout.yaxis.title.text == "P99 latency (ms)"


def test_a_search_without_a_usable_trial_says_so() -> None:
    assert history(HISTORY.iloc[[4, 6]]).layout.meta == {"empty": True}
    title = history(HISTORY.iloc[[1, 3]]).layout.title.text
    assert title == "None of 2 trials is complete and keeps every constraint"


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=20), st.booleans())
def test_the_line_is_the_best_of_all_trials_so_far(values: list[float], smaller: bool) -> None:
    table = trials(*(("complete", True, value) for value in values))
    figure = history(table, smaller)
    pick = min if smaller else max
    line = np.array(named(figure, "best so far").y)
    dots = np.array(named(figure, "complete").y)
    assert line[:-1] == pytest.approx([pick(dots[: end + 1]) for end in range(len(dots))])


def test_names_cannot_become_markup() -> None:
    for figure in (history(HISTORY), round_ratios(PAIRS, INTERVALS, "ns")):
        said = json.dumps(figure.to_plotly_json(), default=str)
        assert "<i>0" not in said
        assert '"<b>' not in said


def test_metrics_in_words() -> None:
    assert [metric_name(name) for name in ("latency:p99.9", "memory", "cold-start:session", "throughput")] == [
        "P99.9 latency", "peak device memory", "cold start, session", "throughput",
    ]  # fmt: skip
    assert format_change(1.56e6, 5.35e5, "ns") == "1.56 ms → 535 µs"
    assert format_change(4e9, None, "bytes") == "4.00 GB → –"
    assert format_change(None, None, "items/s") == "– → –"
    assert (format_ratio(0.00248), format_ratio(123.4), format_ratio(math.nan)) == ("0.00248×", "123×", "–")
    assert (format_interval(0.5, 2), format_interval(None, 2)) == ("0.500× to 2.00×", "–")
