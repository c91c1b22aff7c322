"""The figures of a validation draw every share and every bin once, at its numbers."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.figures.classes import COLOURS
from workbench.figures.validation import binned, reliability, share_scatter

TOLERANCE = {"pcie": 0.10, "launch": 0.10, "compute": 0.15}
SHARES = pd.DataFrame(
    [
        ("a-numpy", "pcie", "io-binding-device", 0.50, 0.55, 0.45, 0.65, 1, True),
        ("b-device", "launch", "cuda-graph", 0.80, 0.60, 0.55, 0.66, 3, False),
        ("c-device", "launch", "batch-x4", 0.70, 0.72, 0.70, 0.74, 3, True),
        ("d-<b>", "compute", "tf32-off", 0.00, -0.30, -0.40, -0.20, 1, False),
    ],
    columns=["cell", "share", "lever", "traced", "interventional", "low", "high", "rounds", "within"],
)
EVERY, LESS = "everything", "latency and NVML"
judgements = st.lists(
    st.tuples(st.sampled_from((EVERY, LESS)), st.floats(0, 1), st.booleans()), min_size=1, max_size=40
)


def marks(figure):
    return {trace.name: trace for trace in figure.data if trace.mode == "markers"}


def test_every_share_is_one_dot_in_the_colour_of_its_class():
    found = marks(share_scatter(SHARES, TOLERANCE))
    assert {(trace.x[0], trace.y[0]) for trace in found.values()} == {(0.55, 0.5), (0.6, 0.8), (0.72, 0.7), (-0.3, 0.0)}
    colours = {name: trace.marker.color for name, trace in found.items()}
    assert colours == {
        "PCIe copies, by io-binding-device": COLOURS["pcie"],
        "launch, by cuda-graph": COLOURS["launch"],
        "launch, by batch-x4": COLOURS["launch"],
        "compute, by tf32-off": COLOURS["compute"],
    }
    assert found["launch, by cuda-graph"].marker.symbol != found["launch, by batch-x4"].marker.symbol


def test_the_bars_reach_from_low_to_high():
    for name, trace in marks(share_scatter(SHARES, TOLERANCE)).items():
        row = SHARES[SHARES["lever"] == name.split(", by ")[1]].iloc[0]
        assert trace.x[0] + trace.error_x.array[0] == pytest.approx(row["high"])
        assert trace.x[0] - trace.error_x.arrayminus[0] == pytest.approx(row["low"])


def test_a_dot_lies_in_its_band_when_it_is_within():
    figure = share_scatter(SHARES, TOLERANCE)
    bands = {trace.name: trace for trace in figure.data if trace.fill == "toself"}
    assert set(bands) == {"within 0.1", "within 0.15"}
    for width, band in ((0.1, bands["within 0.1"]), (0.15, bands["within 0.15"])):
        low, high = band.x[0], band.x[1]
        assert low < -0.3 < 1 < high
        assert sorted(band.y[:2] + band.y[2:]) == pytest.approx(
            sorted([low - width, high - width, high + width, low + width])
        )


def test_the_hover_names_cell_lever_and_numbers_and_escapes_names():
    found = marks(share_scatter(SHARES, TOLERANCE))
    said = found["compute, by tf32-off"].hovertext[0]
    assert "d-&lt;b&gt;" in said
    assert "-0.300 (-0.400 to -0.200, 1 round)" in said
    assert "traced 0.000" in said
    assert "3 rounds" in found["launch, by cuda-graph"].hovertext[0]


def test_titles_count():
    assert share_scatter(SHARES, TOLERANCE).layout.title.text == "Trace and intervention agree on 2 of 4 shares"
    rows = pd.DataFrame({"sources": EVERY, "confidence": [0.9, 0.7], "right": [True, False]})
    assert reliability(rows, (EVERY,), 10).layout.title.text == "50% right at a mean confidence of 0.80, everything"


def test_nothing_measured_says_what_would_provide_it():
    assert "--live" in share_scatter(SHARES.iloc[:0], TOLERANCE).layout.annotations[0].text
    empty = pd.DataFrame({"sources": [], "confidence": [], "right": []})
    assert "workbench validate" in reliability(empty, (EVERY,), 10).layout.annotations[0].text


@given(judgements, st.integers(1, 12))
def test_every_verdict_counts_in_one_bin_whose_means_are_those_of_its_verdicts(given_, bins):
    rows = pd.DataFrame(given_, columns=["sources", "confidence", "right"])
    table = binned(rows, bins)
    assert table["cells"].sum() == len(given_)
    for row in table.to_dict("records"):
        mine = [
            (confidence, right)
            for sources, confidence, right in given_
            if sources == row["sources"] and min(int(confidence * bins), bins - 1) == row["bin"]
        ]
        assert row["cells"] == len(mine)
        assert row["right"] == pytest.approx(sum(right for _, right in mine) / len(mine))
        assert row["confidence"] == pytest.approx(sum(confidence for confidence, _ in mine) / len(mine))


def test_sources_that_were_not_asked_for_are_left_out():
    rows = pd.DataFrame({"sources": [EVERY, LESS], "confidence": [0.95, 0.5], "right": [True, True]})
    figure = reliability(rows, (EVERY,), 10)
    assert list(marks(figure)) == [EVERY]
    assert LESS not in json.dumps(figure.to_plotly_json(), default=str)
