"""How far the trace can be trusted: its shares against those of interventions, and its confidence against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures.axes import fit_narrow
from workbench.figures.classes import ACCENT, COLOURS, label
from workbench.figures.theme import TEXT, empty, style, text

_SYMBOLS: Final = ("circle", "diamond-open")  # of the first intervention on a class, and of any other
_BAND: Final = "rgba(128,128,128,0.13)"  # two of them lie on one another where the tolerances differ
_REACH: Final = 0.05  # of T, beyond the outermost dot or the range of a share
_DOT_PIXELS: Final = 9
_LARGEST_DOT_PIXELS: Final = 34
_HEIGHT: Final = 460


def share_scatter(shares: pd.DataFrame, tolerance: Mapping[str, float], *, device_kind: str = "cuda") -> go.Figure:
    """A dot for each share that was had in both ways, inside or outside the band of its class's tolerance.

    shares: cell, share (class), lever, traced, interventional, low, high (fractions of T; the last two are the interval
    of the interventional one), rounds, within. tolerance: of each class, a fraction of T. Shares beyond 0..1 are drawn
    where they are: an intervention may cost time.
    """
    if not len(shares):
        return empty("No share was measured in both ways: workbench validate --live records what it takes.")
    ends = (0.0, 1.0, *shares["interventional"], *shares["traced"])
    low, high = min(ends) - _REACH, max(ends) + _REACH
    figure = go.Figure()
    for width in sorted({tolerance[name] for name in shares["share"]}, reverse=True):
        figure.add_scatter(
            x=[low, high, high, low], y=[low - width, high - width, high + width, low + width],
            mode="lines", fill="toself", fillcolor=_BAND, line={"width": 0}, hoverinfo="skip", name=f"within {width:g}",
        )  # fmt: skip
    _add_diagonal(figure, low, high)
    drawn: set[str] = set()
    for key, rows in shares.groupby(["share", "lever"], sort=False):
        name, lever = map(str, key)
        symbol = _SYMBOLS[name in drawn]
        drawn.add(name)
        figure.add_scatter(
            x=rows["interventional"], y=rows["traced"], mode="markers", name=f"{label(name, device_kind)}, by {lever}",
            hovertext=[_share_hover(row) for row in rows.to_dict("records")], hoverinfo="text",
            marker={
                "color": COLOURS[name], "size": _DOT_PIXELS, "symbol": symbol,
                "line": {"width": 1, "color": COLOURS[name]}, "opacity": 0.85,
            },
            error_x={
                "array": rows["high"] - rows["interventional"], "arrayminus": rows["interventional"] - rows["low"],
                "color": COLOURS[name], "thickness": 0.8, "width": 0,
            },
        )  # fmt: skip
    title = f"Trace and intervention agree on {int(shares['within'].sum())} of {len(shares)} shares"
    style(figure, title, height=_HEIGHT)
    fit_narrow(figure)
    figure.update_xaxes(title_text="share by intervention (of T)", range=[low, high], tickformat=".1f")
    figure.update_yaxes(title_text="traced share (of T)", range=[low, high], tickformat=".1f")
    figure.update_layout(hovermode="closest")
    return figure


def reliability(judged: pd.DataFrame, sources: Sequence[str], bins: int) -> go.Figure:
    """How many verdicts were right among those of about one confidence: on the diagonal the confidence is true.

    judged: sources, confidence (0..1), right (bool). sources: a series of dots for each of these. bins: of confidence,
    as wide as each other; a dot stands at the mean confidence of its bin and grows with the cells in it.
    """
    drawn = judged[judged["sources"].isin(list(sources))]
    if not len(drawn):
        return empty("No cell was judged: workbench validate scores a recorded set.")
    figure = go.Figure()
    _add_diagonal(figure, 0.0, 1.0)
    table = binned(drawn, bins)
    colours = dict(zip(sources, (ACCENT, *[TEXT] * len(sources)), strict=False))
    for name in sources:
        rows = table[table["sources"] == name]
        figure.add_scatter(
            x=rows["confidence"], y=rows["right"], mode="markers", name=name, hoverinfo="text",
            hovertext=[_bin_hover(row) for row in rows.to_dict("records")],
            marker={
                "color": colours[name], "size": rows["cells"], "sizemode": "area", "sizemin": 5, "opacity": 0.8,
                "sizeref": table["cells"].max() / _LARGEST_DOT_PIXELS**2, "line": {"width": 1, "color": TEXT},
            },
        )  # fmt: skip
    first = drawn[drawn["sources"] == sources[0]]
    right, sure = first["right"].astype(float).mean(), first["confidence"].mean()
    style(figure, f"{right:.0%} right at a mean confidence of {sure:.2f}, {sources[0]}", height=_HEIGHT)
    fit_narrow(figure)
    axis: dict[str, Any] = {"range": [-2 * _REACH, 1 + 2 * _REACH], "tickformat": ".1f"}
    figure.update_xaxes(title_text="confidence of the verdict", **axis)
    figure.update_yaxes(title_text="fraction that was right", **axis)
    figure.update_layout(hovermode="closest")
    return figure


def binned(judged: pd.DataFrame, bins: int) -> pd.DataFrame:
    """Per sources and bin of confidence: sources, bin, confidence (mean), right (fraction), cells."""
    at = np.minimum((judged["confidence"].to_numpy(np.float64) * bins).astype(np.int64), bins - 1)
    by = judged.assign(bin=at, right=judged["right"].astype(float)).groupby(["sources", "bin"], as_index=False)
    return by.agg(confidence=("confidence", "mean"), right=("right", "mean"), cells=("right", "size"))


def _add_diagonal(figure: go.Figure, low: float, high: float) -> None:
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", line={"color": TEXT, "width": 1, "dash": "dot"}, hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip


def _share_hover(row: Mapping[Any, Any]) -> str:
    rounds = f"{row['rounds']} round{'s' * (row['rounds'] != 1)}"
    return (
        f"{text(row['cell'])}<br>{text(row['share'])} by {text(row['lever'])}: {row['interventional']:.3f} "
        f"({row['low']:.3f} to {row['high']:.3f}, {rounds})<br>traced {row['traced']:.3f}"
    )


def _bin_hover(row: Mapping[Any, Any]) -> str:
    right = f"right {row['right']:.0%} of {row['cells']} cells"
    return f"{text(row['sources'])}<br>confidence {row['confidence']:.2f}, {right}"
