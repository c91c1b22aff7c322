"""The raw pairs behind a verdict: what each round gave, base against variant, one fresh process each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures.axes import fit_narrow, log_axis
from workbench.figures.classes import ACCENT
from workbench.figures.metrics import format_change, format_ratio
from workbench.figures.theme import TEXT, empty, shorten, style, text
from workbench.tuning.comparison import CONFIDENCE

_ROW_PIXELS: Final = 44
_SPREAD: Final = 0.32  # of a row, to either side: the rounds of one arm lie below one another, the first on top
_NAME_LENGTH: Final = 26
_LOGARITHMIC_FROM: Final = 4.0  # times, as in the figure of the experiments


def round_ratios(pairs: pd.DataFrame, intervals: Mapping[str, tuple[float, float] | None], unit: str) -> go.Figure:
    """One row per arm, in the order of `intervals`: a dot for each round, from the first above to the last below.

    pairs: arm, round, base, variant (numbers of the two blocks in `unit`), ratio, counts (false for a round that was
    measured again). intervals: of the mean ratio by arm, drawn as a band; None where there is none.
    """
    drawn = pairs[pairs["ratio"] > 0]
    if not len(drawn):
        return empty("No round measured both arms: an experiment measures them one after the other.")
    row_of = {arm: row for row, arm in enumerate(intervals)}
    last = max(int(drawn["round"].max()), 1)
    drawn = drawn.assign(
        y=drawn["arm"].map(row_of) + _SPREAD * (2 * drawn["round"] / last - 1),
        hover=[_hover(row, unit) for row in drawn.to_dict("records")],
    )
    figure = go.Figure()
    _add_intervals(figure, intervals, row_of)
    counts = drawn["counts"].astype(bool)
    for name, rows, symbol in (
        ("a round", drawn[counts], "circle"),
        ("measured again, does not count", drawn[~counts], "x-thin"),
    ):
        if len(rows):
            figure.add_scatter(
                x=rows["ratio"], y=rows["y"], mode="markers", name=name, hovertext=rows["hover"], hoverinfo="text",
                marker={
                    "color": ACCENT, "symbol": symbol, "size": 8,
                    "line": {"width": 2 if symbol == "x-thin" else 1, "color": TEXT},
                },
            )  # fmt: skip
    style(figure, _title(drawn[counts]), height=100 + _ROW_PIXELS * len(row_of), left=10)
    fit_narrow(figure)
    figure.update_yaxes(
        tickvals=list(row_of.values()), ticktext=[text(shorten(arm, _NAME_LENGTH)) for arm in row_of],
        range=[len(row_of) - 0.5, -0.5], showgrid=False, fixedrange=True,
    )  # fmt: skip
    ends = [end for span in intervals.values() if span is not None for end in span]
    figure.update_xaxes(title_text="variant / base", **_axis(np.array([*drawn["ratio"], *ends, 1.0])))
    figure.add_vline(x=1, line={"color": TEXT, "width": 1.5}, layer="below")
    return figure


def _add_intervals(
    figure: go.Figure, intervals: Mapping[str, tuple[float, float] | None], row_of: Mapping[str, int]
) -> None:
    known = [(row_of[arm], span) for arm, span in intervals.items() if span is not None]
    if not known:
        return
    figure.add_scatter(
        x=[x for _, (low, high) in known for x in (low, high, None)],
        y=[y for row, _ in known for y in (row, row, None)],
        mode="lines", opacity=0.25, line={"color": TEXT, "width": 0.6 * _ROW_PIXELS}, hoverinfo="skip",
        name=f"{100 * CONFIDENCE:g} % interval of the mean",
    )  # fmt: skip


def _axis(ratios: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    low, high = float(ratios.min()), float(ratios.max())
    if max(1 / low, high) > _LOGARITHMIC_FROM:
        return log_axis(low, high, "×")
    margin = max(0.06 * (high - low), 0.01)
    return {"range": [low - margin, high + margin], "ticksuffix": "×", "tickangle": 0}


def _hover(row: Mapping[Any, Any], unit: str) -> str:
    lines = [
        f"{shorten(row['arm'], 80)}, round {row['round'] + 1}",
        f"{format_change(row['base'], row['variant'], unit)}: {format_ratio(row['ratio'])}",
        "" if row["counts"] else "disturbed and measured again: does not count",
    ]
    return "<br>".join(text(line) for line in lines if line)


def _title(counted: pd.DataFrame) -> str:
    if not len(counted):
        return "No round counts"
    spans = counted.groupby("arm", sort=False)["ratio"].agg(["min", "max", "size"])
    widest = spans.loc[[(spans["max"] / spans["min"]).idxmax()]]
    (arm, low, high, rounds), *_ = widest.itertuples()
    said = f"{shorten(arm, _NAME_LENGTH)}, {rounds} rounds: {format_ratio(low)} to {format_ratio(high)}"
    return f"Widest of {len(spans)}: {said}" if len(spans) > 1 else said
