"""The figures of gaps and counters draw what the tables hold, and say when they lack data."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.idle_gaps import idle_gaps
from workbench.analysis.tables import measured_calls
from workbench.api import Run
from workbench.figures.counters import hardware_counters
from workbench.figures.gaps import gap_histogram
from workbench.report.notebook_pictures import notebook_pictures

CAUSES = ["host_ns", "launch_latency_ns", "sync_ns"]
UNITS = {"ns": 1.0, "µs": 1e3, "ms": 1e6, "s": 1e9}
NO_RANGES = pd.DataFrame({"pass": [], "name": [], "start_ns": [], "end_ns": []})


def values(array: Any) -> list[float]:
    """The numbers of a trace, whether plotly packed them or not."""
    if isinstance(array, dict):
        return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]).tolist()
    return list(array)


def gaps_of(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=CAUSES, dtype=np.int64)
    return table.assign(duration_ns=table.sum(axis=1), start_ns=0)


def drawn_ns(figure: Any) -> dict[str, float]:
    """Height of all bars of each cause, in nanoseconds."""
    unit = UNITS[figure.layout.yaxis.title.text.rpartition("(")[2].rstrip(")")]
    return {trace.name: sum(values(trace.y)) * unit for trace in figure.data}


def test_idle_time_is_stacked_by_cause_over_the_length_of_its_gap() -> None:
    figure = gap_histogram(gaps_of([(1500, 0, 0), (1000, 0, 500), (0, 40, 0)]), calls=2)
    assert drawn_ns(figure) == pytest.approx(
        {"the host came late": 1250, "launch latency": 20, "waiting in a synchronisation": 250}
    )
    host = figure.data[0]
    ticks = dict(zip(figure.layout.xaxis.ticktext, figure.layout.xaxis.tickvals, strict=True))
    places = [x for x, y in zip(values(host.x), values(host.y), strict=True) if y]
    assert [ticks["1 µs"] < x < ticks["10 µs"] for x in places] == [True]


def test_the_title_says_from_which_length_on_half_of_the_idle_time_lies() -> None:
    figure = gap_histogram(gaps_of([(100, 0, 0)] * 50 + [(5000, 0, 0)]), calls=1)
    assert figure.layout.title.text == "51 gaps in a traced call, half of their 10.0 µs in gaps of 100 ns and more"
    longer = gap_histogram(gaps_of([(100, 0, 0)] * 49 + [(5000, 0, 0)]), calls=1)
    assert longer.layout.title.text.endswith("in gaps of 5.00 µs and more")


@given(
    st.lists(st.tuples(st.integers(1, 10**10), *[st.integers(0, 10**10)] * 2), min_size=1, max_size=40),
    st.integers(1, 9),
)
def test_no_idle_time_is_lost_and_no_cause_is_drawn_that_there_is_not(
    rows: list[tuple[int, int, int]], calls: int
) -> None:
    gaps = gaps_of(rows)
    figure = gap_histogram(gaps, calls)
    sums = dict(
        zip(("the host came late", "launch latency", "waiting in a synchronisation"), gaps[CAUSES].sum(), strict=True)
    )
    assert drawn_ns(figure) == pytest.approx({name: total / calls for name, total in sums.items() if total})


@pytest.mark.parametrize("name", ["resnet50_b1_numpy", "pcie_numpy", "launch_device_graph"])
def test_recorded_gaps_are_drawn_in_full(recorded: Callable[[str], Run], name: str) -> None:
    run = recorded(name)
    gaps, calls = idle_gaps(run, "activity"), len(measured_calls(run, "activity"))
    drawn = notebook_pictures(run)["gaps"]
    assert sum(drawn_ns(drawn).values()) == pytest.approx(gaps["duration_ns"].sum() / calls)


def counted(metric: str, rows: list[tuple[int, int, float]], device: int = 0) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["time_ns", "window_ns", "value"])
    return table.assign(metric=metric, device=device, **{"pass": "counters"})


def test_each_value_is_drawn_over_its_window_and_the_title_has_the_means_while_measured() -> None:
    second = 10**9
    rows = [(second, second, 0.0), (2 * second, second, 40.0), (3 * second, second, 60.0), (4 * second, second, 2.0)]
    ranges = pd.DataFrame({"pass": ["counters"], "name": ["measure"], "start_ns": [second], "end_ns": [3 * second]})
    figure = hardware_counters(counted("sm_active_percent", rows), ranges)
    (line,) = figure.data
    assert np.array_equal(values(line.x), [0, 1, np.nan, 1, 2, np.nan, 2, 3, np.nan, 3, 4, np.nan], equal_nan=True)
    assert np.array_equal(values(line.y), [0, 0, np.nan, 40, 40, np.nan, 60, 60, np.nan, 2, 2, np.nan], equal_nan=True)
    assert figure.layout.title.text == "While calls were measured: SMs active 50 %"
    (shaded,) = figure.layout.shapes
    assert (shaded.x0, shaded.x1) == (1, 3)


def test_bytes_are_drawn_in_gigabytes_and_units_that_never_worked_are_left_out() -> None:
    rows = [(10**9, 10**9, 2.5e9)]
    table = pd.concat(
        [counted("pcie_rx_bytes_per_s", rows), counted("fp16_active_percent", [(10**9, 10**9, 0.0)])],
        ignore_index=True,
    )
    figure = hardware_counters(table, NO_RANGES)
    assert [trace.name for trace in figure.data] == ["PCIe to GPU"]
    assert values(figure.data[0].y)[:2] == [2.5, 2.5]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=5000))
def test_thinned_windows_keep_their_mean(numbers: list[float]) -> None:
    table = counted("tensor_active_percent", [(at + 1, 1, value) for at, value in enumerate(numbers)])
    line = hardware_counters(table, NO_RANGES).data[0]
    x, y = np.array(values(line.x)), np.array(values(line.y))
    assert len(y) <= 3 * 1000
    widths = x[1::3] - x[::3]
    assert np.average(y[::3], weights=widths) == pytest.approx(np.mean(numbers), abs=1e-6)
    assert widths.sum() == pytest.approx(len(numbers) / 1e9)


def test_without_data_the_figures_say_what_would_provide_it(recorded: Callable[[str], Run]) -> None:
    empty = recorded("launch_numpy").counters.iloc[:0]
    assert "GPM" in hardware_counters(empty, NO_RANGES).layout.annotations[0].text
    assert "activity" in gap_histogram(gaps_of([]), calls=3).layout.annotations[0].text


def test_the_second_device_is_not_mixed_into_the_first() -> None:
    rows = [(10**9, 10**9, 10.0)]
    table = pd.concat([counted("sm_active_percent", rows, 1), counted("sm_active_percent", [(10**9, 10**9, 90.0)])])
    assert hardware_counters(table, NO_RANGES).layout.title.text == "On average: SMs active 90 %"
