"""The figures of the explorer: those of the report as widgets, which can be clicked and marked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import ipywidgets
import pandas as pd
import plotly.graph_objects as go

from workbench.analysis.kernel_times import kernel_times
from workbench.analysis.window import NODE_KEY, PassTrace
from workbench.diagnosis.result import Diagnosis
from workbench.figures.classes import ACCENT
from workbench.figures.counters import hardware_counters
from workbench.figures.kernels import top_kernels
from workbench.figures.roofline import roofline
from workbench.figures.samples import device_samples
from workbench.runs.reader import RunFolder
from workbench.widgets.base import missing_html

_KERNELS_DRAWN: Final = 15
_PALE: Final = 0.2
_NOT_SAMPLED: Final = (
    "The device was not sampled: NVML provides clocks, power, temperature and memory of an NVIDIA GPU."
)
_NOT_COUNTED: Final = "No counter was read: GPM on Hopper and newer, or Nsight's GPU metrics, provide them."

Clicked = Callable[[int], None]


class Roofline(ipywidgets.VBox):
    """The roofline of all measured calls; a dot is a node that can be picked."""

    def __init__(self, run: RunFolder, diagnosis: Diagnosis | None, trace: PassTrace | None, picked: Clicked) -> None:
        nodes = None if diagnosis is None or diagnosis.nodes is None else diagnosis.nodes.nodes
        if nodes is None or trace is None or not len(nodes) or not len(trace.nodes):
            super().__init__([_missing("No node was recorded: the nodes pass provides the roofline.")])
            return
        manifest = run.manifest
        self._figure = _live(roofline(nodes, manifest.ceilings, tf32=manifest.uses_tf32))
        known = trace.nodes[NODE_KEY].assign(row=range(len(trace.nodes)))
        row_of = nodes[NODE_KEY].merge(known, on=NODE_KEY, how="left")["row"]
        self._rows = [_dots(trace, nodes, row_of, each) for each in self._figure.data]
        for trace_at, drawn in enumerate(self._figure.data):
            drawn.on_click(lambda _, points, __, at=trace_at: self._clicked(at, points, picked))
        super().__init__([self._figure])

    def mark(self, node: int | None) -> None:
        """Show this node alone in full colour; None for all."""
        if not self.children or self.children[0] is not getattr(self, "_figure", None):
            return
        with self._figure.batch_update():
            for drawn, rows in zip(self._figure.data, self._rows, strict=True):
                if drawn.mode == "markers":
                    drawn.selectedpoints = None if node is None else [at for at, row in enumerate(rows) if row == node]
                    drawn.unselected = {"marker": {"opacity": _PALE}}

    def _clicked(self, at: int, points: Any, picked: Clicked) -> None:
        rows = self._rows[at]
        if points.point_inds and points.point_inds[0] < len(rows):
            picked(rows[points.point_inds[0]])


class KernelChart(ipywidgets.VBox):
    """The longest kernels of the measured calls; a bar is a kernel that can be picked by its name."""

    def __init__(self, run: RunFolder, picked: Callable[[str], None]) -> None:
        times = kernel_times(run)
        if times is None:
            super().__init__([_missing("No kernel was recorded: the activity pass or an Nsight export provides them.")])
            return
        names = [str(name) for name in times.kernels["name"].head(_KERNELS_DRAWN)]
        figure = _live(top_kernels(times, count=_KERNELS_DRAWN))

        def clicked(_: Any, points: Any, __: Any) -> None:
            if points.ys:
                picked(names[int(points.ys[0])])

        for drawn in figure.data:
            drawn.on_click(clicked)
        super().__init__([figure])


class Counters(ipywidgets.VBox):
    """Clocks, power and hardware counters over all passes, with the window of the timeline marked."""

    def __init__(self, run: RunFolder) -> None:
        self._marked = []
        parts: list[ipywidgets.Widget] = []
        tables = (run.samples, device_samples, _NOT_SAMPLED), (run.counters, hardware_counters, _NOT_COUNTED)
        for table, drawn, sentence in tables:
            figure = drawn(table, run.ranges) if len(table) else go.Figure()
            if not figure.data:
                parts.append(_missing(sentence))
                continue
            live = _live(figure)
            origin = int((table["time_ns"] - table.get("window_ns", 0)).min())
            self._marked.append((live, list(figure.layout.shapes), origin))
            parts.append(live)
        super().__init__(parts)

    def mark(self, start_ns: int, end_ns: int) -> None:
        """Mark a window of time."""
        for figure, shapes, origin in self._marked:
            edges = {"x0": (start_ns - origin) / 1e9, "x1": (end_ns - origin) / 1e9, "y0": 0, "y1": 1}
            place = {"type": "rect", "xref": figure.data[-1].xaxis or "x", "yref": "paper", **edges}
            look = {"line": {"color": ACCENT, "width": 1.5}, "fillcolor": ACCENT, "opacity": 0.35}
            figure.layout.shapes = [*shapes, {**place, **look}]


def _dots(trace: PassTrace, nodes: pd.DataFrame, row_of: pd.Series, drawn: Any) -> list[int]:
    """The rows in `trace.nodes` of the dots of one part of the figure, which draws nodes in their order; else empty."""
    if drawn.mode != "markers":
        return []
    chosen = (nodes["limit"] == drawn.name) & (nodes["flops_per_s"] > 0) & (nodes["bytes_per_s"] > 0)
    rows = [int(row) for row in row_of[chosen.to_numpy()].fillna(-1)]
    return rows if len(rows) == len(drawn.x) else []


def _live(figure: go.Figure) -> go.FigureWidget:
    """The figure as a widget as wide as its place."""
    live = go.FigureWidget(figure, layout_autosize=True)
    live._config = {**(live._config or {}), "responsive": True, "displaylogo": False}
    return live


def _missing(sentence: str) -> ipywidgets.HTML:
    return ipywidgets.HTML(missing_html(sentence))
