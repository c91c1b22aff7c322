"""The roofline: what each node reaches against what the device could do at its arithmetic intensity."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.analysis.roofline import LIMITS
from workbench.figures.classes import CLASS_OF_LIMIT, COLOURS
from workbench.figures.theme import TEXT, empty, shorten, style, text
from workbench.figures.units import format_bytes_per_s, format_flops, format_ns, format_percent
from workbench.runs.manifest import Ceilings

_LARGEST_DOT_PIXELS: Final = 36
_FLOPS: Final = ["tensor_flops", "fp_flops", "special_flops"]


def roofline(nodes: pd.DataFrame, ceilings: Ceilings, *, tf32: bool) -> go.Figure:
    """Arithmetic intensity against rate, both on logarithmic axes, one dot per node sized by its time.

    nodes: `workbench.analysis.node_times.NodeTimes.nodes`. tf32: whether float32 matrix work may use TF32 tensor
    cores. Lines: the measured peaks of the units in use, and bandwidth times intensity (Williams, Waterman, Patterson,
    Communications of the ACM 52(4), 2009). Nodes without arithmetic have no place on the axes; the title counts them.
    """
    flops = nodes[_FLOPS].sum(axis=1, min_count=len(_FLOPS))
    moved = nodes[["read_bytes", "written_bytes"]].sum(axis=1, min_count=2)
    drawn = nodes.assign(intensity=flops / moved.where(moved > 0))
    drawn = drawn[(drawn["intensity"] > 0) & (drawn["flops_per_s"] > 0)]
    if not len(drawn):
        return empty("No node has both counted work and a measured time: the nodes pass and graph.onnx provide them.")
    peaks = ceilings_in_use(drawn, ceilings, tf32=tf32)
    figure = go.Figure()
    for limit in LIMITS:
        rows = drawn[drawn["limit"] == limit]
        if len(rows):
            figure.add_scatter(**_dots(rows, limit, float(drawn["time_ns"].max())))
    span = _intensity_span(drawn["intensity"], peaks, ceilings.memory_bytes_per_s)
    reached = [*drawn["flops_per_s"], *peaks.values()]
    lowest, highest = min(reached) / 10, max(reached) * 3
    _add_ceilings(figure, peaks, ceilings.memory_bytes_per_s, span, lowest)
    longest = drawn.iloc[int(drawn["time_ns"].argmax())]
    efficiency = longest["efficiency"]
    known = f"runs at {format_percent(efficiency)} of" if np.isfinite(efficiency) else "lacks"
    title = f"{shorten(longest['name'])} ({longest['op_type']}), the longest node here, {known} its measured ceiling"
    left_out = len(nodes) - len(drawn)
    if left_out:
        title += f"; {left_out} of {len(nodes)} nodes have no arithmetic or no count of it and are not drawn"
    style(figure, title, height=460, left=80)
    figure.update_xaxes(
        type="log", range=list(np.log10(span)), title_text="arithmetic intensity (flop/byte)", exponentformat="power",
        dtick=1,
    )  # fmt: skip
    figure.update_yaxes(
        type="log", range=list(np.log10([lowest, highest])), title_text="rate (flop/s)",
        exponentformat="power", dtick=1,
    )  # fmt: skip
    return figure


def ceilings_in_use(nodes: pd.DataFrame, ceilings: Ceilings, *, tf32: bool) -> dict[str, float]:
    """Measured peaks in flop/s, by label: of the tensor units for each dtype that the nodes use, and of float32 units.

    A CPU measures one peak for matrix and other float32 work; it is named once.
    """
    dtypes = nodes.loc[nodes["tensor_flops"] > 0, "dtype"].dropna().unique()
    keys = {
        f"tensor:{'tf32' if dtype == 'float32' and tf32 else dtype}": f"{dtype} tensor units" + " (TF32)" * (
            dtype == "float32" and tf32
        )
        for dtype in sorted(dtypes)
    }  # fmt: skip
    keys["fp:float32"] = "float32 units"
    by_value = {ceilings.flops_per_s[key]: label for key, label in keys.items() if key in ceilings.flops_per_s}
    return {label: peak for peak, label in by_value.items()}


def _dots(rows: pd.DataFrame, limit: str, longest_ns: float) -> dict[str, object]:
    shown = rows[["name", "op_type", "time_ns", "flops_per_s", "bytes_per_s", "efficiency"]]
    hover = [
        f"{text(shorten(name))} · {text(op_type)}<br>{format_ns(time_ns)} per call, {limit}<br>{format_flops(flops)}, "
        f"{format_bytes_per_s(moved)}, {format_percent(reached)} of its ceiling"
        for name, op_type, time_ns, flops, moved, reached in shown.to_numpy(object)
    ]
    return {
        "x": rows["intensity"],
        "y": rows["flops_per_s"],
        "mode": "markers",
        "name": limit,
        "hovertext": hover,
        "hoverinfo": "text",
        "marker": {
            "color": COLOURS[CLASS_OF_LIMIT[limit]],
            "opacity": 0.75,
            "size": rows["time_ns"],
            "sizemode": "area",
            "sizeref": 2 * longest_ns / _LARGEST_DOT_PIXELS**2,
            "sizemin": 3,
            "line": {"width": 0.5, "color": TEXT},
        },
    }


def _intensity_span(intensity: pd.Series, peaks: dict[str, float], bandwidth: float | None) -> tuple[float, float]:
    """Range of the axis: all dots and the ridge of every roof, with a margin."""
    ridges = [peak / bandwidth for peak in peaks.values()] if bandwidth else []
    return min([float(intensity.min()), *ridges]) / 3, max([float(intensity.max()), *ridges]) * 6


def _add_ceilings(
    figure: go.Figure, peaks: dict[str, float], bandwidth: float | None, span: tuple[float, float], lowest: float
) -> None:
    line = {"color": TEXT, "width": 1.5}
    for label, peak in peaks.items():
        begin = max(peak / bandwidth, span[0]) if bandwidth else span[0]
        figure.add_scatter(
            x=[begin, span[1]], y=[peak, peak], mode="lines", line=line, hoverinfo="skip", showlegend=False
        )
        figure.add_annotation(
            x=np.log10(span[1]), y=np.log10(peak), text=f"{label} {format_flops(peak)}", showarrow=False,
            xanchor="right", yanchor="bottom",
        )  # fmt: skip
    if bandwidth and peaks:
        top = max(peaks.values())
        ridge = top / bandwidth
        figure.add_scatter(
            x=[span[0], ridge], y=[span[0] * bandwidth, top], mode="lines", line=line, hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
        begin = max(span[0], 3 * lowest / bandwidth)
        # at the left end and below the line, where neither the rising line nor a dot can cross it
        figure.add_annotation(
            x=np.log10(begin), y=np.log10(begin * bandwidth), text=f"memory {format_bytes_per_s(bandwidth)}",
            showarrow=False, xanchor="left", yanchor="top", xshift=12,
        )  # fmt: skip
