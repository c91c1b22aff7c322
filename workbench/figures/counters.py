"""Hardware counters over time: which units of the GPU were at work, against their peak."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.classes import ACCENT, COLOURS
from workbench.figures.theme import TEXT, empty, style
from workbench.figures.units import format_percent


class _Line(NamedTuple):
    name: str
    colour: str
    dash: str = "solid"


# A unit has the colour of the class that it speaks for; of two in one panel the second is dashed.
_PANELS: Final[dict[str, tuple[float, dict[str, _Line]]]] = {
    "multiprocessors<br>(%)": (
        1.0,
        {
            "sm_active_percent": _Line("SMs active", ACCENT),
            "sm_occupancy_percent": _Line("warps of their room", ACCENT, "dot"),
        },
    ),
    "arithmetic<br>(% of time)": (
        1.0,
        {
            "tensor_active_percent": _Line("tensor cores", COLOURS["compute"]),
            "fp32_active_percent": _Line("FP32", COLOURS["compute"], "dot"),
            "fp16_active_percent": _Line("FP16", COLOURS["compute"], "dash"),
        },
    ),
    "DRAM<br>(% of peak)": (
        1.0,
        {
            "dram_active_percent": _Line("DRAM", COLOURS["memory"]),
            "dram_read_bandwidth_percent": _Line("DRAM reads", COLOURS["memory"]),
            "dram_write_bandwidth_percent": _Line("DRAM writes", COLOURS["memory"], "dot"),
        },
    ),
    "PCIe<br>(GB/s)": (
        1e9,
        {
            "pcie_rx_bytes_per_s": _Line("PCIe to GPU", COLOURS["pcie"]),
            "pcie_tx_bytes_per_s": _Line("PCIe from GPU", COLOURS["pcie"], "dot"),
        },
    ),
    "PCIe<br>(% of peak)": (
        1.0,
        {
            "pcie_rx_throughput_percent": _Line("PCIe to GPU", COLOURS["pcie"]),
            "pcie_tx_throughput_percent": _Line("PCIe from GPU", COLOURS["pcie"], "dot"),
        },
    ),
}
_SAID: Final = {
    "sm_active_percent": "SMs active",
    "tensor_active_percent": "tensor cores",
    "dram_active_percent": "DRAM",
    "dram_read_bandwidth_percent": "DRAM reads",
}
_MOST_WINDOWS: Final = 1000
"""About the width of the picture; more windows are drawn as the means of neighbours."""
_PANEL_PIXELS: Final = 100
_ABOVE_PIXELS: Final = 115  # the title, and a legend of up to three lines on a narrow page
_MARGINS_PIXELS: Final = _ABOVE_PIXELS + 50


def hardware_counters(counters: pd.DataFrame, ranges: pd.DataFrame) -> go.Figure:
    """Small multiples over one time axis, each value drawn over the window that it is the mean of.

    counters, ranges: the tables of these names, of the first GPU that was counted. The measured calls are shaded; the
    title gives the means over the windows that lie wholly inside them, or without such over all.
    """
    known = [metric for _, lines in _PANELS.values() for metric in lines]
    rows = counters[counters["metric"].isin(known)]
    if not len(rows):
        return empty("No counter was read: GPM on Hopper and newer, or Nsight's GPU metrics, provide this picture.")
    rows = rows[rows["device"] == rows["device"].min()]
    at_work = rows.groupby("metric", observed=True)["value"].max()
    present = {
        title: (divisor, {name: line for name, line in lines.items() if _shown(at_work.get(name), line)})
        for title, (divisor, lines) in _PANELS.items()
    }
    panels = {title: panel for title, panel in present.items() if panel[1]}
    origin = int((rows["time_ns"] - rows["window_ns"]).min())
    figure = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.05)
    for row, (title, (divisor, lines)) in enumerate(panels.items(), start=1):
        for metric, line in lines.items():
            x, y = _steps(rows[rows["metric"] == metric], origin)
            figure.add_scatter(
                x=x, y=y / divisor, mode="lines", name=line.name, row=row, col=1,
                line={"color": line.colour, "width": 2, "dash": line.dash},
                hovertemplate=f"{line.name} at %{{x:.2f}} s: %{{y:,.3g}}<extra></extra>",
            )  # fmt: skip
        figure.update_yaxes(title_text=title, row=row, col=1, rangemode="tozero", nticks=4)
    measured = _measured(ranges, rows)
    style(figure, _title(rows, measured), height=_MARGINS_PIXELS + _PANEL_PIXELS * len(panels), left=70)
    figure.update_layout(margin_t=_ABOVE_PIXELS)
    figure.update_yaxes(title_font_size=11)
    figure.update_xaxes(title_text="time since the first window (s)", row=len(panels), col=1)
    for begin, end in measured:
        figure.add_vrect(
            x0=(begin - origin) / 1e9, x1=(end - origin) / 1e9, fillcolor=TEXT, opacity=0.12, line_width=0,
            layer="below",
        )  # fmt: skip
    return figure


def _shown(highest: float | None, line: _Line) -> bool:
    """Of a panel the main line where it was counted, the others where the unit was at work at all."""
    return highest is not None and (highest > 0 or line.dash == "solid")


def _measured(ranges: pd.DataFrame, counters: pd.DataFrame) -> list[tuple[int, int]]:
    """Begin and end of the measured calls of the passes that were counted."""
    passes = counters["pass"].unique()
    spans = ranges[(ranges["name"] == "measure") & ranges["pass"].isin(passes)]
    return [(int(begin), int(end)) for begin, end in spans[["start_ns", "end_ns"]].itertuples(index=False)]


def _steps(rows: pd.DataFrame, origin: int) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end of each window in seconds with its value at both, and a gap after each: float64[3 windows]."""
    rows = rows.sort_values("time_ns")
    ends = rows["time_ns"].to_numpy(np.int64)
    begins = ends - rows["window_ns"].to_numpy(np.int64)
    values = rows["value"].to_numpy(np.float64)
    size = -(-len(rows) // _MOST_WINDOWS)
    if size > 1:
        first = np.arange(0, len(rows), size)
        last = np.minimum(first + size, len(rows)) - 1
        values = np.add.reduceat(values, first) / (last - first + 1)
        begins, ends = begins[first], ends[last]
    gap = np.full(len(values), np.nan)
    x = np.stack([(begins - origin) / 1e9, (ends - origin) / 1e9, gap], axis=1).ravel()
    return x, np.stack([values, values, gap], axis=1).ravel()


def _title(rows: pd.DataFrame, measured: list[tuple[int, int]]) -> str:
    begins = rows["time_ns"] - rows["window_ns"]
    inside = np.zeros(len(rows), np.bool_)
    for begin, end in measured:
        inside |= ((begins >= begin) & (rows["time_ns"] <= end)).to_numpy()
    chosen = rows[inside] if inside.any() else rows
    means = chosen.groupby("metric", observed=True)["value"].mean()
    said = [f"{name} {format_percent(means[metric] / 100)}" for metric, name in _SAID.items() if metric in means]
    when = "While calls were measured" if inside.any() else "On average"
    return f"{when}: {', '.join(said)}" if said else "What crossed PCIe"
