"""The kernels that take the most time, by what they do."""

from __future__ import annotations

import re
from typing import Final

import pandas as pd
import plotly.graph_objects as go
from pandas.api.typing import NAType

from workbench.analysis.kernel_names import EXAMINED_CHARACTERS
from workbench.analysis.kernel_times import KernelTimes
from workbench.figures.theme import empty, shorten, style, text
from workbench.figures.units import format_ns, format_percent, time_scale

# Tol, "Colour Schemes", SRON/EPS/TN/09-002, 2021, the "bright" scheme: told apart with every common colour-vision
# deficiency, and none of them a colour of `workbench.figures.classes`, because a family is no class.
FAMILY_COLOURS: Final = {
    "GEMM": "#EE6677",
    "convolution": "#AA3377",
    "attention": "#CCBB44",
    "elementwise": "#4477AA",
    "reduction": "#66CCEE",
    "copy": "#228833",
    "other": "#BBBBBB",
}
_ROW_PIXELS: Final = 24
_BAR_WIDTH: Final = 0.75  # of a row; left alone, plotly widens the bars of a family that has few
# anonymous namespaces, and Nsight's types of numbers, as in `(int)256`
_NOISE: Final = re.compile(r"<unnamed>::|\(anonymous namespace\)::|\([a-z ]{3,18}\)(?=-?\d)")
_NAMESPACE: Final = re.compile(r"\b\w++::")
_GENERIC: Final = re.compile(r"(?:device_)?[Kk]ernel\d?")
_OPEN: Final = {")": "(", ">": "<", "]": "["}


def top_kernels(times: KernelTimes | None, *, count: int = 15) -> go.Figure:
    """Time per call of the `count` longest kernels by name, coloured by family.

    The title says what the largest family takes, and the kernels that use tensor cores.

    times: `workbench.analysis.kernel_times.kernel_times`, None when no kernel was recorded.
    """
    if times is None:
        return empty("No kernel was recorded: the activity pass or an Nsight Systems export provides this picture.")
    kernels = times.kernels
    first = kernels.iloc[:count].assign(per_call_ns=lambda rows: rows["own_ns"] / times.calls)
    scale = time_scale(float(first["per_call_ns"].max()))
    figure = go.Figure()
    for family, colour in FAMILY_COLOURS.items():
        mine = first[first["family"] == family]
        if not len(mine):
            continue
        hover = [
            f"{text(shorten(kernel['name'], 100))}<br>{format_ns(kernel['per_call_ns'])} per call, "
            f"{format_percent(kernel['share'])} of kernel time<br>{kernel['count'] / times.calls:.3g} runs per call, "
            f"median {format_ns(kernel['median_ns'])}<br>tensor cores: {tensor_cores(kernel['tensor_cores'])} "
            f"({kernel['rule']})"
            for kernel in mine.to_dict("records")
        ]
        figure.add_bar(
            x=mine["per_call_ns"] / scale.divisor_ns,
            y=mine.index.to_list(),
            orientation="h",
            width=_BAR_WIDTH,
            name=family,
            marker={"color": colour},
            hovertext=hover,
            hoverinfo="text",
        )
    style(figure, _title(times), height=130 + _ROW_PIXELS * len(first), left=330)
    # each row holds one bar, of one family: grouped, every family would take its part of each row
    figure.update_layout(barmode="overlay", legend_traceorder="normal")
    names = [text(shorten(short_name(name), 48)) for name in first["name"]]
    figure.update_yaxes(tickvals=first.index.to_list(), ticktext=names, autorange="reversed", showgrid=False)
    figure.update_xaxes(title_text=f"time per call ({scale.unit})", rangemode="tozero")
    return figure


def tensor_cores(value: bool | NAType | None) -> str:
    """`yes`, `no`, or `unknown` for null."""
    if pd.isna(value):
        return "unknown"
    return "yes" if value else "no"


def short_name(name: object) -> str:
    """The function's name and its template arguments, without return type, parameters and namespaces.

    A function that is merely called `kernel` keeps the namespace that it lies in.
    """
    plain = _NOISE.sub("", str(name)[:EXAMINED_CHARACTERS])
    if plain.endswith(")") and (parameters := _last_outside(plain, "(")) > 0:
        plain = plain[:parameters]
    signature = plain[_last_outside(plain, " ") + 1 :]
    function, bracket, arguments = signature.partition("<")
    path = function.split("::")
    kept = "::".join(path[-2:] if _GENERIC.fullmatch(path[-1]) else path[-1:])
    return (kept + bracket + _NAMESPACE.sub("", arguments)) or plain


def _last_outside(name: str, mark: str) -> int:
    """Position of the last `mark` outside all brackets (an opening bracket lies outside itself); -1 when none."""
    closed = []
    for at in range(len(name) - 1, -1, -1):
        letter = name[at]
        if letter in _OPEN:
            closed.append(_OPEN[letter])
        elif closed and letter == closed[-1]:
            closed.pop()
        if letter == mark and not closed:
            return at
    return -1


def _title(times: KernelTimes) -> str:
    shares = times.kernels.groupby("family")["share"].sum()
    family = str(shares.idxmax())
    uses = times.kernels["tensor_cores"]
    title = (
        f"{family[0].upper()}{family[1:]} kernels take {format_percent(shares[family])} of the kernel time; "
        f"kernels that use tensor cores take {format_percent(times.kernels.loc[uses.fillna(False), 'share'].sum())}"
    )
    unknown = times.kernels.loc[uses.isna(), "share"].sum()
    return f"{title}, and for {format_percent(unknown)} the name does not tell" if unknown > 0 else title
