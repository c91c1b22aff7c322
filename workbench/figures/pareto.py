"""What can be had at once: throughput against latency or memory, and the front on which one costs the other."""

from __future__ import annotations

from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from workbench.figures.axes import fit_narrow, log_axis
from workbench.figures.theme import TEXT, empty, shorten, style, text
from workbench.figures.units import format_bytes, format_ns, format_rate, time_scale

# Viridis without its darkest quarter, which a dark page would swallow
_SCALE: Final = ("#3B528B", "#21918C", "#5EC962", "#FDE725")
_MARK: Final = "#EE3377"
_DOT_PIXELS: Final = 11
_MOST_NAMES: Final = 5
_NAME_APART: Final = 0.07  # of the height: closer names would cover one another
_NAME_LENGTH: Final = 24
_LABEL_LENGTH: Final = 16
_LOGARITHMIC_FROM: Final = 20.0  # times: on a linear axis everything but the largest would lie at its end


def pareto(
    candidates: pd.DataFrame,
    *,
    across: Literal["latency", "memory"] = "latency",
    best: str | None = None,
    latency_name: str = "latency",
) -> go.Figure:
    """Each candidate as a dot, the other of latency and memory as its colour; the front as a line.

    candidates: name, latency_ns, items_per_s, memory_bytes (null where unknown), feasible (meets the constraints),
    error (null, or why it was not measured). across: what the horizontal axis shows. best: name of the candidate to
    mark. latency_name: which latency, as in `P99 latency`. The front is that of the feasible candidates; those without
    a place on the axes, because they failed or a number is unknown, are counted in the title.
    """
    columns = {"latency": "latency_ns", "memory": "memory_bytes"}
    x_name, colour_name = columns.pop(across), next(iter(columns.values()))
    drawn = candidates.assign(
        x=candidates[x_name].astype("Float64").to_numpy(np.float64, na_value=np.nan),
        y=candidates["items_per_s"].astype(np.float64),
        colour=candidates[colour_name].astype("Float64").to_numpy(np.float64, na_value=np.nan),
    )
    drawn = drawn[(drawn["x"] > 0) & (drawn["y"] > 0)].sort_values("x", kind="stable", ignore_index=True)
    if not len(drawn):
        return empty("No candidate was measured: workbench tune measures latency, throughput and memory of each.")
    scale = time_scale(float(drawn["latency_ns"].max()))
    divisor = {"latency": scale.divisor_ns, "memory": 1e9}
    unit = {"latency": scale.unit, "memory": "GB"}
    drawn["x"] /= divisor[across]
    other: Literal["latency", "memory"] = "memory" if across == "latency" else "latency"
    drawn["colour"] /= divisor[other]
    feasible = drawn[drawn["feasible"].astype(bool)]
    front = feasible[front_of(feasible["x"].to_numpy(), feasible["y"].to_numpy())]
    words = {"latency": latency_name, "memory": "peak memory"}
    figure = go.Figure()
    _add_front(figure, front)
    _add_feasible(figure, feasible, f"{words[other]} ({unit[other]})")
    _add_plain(figure, feasible[feasible["colour"].isna()], f"{words[other]} not known", "circle")
    _add_plain(figure, drawn[~drawn["feasible"].astype(bool)], "misses a constraint", "circle-open")
    _add_best(figure, drawn[drawn["name"] == best])
    _add_names(figure, front, best, drawn)
    style(figure, _title(front, len(drawn), len(candidates) - len(drawn), best, x_name), height=370, left=70)
    fit_narrow(figure)
    figure.update_xaxes(title_text=f"{words[across]} ({unit[across]})", **_axis(drawn["x"]))
    figure.update_yaxes(title_text="throughput (items/s)", **_axis(drawn["y"]))
    figure.update_layout(hovermode="closest")
    return figure


def front_of(cost: NDArray[np.float64], gain: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points no other one beats: none costs no more and gains no less, and is better in one of the two.

    cost, gain: float64[points], smaller and larger is better. Points that are equal in both are on the front together.
    """
    order = np.lexsort((-gain, cost))
    reached = np.maximum.accumulate(np.append(-np.inf, gain[order]))[:-1]
    on_front = gain[order] > reached
    first = np.maximum.accumulate(np.where(on_front, np.arange(len(order)), 0))
    same = (cost[order] == cost[order][first]) & (gain[order] == gain[order][first]) if len(order) else on_front
    found = np.empty(len(order), np.bool_)
    found[order] = on_front | same
    return found


def _add_front(figure: go.Figure, front: pd.DataFrame) -> None:
    """As steps: up to the next point, a budget on the horizontal axis buys no more than the last one."""
    if len(front) > 1:
        figure.add_scatter(
            x=front["x"], y=front["y"], mode="lines", name="front", hoverinfo="skip",
            line={"color": TEXT, "width": 1.5, "shape": "hv"},
        )  # fmt: skip


def _add_feasible(figure: go.Figure, rows: pd.DataFrame, colour_title: str) -> None:
    rows = rows[rows["colour"].notna()]
    if not len(rows):
        return
    figure.add_scatter(
        x=rows["x"], y=rows["y"], mode="markers", name="measured", showlegend=False, hoverinfo="text",
        hovertext=_hovers(rows),
        marker={
            "color": rows["colour"], "colorscale": _SCALE, "cmin": 0, "cmax": rows["colour"].max(),
            "size": _DOT_PIXELS, "line": {"width": 1, "color": TEXT},
            "colorbar": {
                "title": {"text": text(colour_title), "side": "right"}, "thickness": 10, "outlinewidth": 0, "nticks": 5,
            },
        },
    )  # fmt: skip


def _add_plain(figure: go.Figure, rows: pd.DataFrame, name: str, symbol: str) -> None:
    if len(rows):
        figure.add_scatter(
            x=rows["x"], y=rows["y"], mode="markers", name=name, hovertext=_hovers(rows), hoverinfo="text",
            marker={"color": TEXT, "symbol": symbol, "size": _DOT_PIXELS, "line": {"width": 1.5, "color": TEXT}},
        )  # fmt: skip


def _add_best(figure: go.Figure, rows: pd.DataFrame) -> None:
    if len(rows):
        figure.add_scatter(
            x=rows["x"], y=rows["y"], mode="markers", hoverinfo="skip",
            name=f"best: {text(shorten(rows['name'].iloc[0], _NAME_LENGTH))}",
            marker={"symbol": "circle-open", "size": _DOT_PIXELS + 9, "color": _MARK, "line": {"width": 3}},
        )  # fmt: skip


def _add_names(figure: go.Figure, front: pd.DataFrame, best: str | None, drawn: pd.DataFrame) -> None:
    """Names of a short front above its dots, where nothing can lie that is feasible; the legend names the best."""
    named = front[front["name"] != best]
    if not 0 < len(front) <= _MOST_NAMES or not len(named):
        return
    across, up = _place(drawn["x"], named["x"]), _place(drawn["y"], named["y"])
    kept = np.diff(up, append=np.inf) > _NAME_APART
    figure.add_scatter(
        x=named["x"][kept], y=named["y"][kept], mode="markers+text", showlegend=False, hoverinfo="skip",
        marker={"size": _DOT_PIXELS + 3, "opacity": 0},  # keeps the text off the dot
        text=[text(shorten(name, _LABEL_LENGTH)) for name in named["name"][kept]], textfont={"size": 10, "color": TEXT},
        textposition=["top left" if place > 0.5 else "top right" for place in across[kept]],
    )  # fmt: skip


def _place(axis: pd.Series, values: pd.Series) -> NDArray[np.float64]:
    """Where values lie on their axis, as fractions of its length."""
    drawn = _axis(axis)
    begin, end = drawn["range"]
    at = values.to_numpy(np.float64)
    return np.asarray(((np.log10(at) if "type" in drawn else at) - begin) / (end - begin), np.float64)


def _axis(values: pd.Series) -> dict[str, Any]:
    low, high = float(values.min()), float(values.max())
    if high / low > _LOGARITHMIC_FROM:
        return log_axis(low, high)
    return {"range": [0, 1.1 * high], "exponentformat": "none", "separatethousands": True, "nticks": 8}


def _hovers(rows: pd.DataFrame) -> list[str]:
    shown = rows[["name", "latency_ns", "items_per_s", "memory_bytes"]].astype(object)
    return [
        f"{text(shorten(name, 80))}<br>{format_rate(rate)} at {format_ns(latency)}<br>memory {format_bytes(memory)}"
        for name, latency, rate, memory in shown.where(shown.notna(), None).to_numpy(object)
    ]


def _title(front: pd.DataFrame, drawn: int, lost: int, best: str | None, x_name: str) -> str:
    said = f"On the front: {len(front)} of {drawn} candidates"
    chosen = front[front["name"] == best]
    if len(chosen):
        cost = (format_ns if x_name == "latency_ns" else format_bytes)(chosen[x_name].iloc[0])
        said = f"Best: {format_rate(chosen['items_per_s'].iloc[0])} at {cost}"
    return f"{said}; {lost} cannot be drawn" if lost else said
