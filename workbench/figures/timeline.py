"""A few calls, moment by moment: what the host did and what the device did."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from workbench.figures.classes import COLOURS, label
from workbench.figures.marks import DEVICE_LANES, LANES, busy_fraction, details, merge_marks
from workbench.figures.theme import TEXT, empty, shorten, style, text
from workbench.figures.units import format_ns, format_percent, time_scale

MOST_MARKS: Final = 5000
_LANE_PIXELS: Final = 34
_LINE_PIXELS: Final = 18
_MARGINS_PIXELS: Final = 120  # of `theme.style`, so that a lane has its height
# Plotly finds a line by its vertices only, so that a long mark gets one every hundredth of the window.
_VERTICES_PER_WINDOW: Final = 100
_PIXELS: Final = 1000  # about the width of the picture; a shorter mark also gets a tick of one pixel, to be seen
_NO_CLASS: Final = "calls"
_HOVERED: Final = ["lane", "start_ns", "end_ns", "name", "count", "busy"]


def timeline(marks: pd.DataFrame, *, device_kind: str = "cuda", longer: str = "", most: int = MOST_MARKS) -> go.Figure:
    """One row per lane of `workbench.figures.marks.timeline_marks`, one broken line per class.

    The first call fills the picture; the others lie to its right. longer: how tracing changed
    the calls, for the title. most: how many marks are drawn before neighbours are merged; the title says so.
    """
    calls = marks[marks["lane"] == "calls"]
    if not len(calls):
        return empty("No call was traced: the nodes pass provides nodes, launches, kernels and copies of each call.")
    title = _title(marks, device_kind) + longer
    origin = int(calls["start_ns"].min())
    window_ns = int(calls["end_ns"].iloc[0]) - origin
    whole_ns = int(marks["end_ns"].max() - marks["start_ns"].min())
    drawn = merge_marks(marks, -(-_PIXELS * whole_ns // max(window_ns, 1)), most)
    if len(drawn) < len(marks):
        title += f"; {len(marks):,} marks are drawn as {len(drawn):,}, neighbours merged"
    scale = time_scale(window_ns)
    lanes = [lane for lane in LANES if (drawn["lane"] == lane).any()]
    row_of = {lane: row for row, lane in enumerate(lanes)}
    figure = go.Figure()
    for name, colour in {_NO_CLASS: TEXT, **COLOURS}.items():
        mine = drawn[drawn["class"].isna()] if name == _NO_CLASS else drawn[drawn["class"] == name]
        if not len(mine):
            continue
        group = name if name == _NO_CLASS else label(name, device_kind)
        common = {"mode": "lines", "name": group, "legendgroup": group}
        x, y, hover = _broken_line(mine, origin, window_ns, row_of)
        figure.add_scatter(
            x=x / scale.divisor_ns, y=y, text=hover, hoverinfo="text", showlegend=name != _NO_CLASS,
            # a simplified line would drop marks of less than a pixel
            line={"color": colour, "width": _LINE_PIXELS, "simplify": False},
            **common,
        )  # fmt: skip
        x, y = _ticks(mine[mine["end_ns"] - mine["start_ns"] < window_ns / _PIXELS], origin, row_of)
        figure.add_scatter(
            x=x / scale.divisor_ns, y=y, hoverinfo="skip", showlegend=False,
            line={"color": colour, "width": 1, "simplify": False}, **common,
        )  # fmt: skip
    style(figure, title, height=_MARGINS_PIXELS + _LANE_PIXELS * len(lanes), left=150)
    more = f", double-click to see all {len(calls)} calls" if len(calls) > 1 else ""
    figure.update_xaxes(
        title_text=f"time since the call began ({scale.unit}); drag to zoom{more}",
        range=[-0.005 * window_ns / scale.divisor_ns, window_ns / scale.divisor_ns],
        exponentformat="none",
    )
    figure.update_yaxes(
        tickvals=list(row_of.values()), ticktext=lanes, range=[len(lanes) - 0.5, -0.5], fixedrange=True, showgrid=False
    )
    figure.update_layout(hovermode="closest", hoverdistance=30)
    return figure


def _broken_line(
    marks: pd.DataFrame, origin: int, window_ns: int, row_of: dict[str, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str | None]]:
    """Vertices of all marks with a gap after each: x in nanoseconds, y as row, and hover text."""
    start = (marks["start_ns"] - origin).to_numpy(np.float64)
    length = (marks["end_ns"] - marks["start_ns"]).to_numpy(np.float64)
    pieces = np.clip(np.ceil(length * _VERTICES_PER_WINDOW / window_ns), 2, _VERTICES_PER_WINDOW).astype(np.int64)
    entries = pieces + 2  # the vertices, and the gap
    which = np.repeat(np.arange(len(marks)), entries)
    place = np.arange(len(which)) - np.repeat(np.cumsum(entries) - entries, entries)
    gap = place > pieces[which]
    x = np.where(gap, np.nan, start[which] + length[which] * place / pieces[which])
    rows = marks["lane"].map(row_of).to_numpy(np.float64)
    hover = [_hover(*mark) for mark in marks[_HOVERED].assign(detail=details(marks)).to_numpy(object)]
    return x, np.where(gap, np.nan, rows[which]), [None if g else hover[at] for at, g in zip(which, gap, strict=True)]


def _ticks(marks: pd.DataFrame, origin: int, row_of: dict[str, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A vertical stroke of the line's height in the middle of each mark."""
    middle = ((marks["start_ns"] + marks["end_ns"]) / 2 - origin).to_numpy(np.float64)
    rows = marks["lane"].map(row_of).to_numpy(np.float64)
    half = _LINE_PIXELS / _LANE_PIXELS / 2
    gap = np.full(len(marks), np.nan)
    return np.stack([middle, middle, gap], axis=1).ravel(), np.stack([rows - half, rows + half, gap], axis=1).ravel()


def _hover(lane: str, start: int, end: int, name: str, count: int, busy: float, detail: str) -> str:
    length = format_ns(end - start)
    if count > 1:
        return f"{count} {lane} in {length}, {format_percent(busy)} covered<br>most of it {text(shorten(name, 80))}"
    return "<br>".join(filter(None, (f"{text(shorten(name, 80))}: {length}", text(detail))))


def _title(marks: pd.DataFrame, device_kind: str) -> str:
    if device_kind == "cpu":
        return f"Nodes run {format_percent(busy_fraction(marks, ('nodes',)))} of the time in these calls"
    return f"The device is busy {format_percent(busy_fraction(marks, DEVICE_LANES))} of the time in these calls"
