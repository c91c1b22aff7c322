"""What the figures of tuning share beyond the theme: logarithmic axes with plain numbers, and room on narrow pages."""

from __future__ import annotations

import math
from typing import Any, Final

import plotly.graph_objects as go

_MARGIN: Final = 0.06  # of the axis, so that no mark lies on its edge
_MOST_TICKS: Final = 7
_LINE_PIXELS: Final = 24


def log_axis(low: float, high: float, suffix: str = "") -> dict[str, Any]:
    """A logarithmic axis from `low` to `high`, both positive, with ticks at 1, 2 and 5 or at powers of ten."""
    begin, end = math.log10(low), math.log10(high)
    margin = max(_MARGIN * (end - begin), 0.02)
    decades = range(math.floor(begin - margin), math.ceil(end + margin) + 1)
    steps = (1, 2, 5) if 3 * (end - begin) <= _MOST_TICKS else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    shown = [tick for tick in ticks if begin - margin <= math.log10(tick) <= end + margin]
    return {
        "type": "log", "range": [begin - margin, end + margin], "tickvals": shown,
        "ticktext": [f"{tick:,.12g}{suffix}" for tick in shown], "tickangle": 0,
    }  # fmt: skip


def fit_narrow(figure: go.Figure) -> None:
    """Legend below, and the title from the left edge of the picture.

    On a narrow page beside long row names each entry of the legend gets a line of its own; the height grows by these
    lines, so that the marks keep theirs.
    """
    entries = sum(bool(trace.name) and trace.showlegend is not False for trace in figure.data)
    figure.update_layout(
        height=figure.layout.height + _LINE_PIXELS * entries,
        title={"xref": "container", "x": 0, "pad_l": 10},
        legend={"xref": "container", "x": 0.01, "yref": "container", "y": 0, "yanchor": "bottom"},
        margin_t=45,
    )
