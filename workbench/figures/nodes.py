"""The nodes that take the most time."""

from __future__ import annotations

from typing import Final

import pandas as pd
import plotly.graph_objects as go

from workbench.analysis.roofline import LIMITS
from workbench.figures.classes import CLASS_OF_LIMIT, COLOURS
from workbench.figures.theme import empty, shorten, style, text
from workbench.figures.units import format_ns, format_percent, time_scale

_ROW_PIXELS: Final = 24


def top_nodes(nodes: pd.DataFrame, *, count: int = 15) -> go.Figure:
    """Time per call of the `count` longest nodes, split by what limits it; the title says what the others take.

    nodes: `workbench.analysis.node_times.NodeTimes.nodes`, longest first.
    """
    timed = nodes[nodes["time_ns"] > 0]
    if not len(timed):
        return empty("No node has a measured time: the nodes pass would provide it.")
    total = float(timed["time_ns"].sum())
    first = timed.iloc[:count]
    columns = [f"{limit}_ns" for limit in LIMITS]
    parts = first[columns].fillna(0.0)
    names = [
        text(f"{shorten(name, 34)} · {shorten(op, 20)}")
        for name, op in zip(first["name"], first["op_type"], strict=True)
    ]
    scale = time_scale(float(parts.sum(axis=1).max()))
    rows = list(range(len(names)))
    figure = go.Figure()
    for limit, column in zip(LIMITS, columns, strict=True):
        if not parts[column].any():
            continue
        hover = [
            f"{name}<br>{limit}: {format_ns(value)} per call, {format_percent(value / total)} of node time"
            for name, value in zip(names, parts[column], strict=True)
        ]
        figure.add_bar(
            x=parts[column] / scale.divisor_ns,
            y=rows,
            orientation="h",
            name=limit,
            marker={"color": COLOURS[CLASS_OF_LIMIT[limit]]},
            hovertext=hover,
            hoverinfo="text",
        )
    held = float(first["time_ns"].sum()) / total
    title = f"The {len(first)} longest of {len(nodes)} nodes take {format_percent(held)} of the node time"
    if len(first) == len(timed):
        longest = first.iloc[0]
        share = format_percent(longest["time_ns"] / total)
        title = f"The longest of {len(nodes)} nodes, {shorten(longest['name'])}, takes {share} of the node time"
    style(figure, title, height=130 + _ROW_PIXELS * len(rows), left=280)
    figure.update_layout(barmode="stack", bargap=0.25, legend_traceorder="normal")
    figure.update_yaxes(tickvals=rows, ticktext=names, autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text=f"time per call ({scale.unit})", rangemode="tozero")
    return figure
