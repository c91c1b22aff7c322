"""Where the time of a call goes, as one bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import plotly.graph_objects as go

from workbench.figures.classes import COLOURS, ON_COLOUR, holder, label
from workbench.figures.theme import style, text
from workbench.figures.units import format_ns, format_percent

_LEAST_LABELLED: Final = 0.045  # a narrower segment has no room for its per cent


def shares_bar(shares: Mapping[str, float | None], latency_ns: float, device_kind: str = "cuda") -> go.Figure:
    """One stacked bar of the shares of T.

    shares: fractions by class, None where a class does not apply or is not known. latency_ns: T. device_kind: `cuda`
    or `cpu`.
    """
    known = {name: share for name, share in shares.items() if share is not None}
    largest = max(known, key=lambda name: known[name])
    figure = go.Figure()
    for name, share in known.items():
        percent = format_percent(share)
        figure.add_bar(
            x=[100 * share],
            y=[""],
            orientation="h",
            name=text(f"{label(name, device_kind)} {percent}"),
            marker={"color": COLOURS[name]},
            text=[text(percent) if share >= _LEAST_LABELLED else ""],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": ON_COLOUR.get(name, "#000000"), "size": 14},
            hovertext=text(f"{label(name, device_kind)}: {percent}, {format_ns(share * latency_ns)}"),
            hoverinfo="text",
        )
    title = f"{holder(largest, device_kind)} {format_percent(known[largest])} of a {format_ns(latency_ns)} call"
    style(figure, title, height=150, left=0)
    # below the bar, where a second line of it covers nothing
    below = {"traceorder": "normal", "y": -0.1, "yanchor": "top"}
    figure.update_layout(barmode="stack", bargap=0, margin={"t": 40, "r": 0, "b": 58}, legend=below)
    figure.update_xaxes(range=[0, 100], visible=False)
    figure.update_yaxes(visible=False)
    return figure
