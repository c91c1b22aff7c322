"""How long the gaps between device work are, and which of them the idle time of a call is made of."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures.classes import COLOURS
from workbench.figures.theme import empty, style
from workbench.figures.units import format_ns, time_scale

_BINS_PER_DECADE: Final = 5
# cause: column, colour, pattern. Host and launch latency are both of the class `launch`; a pattern tells them apart.
_CAUSES: Final = {
    "the host came late": ("host_ns", COLOURS["launch"], ""),
    "launch latency": ("launch_latency_ns", COLOURS["launch"], "/"),
    "waiting in a synchronisation": ("sync_ns", COLOURS["sync"], ""),
}
_HATCH: Final = {"fillmode": "overlay", "fgcolor": "#000000", "solidity": 0.2}


def gap_histogram(gaps: pd.DataFrame, calls: int) -> go.Figure:
    """Idle time per call by the length of the gap that it lies in, stacked by cause; lengths on a logarithmic axis.

    gaps: `workbench.analysis.idle_gaps.idle_gaps` of a pass. calls: how many measured calls they come from. A bar
    holds all gaps of its lengths, so that many short ones and few long ones show for what they cost. Tracing makes gaps
    longer, so that they add up to more than the idle time of the bare call.
    """
    known = gaps[gaps["duration_ns"] > 0]
    if not len(known) or calls < 1:
        return empty("No gap is known: the device never idled, or no activity or nodes pass recorded what it did.")
    bins = np.floor(np.log10(known["duration_ns"].to_numpy(np.float64)) * _BINS_PER_DECADE).astype(np.int64)
    columns = ["duration_ns", *(column for column, _, _ in _CAUSES.values())]
    sums = known[columns].groupby(bins).sum()
    counts = pd.Series(bins).value_counts().reindex(sums.index)
    scale = time_scale(float(sums["duration_ns"].max()) / calls)
    figure = go.Figure()
    for name, (column, colour, pattern) in _CAUSES.items():
        if not sums[column].any():
            continue
        hover = [
            f"gaps of {_bounds(at)}: {count / calls:,.3g} a call<br>{name}: {format_ns(value / calls)} a call"
            for at, count, value in zip(sums.index, counts, sums[column], strict=True)
        ]
        figure.add_bar(
            x=sums.index + 0.5, y=sums[column] / calls / scale.divisor_ns, width=0.9, name=name, hovertext=hover,
            hoverinfo="text",
            marker={"color": colour, "line": {"width": 0}, "pattern": {"shape": pattern, **_HATCH}},
        )  # fmt: skip
    style(figure, _title(known, calls), height=320, left=70)
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    figure.update_xaxes(title_text="length of the gap", showgrid=False, **_axis(int(bins.min()), int(bins.max())))
    figure.update_yaxes(title_text=f"idle time per call ({scale.unit})", rangemode="tozero")
    return figure


def _axis(first: int, last: int) -> dict[str, Any]:
    """Range over all bins, ticks at powers of ten."""
    decades = range(math.floor(first / _BINS_PER_DECADE), math.ceil((last + 1) / _BINS_PER_DECADE) + 1)
    return {
        "range": [first - 0.5, last + 1.5],
        "tickvals": [decade * _BINS_PER_DECADE for decade in decades],
        "ticktext": [_round(10.0**decade) for decade in decades],
    }


def _round(value_ns: float) -> str:
    scale = time_scale(value_ns)
    return f"{value_ns / scale.divisor_ns:,.0f} {scale.unit}"


def _bounds(at: int) -> str:
    return " to ".join(format_ns(10.0 ** (edge / _BINS_PER_DECADE)) for edge in (at, at + 1))


def _title(gaps: pd.DataFrame, calls: int) -> str:
    lengths = np.sort(gaps["duration_ns"].to_numpy(np.int64))
    idle = int(lengths.sum())
    # the gap length at which half of the idle time lies in longer ones
    middle = lengths[np.searchsorted(np.cumsum(lengths), idle / 2)]
    return (
        f"{len(lengths) / calls:,.3g} gaps in a traced call, half of their {format_ns(idle / calls)} in gaps of "
        f"{format_ns(float(middle))} and more"
    )
