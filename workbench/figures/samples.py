"""What the device did while the passes ran: clock, power, temperature, memory, kernels running, utilisation."""

from __future__ import annotations

from typing import Final

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.classes import ACCENT
from workbench.figures.theme import TEXT, empty, style

# metric of table `samples`: axis title, divisor
_SHOWN: Final = {
    "sm_clock_mhz": ("SM clock<br>(MHz)", 1.0),
    "power_w": ("power<br>(W)", 1.0),
    "temperature_celsius": ("temperature<br>(°C)", 1.0),
    "memory_used_bytes": ("memory<br>(GB)", 1e9),
    "gpu_kernel_running_percent": ("kernel runs<br>(% of time)", 1.0),
    "sm_active_percent": ("SMs active<br>(%)", 1.0),
    "tensor_active_percent": ("tensor cores<br>(% active)", 1.0),
    "dram_read_bandwidth_percent": ("DRAM reads<br>(% of peak)", 1.0),
    "dram_write_bandwidth_percent": ("DRAM writes<br>(% of peak)", 1.0),
    "pcie_rx_throughput_percent": ("PCIe to GPU<br>(% of peak)", 1.0),
    "pcie_tx_throughput_percent": ("PCIe from GPU<br>(% of peak)", 1.0),
}
_ROW_PIXELS: Final = 92


def device_samples(samples: pd.DataFrame, ranges: pd.DataFrame) -> go.Figure:
    """Small multiples over one time axis; passes are shaded, their measured part more.

    samples, ranges: the tables of these names. "Kernel runs" is the part of time in which some kernel ran; it says
    nothing about how much of the device that kernel filled.
    """
    present = [metric for metric in _SHOWN if (samples["metric"] == metric).any()]
    if not present:
        return empty("The device was not sampled: NVML provides clock, power, temperature and memory on an NVIDIA GPU.")
    origin = int(samples["time_ns"].min())
    figure = make_subplots(rows=len(present), cols=1, shared_xaxes=True, vertical_spacing=0.03)
    devices = sorted(samples["device"].unique())
    for row, metric in enumerate(present, start=1):
        title, divisor = _SHOWN[metric]
        for device in devices:
            rows = samples[(samples["metric"] == metric) & (samples["device"] == device)]
            x, y = _broken_line(rows, origin, divisor)
            figure.add_scatter(
                x=x, y=y, mode="lines", line={"color": ACCENT, "width": 1.5}, opacity=1 - 0.5 * devices.index(device) /
                len(devices), name=f"GPU {device}", showlegend=False, row=row, col=1,
                hovertemplate=f"GPU {device} at %{{x:.2f}} s: %{{y:,.4g}}<extra></extra>",
            )  # fmt: skip
        figure.update_yaxes(title_text=title, row=row, col=1, rangemode="tozero", nticks=4)
    style(figure, _title(samples), height=100 + _ROW_PIXELS * len(present), left=70)
    figure.update_yaxes(title_font_size=11)
    figure.update_xaxes(title_text="time since the first sample (s)", row=len(present), col=1)
    shapes, names = _shading(ranges[ranges["pass"].isin(samples["pass"].unique())], origin, f"x{len(present)}")
    figure.update_layout(shapes=shapes, annotations=names)
    return figure


def _broken_line(rows: pd.DataFrame, origin: int, divisor: float) -> tuple[list[float | None], list[float | None]]:
    """Seconds and values in order of time, broken between passes, because nothing was sampled there."""
    x: list[float | None] = []
    y: list[float | None] = []
    for _, part in rows.sort_values("time_ns").groupby("pass", sort=False):
        x += [*((part["time_ns"] - origin) / 1e9), None]
        y += [*(part["value"] / divisor), None]
    return x, y


def _shading(ranges: pd.DataFrame, origin: int, axis: str) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Rectangles and names of the passes, across all rows; a figure takes lists of them far quicker than one by one."""
    shapes: list[dict[str, object]] = []
    names: list[dict[str, object]] = []
    for name, spans in ranges.groupby("pass", sort=False):
        seconds = (spans[["start_ns", "end_ns"]].to_numpy() - origin) / 1e9
        whole = (float(seconds[:, 0].min()), float(seconds[:, 1].max()))
        measured = seconds[(spans["name"] == "measure").to_numpy()].tolist()
        for (x0, x1), opacity in [(whole, 0.10), *((span, 0.14) for span in measured)]:
            shapes.append(
                {"type": "rect", "xref": axis, "yref": "paper", "x0": x0, "x1": x1, "y0": 0, "y1": 1, "line_width": 0}
                | {"fillcolor": TEXT, "opacity": opacity, "layer": "below"}
            )
        names.append(
            {"x": sum(whole) / 2, "xref": axis, "y": 1, "yref": "paper", "yanchor": "bottom", "text": str(name)}
            | {"showarrow": False, "font_size": 11}
        )
    return shapes, names


def _title(samples: pd.DataFrame) -> str:
    highest = samples.groupby("metric")["value"].max()
    said = {
        "sm_clock_mhz": "SM clock up to {:,.0f} MHz",
        "power_w": "power up to {:,.0f} W",
        "temperature_celsius": "up to {:.0f} °C",
        "memory_used_bytes": "up to {:.3g} GB in use",
    }
    parts = [
        sentence.format(highest[metric] / _SHOWN[metric][1]) for metric, sentence in said.items() if metric in highest
    ]
    return ", ".join(parts) or "How much of the time a kernel ran"
