"""One look for every figure: transparent, quiet, legible on light and on dark pages."""

from __future__ import annotations

import html
from typing import Final

import plotly.graph_objects as go

from workbench.figures.classes import ACCENT

# Mid-grey has a contrast of about 4.5 to white and 4.2 to a near-black page, so that text reads on both.
TEXT: Final = "#777777"
_HOVER: Final = "#22272E"
GRID: Final = "rgba(128,128,128,0.22)"
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_NAME_LENGTH: Final = 48


def style(figure: go.Figure, title: str, *, height: int, left: int = 60) -> go.Figure:
    """Apply the common layout and return the figure.

    title: what is seen, as a sentence; plain text. height, left (margin): pixels.
    """
    axes = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "title_standoff": 8,
    }
    figure.update_layout(
        title={"text": text(title), "x": 0, "xref": "paper", "xanchor": "left", "font_size": 15},
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": _FONT, "size": 12, "color": TEXT},
        hoverlabel={"bgcolor": _HOVER, "bordercolor": _HOVER, "font_color": "#FFFFFF", "align": "left"},
        modebar={
            "remove": ["sendChartToCloud", "select2d", "lasso2d"],  # the first uploads the figure to plotly's maker
            "bgcolor": "rgba(0,0,0,0)",
            "color": TEXT,
            "activecolor": ACCENT,
        },
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "itemsizing": "constant"},
        margin={"l": left, "r": 20, "t": 70, "b": 50},
        height=height,
    )
    figure.update_xaxes(**axes)
    figure.update_yaxes(**axes)
    return figure


def shorten(name: object, length: int = _NAME_LENGTH) -> str:
    """A name on one line, the middle of a long one left out."""
    plain = " ".join(str(name).split())
    return plain if len(plain) <= length else f"{plain[: length // 2 - 1]}…{plain[-(length - length // 2) :]}"


def text(plain: str) -> str:
    """Text as plotly may show it: plotly reads a few HTML tags and entities in it, and names come from others."""
    return html.escape(plain, quote=False)


def empty(sentence: str) -> go.Figure:
    """A figure without data: the sentence that says what would provide it."""
    figure = style(go.Figure(), "", height=120)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(text=text(sentence), showarrow=False, x=0, xref="paper", xanchor="left", y=0.5)
    figure.update_layout(margin={"l": 10, "r": 10, "t": 10, "b": 10}, meta={"empty": True})
    return figure
