"""What a search measured, trial after trial, and the best that it had found by then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures.axes import fit_narrow, log_axis
from workbench.figures.classes import ACCENT
from workbench.figures.metrics import format_metric, metric_name, metric_scale
from workbench.figures.theme import TEXT, empty, shorten, style, text

_MARK: Final = "#EE3377"  # as the best is marked in the other figures of tuning
_LOGARITHMIC_FROM: Final = 10.0  # times: on a linear axis the good trials would lie on one another


class _Look(NamedTuple):
    symbol: str
    colour: str


_LOOKS: Final = {
    "complete": _Look("circle", ACCENT),
    "misses a constraint": _Look("circle-open", TEXT),
    "given up early": _Look("x-thin", TEXT),
}


def search_history(trials: pd.DataFrame, *, metric: str, unit: str, smaller_is_better: bool) -> go.Figure:
    """A dot for each trial in the order in which they ran, and the best so far as a line.

    trials: number (growing), words (what differs from the base), state, feasible (null where not known), value
    (float64, of `metric` in `unit`, NaN where not measured). The line follows the complete trials that keep every
    constraint.
    """
    drawn = trials[trials["value"] > 0]
    if not len(drawn):
        return empty("No trial was measured: the table says why.")
    scale = metric_scale(float(drawn["value"].max()), unit)
    drawn = drawn.assign(
        y=drawn["value"] / scale.divisor,
        group=[_group(*row) for row in drawn[["state", "feasible"]].to_numpy(object)],
        hover=[_hover(row, metric, unit) for row in drawn.to_dict("records")],
    )
    figure = go.Figure()
    kept = drawn[drawn["group"] == "complete"]
    so_far = kept["value"].cummin() if smaller_is_better else kept["value"].cummax()
    if len(kept):
        figure.add_scatter(
            x=[*kept["number"], trials["number"].max()], y=np.append(so_far, so_far.iloc[-1]) / scale.divisor,
            mode="lines", name="best so far", hoverinfo="skip", line={"color": _MARK, "width": 2, "shape": "hv"},
        )  # fmt: skip
    for name, look in _LOOKS.items():
        group = drawn[drawn["group"] == name]
        if len(group):
            figure.add_scatter(
                x=group["number"], y=group["y"], mode="markers", name=name, hovertext=group["hover"], hoverinfo="text",
                marker={
                    "color": look.colour, "symbol": look.symbol, "size": 8,
                    "line": {"width": 2 if look.symbol == "x-thin" else 1, "color": TEXT},
                },
            )  # fmt: skip
    style(figure, _title(kept, so_far, len(trials), len(drawn), unit), height=320, left=70)
    fit_narrow(figure)
    figure.update_xaxes(tick0=0, dtick=max(1, -(-len(trials) // 10)), title_text="trial", tickformat="d")
    figure.update_yaxes(title_text=f"{text(metric_name(metric))} ({scale.unit})", **_axis(drawn["y"].to_numpy()))
    figure.update_layout(hovermode="closest")
    return figure


def _group(state: str, feasible: bool | None) -> str:
    """A key of `_LOOKS`."""
    if state != "complete":
        return "given up early"
    return "complete" if feasible is not None and bool(feasible) else "misses a constraint"


def _axis(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    if high / low > _LOGARITHMIC_FROM:
        return log_axis(low, high)
    return {"range": [0, 1.08 * high], "exponentformat": "none", "separatethousands": True, "nticks": 8}


def _hover(row: Mapping[Any, Any], metric: str, unit: str) -> str:
    lines = [
        f"trial {row['number']}: {shorten(row['words'], 80)}",
        f"{metric_name(metric)} {format_metric(row['value'], unit)}",
    ]
    return "<br>".join(text(line) for line in lines)


def _title(kept: pd.DataFrame, so_far: pd.Series, trials: int, measured: int, unit: str) -> str:
    lost = f"; {trials - measured} not measured" if trials > measured else ""
    if not len(kept):
        return f"None of {trials} trials is complete and keeps every constraint{lost}"
    best = so_far.iloc[-1]
    number = kept.loc[kept["value"] == best, "number"].iloc[0]
    return f"Best {format_metric(best, unit)}, of trial {number}; {trials} trials{lost}"
