"""Cold start, step by step: what passes before each configuration answers its first calls."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from workbench.figures.axes import fit_narrow
from workbench.figures.theme import TEXT, empty, shorten, style, text
from workbench.figures.units import format_ns, format_percent, time_scale

# Tol, "Colour Schemes", SRON/EPS/TN/09-002, 2021, the "muted" scheme, without its darkest colours, which a dark page
# would swallow; none of them is the colour of a class.
_COLOURS: Final = {
    "import": "#88CCEE",
    "libraries": "#44AA99",
    "session": "#DDCC77",
    "binding": "#999933",
    "first call": "#CC6677",
    "later shape": "#AA4499",
}
_ON_COLOUR: Final = {"later shape": "#FFFFFF"}
_OTHER: Final = "#BBBBBB"
_TIMES: Final = ("duration_ns", "low_ns", "high_ns")
_BAR_WIDTH: Final = 0.55  # of a row; the intervals stand below, where the page is behind them
_LEAST_INTERVAL: Final = 0.004  # of the longest start: a shorter whisker is one stroke
_ROW_PIXELS: Final = 46
_NAME_LENGTH: Final = 30


def cold_start(steps: pd.DataFrame) -> go.Figure:
    """One bar per configuration, in the order of the table: its steps one after the other, with their intervals.

    steps: configuration, step (`import`, `libraries`, `session`, `binding`, `first call`, `shape 2` and so on; others
    are drawn in grey), duration_ns (median), low_ns, high_ns (95 % interval, null where unknown). A step of unknown
    duration is left out, and the sum is then said to be a lower bound. The whisker below the end of a step is the
    interval of that step alone.
    """
    timed = steps[steps["duration_ns"].notna()].astype(dict.fromkeys(_TIMES, "float64"))
    if not len(timed):
        return empty("No cold start was timed: every latency pass and every experiment times its steps.")
    configurations = list(dict.fromkeys(steps["configuration"]))
    row_of = {name: row for row, name in enumerate(configurations)}
    total_ns = timed.groupby("configuration", sort=False)["duration_ns"].sum().reindex(configurations)
    unknown = steps.loc[steps["duration_ns"].isna(), "configuration"].unique()
    scale = time_scale(float(total_ns.max()))
    figure = go.Figure()
    shown: set[str] = set()
    for step, rows in timed.groupby("step", sort=False):
        group = _group(str(step))
        figure.add_bar(
            **_bar(rows, row_of, total_ns, scale.divisor_ns), name=text(group + "s" * (group == "later shape")),
            legendgroup=group, showlegend=group not in shown, orientation="h",
            marker={"color": _COLOURS.get(group, _OTHER), "line": {"width": 0.5, "color": TEXT}},
            insidetextfont={"color": _ON_COLOUR.get(group, "#000000")},
        )  # fmt: skip
        shown.add(group)
    _add_intervals(figure, timed, row_of, scale.divisor_ns)
    style(figure, _title(timed, total_ns, set(unknown)), height=110 + _ROW_PIXELS * len(configurations), left=10)
    fit_narrow(figure)
    figure.update_layout(
        barmode="stack", bargap=1 - _BAR_WIDTH, legend_traceorder="normal", uniformtext={"mode": "hide", "minsize": 11}
    )
    labels = [_label(name, total_ns[name], name in unknown) for name in configurations]
    figure.update_yaxes(
        tickvals=list(row_of.values()), ticktext=labels, range=[len(labels) - 0.5, -0.5], showgrid=False,
        fixedrange=True,
    )  # fmt: skip
    figure.update_xaxes(title_text=f"time ({scale.unit})", rangemode="tozero", nticks=7)
    return figure


def _group(step: str) -> str:
    """Which colour a step has: all later shapes share one."""
    return "later shape" if step.startswith("shape ") else step


def _bar(rows: pd.DataFrame, row_of: dict[str, int], total_ns: pd.Series, divisor_ns: float) -> dict[str, Any]:
    hover = [
        "<br>".join(text(line) for line in _hover(name, step, duration, low, high, total_ns[name]))
        for name, step, duration, low, high in rows[["configuration", "step", *_TIMES]].to_numpy(object)
    ]
    return {
        "x": rows["duration_ns"] / divisor_ns,
        "y": rows["configuration"].map(row_of),
        "text": [format_ns(duration) for duration in rows["duration_ns"]],
        "textposition": "inside",
        "insidetextanchor": "middle",
        "textangle": 0,
        "hovertext": hover,
        "hoverinfo": "text",
    }


def _add_intervals(figure: go.Figure, timed: pd.DataFrame, row_of: dict[str, int], divisor_ns: float) -> None:
    """Whiskers below the bars, each at the end of its step."""
    ends = timed.groupby("configuration", sort=False)["duration_ns"].cumsum()
    wide = timed["high_ns"] - timed["low_ns"] > _LEAST_INTERVAL * ends.max()
    rows, ends = timed[wide], ends[wide]
    if not len(rows):
        return
    figure.add_scatter(
        x=ends / divisor_ns, y=rows["configuration"].map(row_of) + 0.8 * _BAR_WIDTH, mode="markers",
        name="95 % interval", hoverinfo="skip", marker={"size": 1, "color": TEXT, "symbol": "line-ew-open"},
        error_x={
            "array": (rows["high_ns"] - rows["duration_ns"]) / divisor_ns,
            "arrayminus": (rows["duration_ns"] - rows["low_ns"]) / divisor_ns,
            "color": TEXT, "thickness": 1.5, "width": 3,
        },
    )  # fmt: skip


def _hover(name: str, step: str, duration: float, low: float, high: float, total: float) -> list[str]:
    lines = [shorten(name, 80), f"{step}: {format_ns(duration)}, {format_percent(duration / total)} of this start"]
    return [*lines, f"95 % interval {format_ns(low)} to {format_ns(high)}"] if high >= low else lines


def _label(name: str, total: float, partly_unknown: bool) -> str:
    known = f"at least {format_ns(total)}" if partly_unknown else format_ns(total)
    said = "not timed" if pd.isna(total) else known
    return f'{text(shorten(name, _NAME_LENGTH))}<br><span style="font-size:11px">{said}</span>'


def _title(timed: pd.DataFrame, total_ns: pd.Series, unknown: set[str]) -> str:
    slowest = str(total_ns.idxmax())
    mine = timed[timed["configuration"] == slowest]
    steps = mine.groupby(mine["step"].map(_group), sort=False)["duration_ns"].sum()
    longest = str(steps.idxmax())
    total = f"{'at least ' * (slowest in unknown)}{format_ns(total_ns[slowest])}"
    share = format_percent(steps[longest] / total_ns[slowest])
    return f"{shorten(slowest, 20)} starts in {total}: {share} {longest}{'s' * (longest == 'later shape')}"
