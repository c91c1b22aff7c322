"""Before and after: what each change did, against what was predicted, with intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures.axes import fit_narrow, log_axis
from workbench.figures.metrics import format_change, format_ratio, metric_name
from workbench.figures.theme import TEXT, empty, shorten, style, text
from workbench.tuning.comparison import CONFIDENCE

COLUMNS: Final = [
    "name", "title", "metric", "unit", "base", "variant", "ratio", "low", "high", "outcome", "predicted",
    "predicted_low", "predicted_high", "parity",
]  # fmt: skip


class _Look(NamedTuple):
    colour: str
    symbol: str
    words: tuple[str, ...]


# Tol, "Colour Schemes", SRON/EPS/TN/09-002, 2021, the "vibrant" scheme: none of them is the colour of a class. Each
# outcome has a symbol of its own too, for people and printers who do not see the colours.
OUTCOMES: Final = {
    "better": _Look("#009988", "circle", ("faster", "smaller")),
    "worse": _Look("#CC3311", "square", ("slower", "larger")),
    "no difference": _Look("#888888", "circle-open", ("no difference",)),
    "outputs changed": _Look("#EE3377", "x", ("outputs changed",)),
    "no verdict": _Look("#888888", "diamond-open", ("not in force", "not measured")),
}
"""Outcomes by what they mean, and the words that `outcome` may begin with; a ratio with any other has no verdict."""
BEYOND: Final = "beyond"
_PREDICTED_CONFIDENCE: Final = 0.95
_ROW_PIXELS: Final = 40
_NAME_LENGTH: Final = 26
_ROOM_FOR_PREDICTION: Final = 1.5  # times, beyond what was measured
_LOGARITHMIC_FROM: Final = 4.0  # times: a linear axis would squeeze all smaller changes around 1


def before_after(experiments: pd.DataFrame) -> go.Figure:
    """One row per experiment, in the order of the table: measured ratio with its interval, over the predicted one.

    experiments: the columns `COLUMNS`. ratio, low, high: variant / base and its interval (of
    `workbench.tuning.comparison`); predicted likewise; NaN where unknown. base, variant: the metric's values in `unit`
    (`ns`, `bytes` or `items/s`). parity: `within`, `beyond` or `not checked`; a change whose outputs are beyond
    tolerance is drawn as such, whatever its outcome says. Where nothing was measured, the outcome stands in the label.
    The axis is logarithmic where a change is larger than fourfold.
    """
    if not len(experiments):
        return empty("No experiment was run: workbench tune measures each change against its base.")
    drawn = experiments.reset_index(drop=True)
    numbers = ["base", "variant", "ratio", "low", "high", "predicted", "predicted_low", "predicted_high"]
    drawn[numbers] = drawn[numbers].astype(np.float64)
    for centre in ("ratio", "predicted"):
        drawn[centre] = drawn[centre].where(drawn[centre] > 0)
    drawn["meaning"] = [_meaning(*row) for row in drawn[["outcome", "parity", "ratio"]].to_numpy(object)]
    drawn["hover"] = [_hover(row) for row in drawn.to_dict("records")]
    figure = go.Figure()
    _add_predicted(figure, drawn)
    for name, look in OUTCOMES.items():
        rows = drawn[drawn["meaning"] == name]
        if len(rows):
            _add_measured(figure, rows, _legend(rows["outcome"], name), look)
    style(figure, _title(drawn), height=120 + _ROW_PIXELS * len(drawn), left=10)
    fit_narrow(figure)
    metrics = drawn["metric"].unique()
    labels = [_label(row, len(metrics) > 1) for row in drawn.to_dict("records")]
    figure.update_yaxes(
        tickvals=drawn.index.to_list(), ticktext=labels, range=[len(drawn) - 0.5, -0.5], showgrid=False, fixedrange=True
    )
    title = f"{text(metric_name(str(metrics[0])))}, variant / base" if len(metrics) == 1 else "variant / base"
    figure.update_xaxes(title_text=title, **_ratio_axis(drawn))
    figure.add_vline(x=1, line={"color": TEXT, "width": 1.5}, layer="below")
    return figure


def _meaning(outcome: str, parity: str, ratio: float) -> str:
    """A key of `OUTCOMES`, or empty where nothing was measured."""
    if not ratio > 0:
        return ""
    if parity == BEYOND:
        return "outputs changed"
    return next((name for name, look in OUTCOMES.items() if str(outcome).startswith(look.words)), "no verdict")


def _legend(outcomes: pd.Series, meaning: str) -> str:
    """The words that occur: `faster`, or `faster, smaller` where the metrics differ."""
    words = OUTCOMES[meaning].words
    return ", ".join(word for word in words if outcomes.astype(str).str.startswith(word).any()) or meaning


def _add_predicted(figure: go.Figure, rows: pd.DataFrame) -> None:
    known = rows[rows["predicted"].notna()]
    if not len(known):
        return
    spans = known[known["predicted_low"].notna() & known["predicted_high"].notna()]
    quiet: dict[str, Any] = {"legendgroup": "predicted", "hovertext": known["hover"], "hoverinfo": "text"}
    if len(spans):
        gaps = np.full(len(spans), np.nan)
        figure.add_scatter(
            x=np.stack([spans["predicted_low"], spans["predicted_high"], gaps], axis=1).ravel(),
            y=np.stack([spans.index, spans.index, gaps], axis=1).ravel(), mode="lines", opacity=0.3,
            line={"color": TEXT, "width": 13}, legendgroup="predicted", showlegend=False, hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=known["predicted"], y=known.index, mode="markers", name="predicted",
        marker={"color": TEXT, "symbol": "line-ns", "size": 9, "line": {"color": TEXT, "width": 2}}, **quiet,
    )  # fmt: skip


def _add_measured(figure: go.Figure, rows: pd.DataFrame, name: str, look: _Look) -> None:
    figure.add_scatter(
        x=rows["ratio"], y=rows.index, mode="markers", name=name, hovertext=rows["hover"], hoverinfo="text",
        marker={"color": look.colour, "symbol": look.symbol, "size": 10, "line": {"width": 2, "color": look.colour}},
        error_x={
            "array": (rows["high"] - rows["ratio"]).fillna(0), "arrayminus": (rows["ratio"] - rows["low"]).fillna(0),
            "color": look.colour, "thickness": 2, "width": 5,
        },
    )  # fmt: skip


def _ratio_axis(rows: pd.DataFrame) -> dict[str, Any]:
    """Type, range and ticks of the axis: all that was measured, what was predicted, and 1."""
    ratios = rows[["ratio", "low", "high", "predicted"]].to_numpy(np.float64).ravel()
    ratios = np.append(ratios[np.isfinite(ratios) & (ratios > 0)], 1.0)
    bounds = rows[["predicted_low", "predicted_high"]].to_numpy(np.float64).ravel()
    # a wide prediction may leave the picture, so that what was measured keeps its room
    bounds = np.clip(
        bounds[np.isfinite(bounds)], ratios.min() / _ROOM_FOR_PREDICTION, ratios.max() * _ROOM_FOR_PREDICTION
    )
    ratios = np.append(ratios, bounds)
    low, high = float(ratios.min()), float(ratios.max())
    if max(1 / low, high) > _LOGARITHMIC_FROM:
        return log_axis(low, high, "×")
    margin = max(0.06 * (high - low), 0.01)
    return {"range": [low - margin, high + margin], "ticksuffix": "×", "tickangle": 0}


def _label(row: Mapping[Hashable, Any], several_metrics: bool) -> str:
    metric = f"{row['metric']}: " if several_metrics else ""
    change = format_change(row["base"], row["variant"], row["unit"])
    detail = f"{metric}{change} ({format_ratio(row['ratio'])})"
    if not row["meaning"]:
        detail = shorten(row["outcome"], _NAME_LENGTH + 4)
    return f'{text(shorten(row["name"], _NAME_LENGTH))}<br><span style="font-size:11px">{text(detail)}</span>'


def _hover(row: Mapping[Hashable, Any]) -> str:
    change = format_change(row["base"], row["variant"], row["unit"])
    lines = [f"{shorten(row['title'], 80)} ({row['name']})", f"{row['metric']}: {change}, {row['outcome']}"]
    for name, keys, level in (
        ("measured", ("ratio", "low", "high"), CONFIDENCE),
        ("predicted", ("predicted", "predicted_low", "predicted_high"), _PREDICTED_CONFIDENCE),
    ):
        centre, low, high = (row[key] for key in keys)
        if centre > 0:
            ends = f"{format_ratio(low)} to {format_ratio(high)}"
            interval = f", {100 * level:g} % interval {ends}" if high >= low else ""
            lines.append(f"{name} {format_ratio(centre)}{interval}")
    lines.append({"within": "outputs within tolerance", BEYOND: "outputs beyond tolerance"}.get(
        row["parity"], "outputs not checked"
    ))  # fmt: skip
    return "<br>".join(text(line) for line in lines)


def _title(rows: pd.DataFrame) -> str:
    better, measured = rows[rows["meaning"] == "better"], int(rows["ratio"].notna().sum())
    if len(rows) == 1:
        only = rows.iloc[0].to_dict()
        change = format_change(only["base"], only["variant"], only["unit"])
        return f"{shorten(only['name'], _NAME_LENGTH)}: {change if measured else only['outcome']}"
    if not len(better):
        return f"None of {measured} changes helped" if measured else "No change was measured"
    most = better.loc[np.log(better["ratio"]).abs().idxmax()]
    return f"{len(better)} of {measured} helped; {shorten(most['name'], _NAME_LENGTH)} {format_ratio(most['ratio'])}"
