"""The latency of every call, bare: warm-up, measured calls, and their median."""

from __future__ import annotations

from typing import Final

import pandas as pd
import plotly.graph_objects as go

from workbench.figures.classes import ACCENT, COLOURS
from workbench.figures.theme import TEXT, empty, style
from workbench.figures.units import TimeScale, format_ns, time_scale
from workbench.runs.manifest import LatencyInfo
from workbench.runs.statistics import Interval, median_interval

# SVG markers get slow beyond a few thousand; above that, neighbours are drawn as a band of minimum to maximum.
_MOST_DOTS: Final = 3000
_BANDS: Final = 1000
_OFF_SCALE: Final = 1.6  # warm-up calls above this many times the slowest measured call would flatten the rest


def latency_series(latency: pd.DataFrame, bare: LatencyInfo) -> go.Figure:
    """Duration of each call in order, with the median and its 95 % interval.

    latency: the rows of table `latency` of the `latency` pass.
    """
    calls = latency.sort_values("call")
    measured, before = calls[calls["phase"] == "measured"], calls[calls["phase"] != "measured"]
    if not len(measured):
        return empty("No call was timed: the latency pass provides one row for each call.")
    # with several callers, the manifest holds the time between two completions in the place of a call's own
    middle = median_interval(measured["duration_ns"].to_numpy()) if bare.callers > 1 else _as_interval(bare)
    scale = time_scale(middle.median)
    figure = go.Figure()
    _add_calls(figure, before, "warm-up", COLOURS["other"], scale)
    _add_calls(figure, measured, "measured", ACCENT, scale)
    ends = [int(measured["call"].iloc[0]), int(measured["call"].iloc[-1])]
    figure.add_scatter(
        x=ends, y=[middle.median / scale.divisor_ns] * 2, mode="lines", name=f"median {format_ns(middle.median)}",
        line={"color": TEXT, "width": 2}, hoverinfo="skip",
    )  # fmt: skip
    figure.add_hrect(
        y0=middle.low / scale.divisor_ns, y1=middle.high / scale.divisor_ns, fillcolor=TEXT, opacity=0.25,
        line_width=0,
    )  # fmt: skip
    low, high = float(calls["duration_ns"].min()), _OFF_SCALE * float(measured["duration_ns"].max())
    above = calls[calls["duration_ns"] > high]
    inside = calls[calls["duration_ns"] <= high]["duration_ns"].max()
    title = (
        f"Median {format_ns(middle.median)}, 95 % interval {format_ns(middle.low)} to "
        f"{format_ns(middle.high)}, over {len(measured):,} measured calls"
    )
    if bare.callers > 1:
        title += f", {bare.callers} in flight"
    if len(above):
        title += f"; {_above_the_picture(above)}: double-click to see all"
    style(figure, title, height=320, left=70)
    margin = 0.08 * (inside - low)
    figure.update_yaxes(
        title_text=f"latency ({scale.unit})",
        range=[(low - margin) / scale.divisor_ns, (inside + margin) / scale.divisor_ns],
    )
    figure.update_xaxes(title_text="call")
    return figure


def _as_interval(bare: LatencyInfo) -> Interval:
    return Interval(bare.median_ns, bare.ci_low_ns, bare.ci_high_ns)


def _above_the_picture(calls: pd.DataFrame) -> str:
    slowest = format_ns(calls["duration_ns"].max())
    if len(calls) > 1:
        return f"{len(calls)} early calls lie above the picture, at up to {slowest}"
    which = "the first call" if calls["call"].iloc[0] == 0 else "one early call"
    return f"{which} lies above the picture, at {slowest}"


def _add_calls(figure: go.Figure, calls: pd.DataFrame, name: str, colour: str, scale: TimeScale) -> None:
    if not len(calls):
        return
    values = calls["duration_ns"] / scale.divisor_ns
    if len(calls) <= _MOST_DOTS:
        figure.add_scatter(
            x=calls["call"], y=values, mode="markers", name=name, marker={"color": colour, "size": 4},
            hovertemplate=f"call %{{x}} ({name}): %{{y:.4g}} {scale.unit}<extra></extra>",
        )  # fmt: skip
        return
    size = -(-len(calls) // _BANDS)
    groups = values.groupby([row // size for row in range(len(calls))])
    x = calls["call"].iloc[::size]
    band = f"{name}, lowest to highest of {size} calls each"
    quiet = {"mode": "lines", "line": {"color": colour, "width": 0}, "hoverinfo": "skip"}
    figure.add_scatter(x=x, y=groups.min(), showlegend=False, **quiet)
    figure.add_scatter(x=x, y=groups.max(), name=band, fill="tonexty", fillcolor=colour, opacity=0.5, **quiet)
    figure.add_scatter(
        x=x, y=groups.median(), mode="lines", name=f"{name}, median of {size} calls each", line={"color": colour},
        hovertemplate=f"call %{{x}}: %{{y:.4g}} {scale.unit}<extra></extra>",
    )  # fmt: skip
