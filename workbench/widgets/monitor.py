"""`workbench.monitor`: a GPU while it works, as NVML tells it."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final

import ipywidgets as widgets
import plotly.graph_objects as go
import pyarrow as pa
from plotly.subplots import make_subplots

from workbench.capture.machine import nvml, nvml_handle
from workbench.capture.nvml import DeviceSampler
from workbench.errors import ConfigError, WorkbenchError
from workbench.figures.classes import ACCENT, COLOURS
from workbench.figures.theme import style
from workbench.runs.manifest import SourceInfo
from workbench.runs.schema import TABLES
from workbench.runs.writer import to_table, write_table
from workbench.widgets.base import CSS_CLASS, block, missing_html, text
from workbench.widgets.monitor_lines import PANELS, Panel, means

PASS: Final = "monitor"
INTERVALS_S: Final = (0.5, 1.0, 2.0, 5.0)
"""Seconds between two points of a line, each the mean of samples that lie 20 ms apart."""
_SHORTEST_S: Final = 0.25  # GPM gives a value every 0.2 s
_LONGEST_S: Final = 3600.0
_SHOWN_POINTS: Final = 240
_KEPT_POINTS: Final = 1800
"""Points whose samples can be saved: half an hour at a second each, 28 bytes for each of some 600 samples a second."""
_LINE_COLOURS: Final = (ACCENT, COLOURS["pcie"], COLOURS["sync"])
_ROW_PIXELS: Final = 96
_GOODBYE_S: Final = 2.0
_SILENT: Final = "NVML answers nothing of this GPU any more: it was lost or reset, so look at `nvidia-smi`"


class Monitor(widgets.VBox):
    """Lines of one GPU that go on until the widget is closed or paused.

    device: CUDA device number. interval_s: seconds between two points. Where no driver answers, it is the sentence that
    says so. Raises `ConfigError` for an interval that is no use.
    """

    _thread: threading.Thread | None = None  # until it samples

    def __init__(self, device: int = 0, *, interval_s: float = 1.0) -> None:
        if not _SHORTEST_S <= interval_s <= _LONGEST_S:
            raise ConfigError(f"An interval of {interval_s:g} s is of no use: give {_SHORTEST_S} to {_LONGEST_S:g} s.")
        self.device, problem = device, _problem(device)
        if problem:
            super().__init__([widgets.HTML(missing_html(problem))])
            self.add_class(CSS_CLASS)
            return
        self._closed, self._running = threading.Event(), threading.Event()
        self._kept: deque[pa.Table] = deque(maxlen=_KEPT_POINTS)
        self._points: deque[tuple[float, dict[str, float]]] = deque(maxlen=_SHOWN_POINTS)
        self._begun_s = time.monotonic()
        self._panels: list[Panel] = []
        self.status, self.saved = widgets.HTML(), widgets.HTML()
        self.pause = widgets.ToggleButton(description="Pause")
        self.interval = widgets.Dropdown(
            options=[(f"{each:g} s", each) for each in sorted({*INTERVALS_S, interval_s})], value=interval_s,
            description="interval", layout={"width": "170px"},
        )  # fmt: skip
        self.path = widgets.Text(value="monitor", description="folder", layout={"width": "300px"})
        self.save = widgets.Button(description="Save the samples", layout={"width": "auto"})
        self.figure: go.FigureWidget | None = None
        self._place = widgets.VBox()
        self.pause.observe(lambda change: self._pause(change["new"]), "value")
        self.save.on_click(lambda _: self._save())
        controls = widgets.HBox(
            [self.pause, self.interval, self.path, self.save, self.saved], layout={"flex_flow": "row wrap"}
        )
        super().__init__([controls, self.status, self._place])
        self.add_class(CSS_CLASS)
        self._running.set()
        self._say(f"Waiting for the first samples of GPU {device} …")
        self._thread = threading.Thread(target=self._watch, name="workbench-monitor", daemon=True)
        self._thread.start()
        atexit.register(self._end)

    @property
    def samples(self) -> pa.Table:
        """All samples that were kept, with the schema of table `samples`; the counters of GPM are among them."""
        kept = list(self._kept)
        return pa.concat_tables(kept) if kept else TABLES["samples"].empty_table()

    def close(self) -> None:
        """Stop sampling and take the widget away."""
        self._end()
        super().close()

    def _end(self) -> None:
        if self._thread is None:
            return
        self._closed.set()
        self._running.set()
        if self._thread is not threading.current_thread():
            self._thread.join(_GOODBYE_S)
        atexit.unregister(self._end)

    def _pause(self, paused: bool) -> None:
        self.pause.description = "Go on" if paused else "Pause"
        if paused:
            self._running.clear()
            self._say("Paused: nothing is sampled.")
        else:
            self._running.set()

    def _watch(self) -> None:
        """Sample in stretches of one interval, each of which becomes one point of every line."""
        try:
            with nvml():  # kept open between the stretches
                while self._running.wait() and not self._closed.is_set():
                    with DeviceSampler(self.device, PASS, gpm=True) as sampler:
                        ended = self._closed.wait(self.interval.value)
                    if ended:
                        return
                    if sampler.nvml_source.state == "failed" or not len(sampler.samples()):
                        self._fail(sampler.nvml_source.reason or _SILENT)
                        return
                    self._take(sampler)
        except WorkbenchError as error:
            self._fail(str(error))
        except Exception as error:  # in a thread nobody would see it
            self._fail(f"{type(error).__name__}: {error}")

    def _take(self, sampler: DeviceSampler) -> None:
        found = to_table("samples", pa.concat_tables([sampler.samples(), sampler.counters().drop_columns("window_ns")]))
        self._kept.append(found)
        self._points.append((time.monotonic() - self._begun_s, means(found)))
        self._draw()
        if self._running.is_set():
            self._say(_status(self.device, len(self._points), sampler.gpm_source))

    def _draw(self) -> None:
        known = {metric for _, values in self._points for metric in values}
        panels = [panel for panel in PANELS if any(line.metric in known for line in panel.lines)]
        if panels != self._panels or self.figure is None:
            self._panels, self.figure = panels, _figure(panels)
            self._place.children = [self.figure]
        times_s = [at for at, _ in self._points]
        lines = [line for panel in panels for line in panel.lines]
        with self.figure.batch_update():
            for trace, line in zip(self.figure.data, lines, strict=True):
                trace.x = times_s
                trace.y = [
                    None if (value := values.get(line.metric)) is None else value / line.divisor
                    for _, values in self._points
                ]

    def _save(self) -> None:
        """Write `samples.parquet` into a folder that may exist, unless it holds samples already."""
        folder = Path(self.path.value.strip() or "monitor")
        try:
            if (folder / "samples.parquet").exists():
                raise FileExistsError(f"{folder} holds samples already: choose another folder")
            folder.mkdir(parents=True, exist_ok=True)
            table = self.samples
            write_table(folder, "samples", table)
        except (OSError, WorkbenchError) as error:
            self.saved.value = block(f'<p role="alert">Not saved: {text(str(error).rstrip("."))}.</p>')
            return
        self.saved.value = block(f'<p role="status">{len(table):,} samples in {text(folder / "samples.parquet")}</p>')

    def _fail(self, reason: str) -> None:
        self.pause.disabled = True
        self._say(f"Sampling has ended: {reason.rstrip('.')}.")

    def _say(self, sentence: str) -> None:
        self.status.value = block(f'<p class="quiet" role="status">{text(sentence)}</p>')


def _problem(device: int) -> str:
    """Why this GPU cannot be watched, in a sentence; empty where it can."""
    try:
        with nvml():
            nvml_handle(device)
    except WorkbenchError as error:
        return str(error)
    return ""


def _status(device: int, points: int, gpm: SourceInfo) -> str:
    counters = "" if gpm.state == "present" else f" No counters: {gpm.reason.rstrip('.')}."
    return f"GPU {device}, {points:,} points, each the mean of samples 20 ms apart.{counters}"


def _figure(panels: list[Panel]) -> go.FigureWidget:
    found = make_subplots(rows=len(panels), cols=1, shared_xaxes=True, vertical_spacing=0.03)
    for row, panel in enumerate(panels, start=1):
        for line, colour in zip(panel.lines, _LINE_COLOURS, strict=False):
            found.add_scatter(
                x=[], y=[], mode="lines", name=line.name, line={"color": colour, "width": 1.5}, row=row, col=1,
                legend="legend" if row == 1 else f"legend{row}",
                hovertemplate=f"{line.name}: %{{y:,.4g}}<extra></extra>",
            )  # fmt: skip
        top = {"range": [0, panel.top]} if panel.top is not None else {"rangemode": "tozero"}
        found.update_yaxes(title_text=panel.title, row=row, col=1, nticks=4, **top)
    style(found, "", height=90 + _ROW_PIXELS * len(panels), left=70)
    for row in range(1, len(panels) + 1):
        top = found.layout[f"yaxis{row if row > 1 else ''}"].domain[1]
        place = {"orientation": "h", "x": 1, "xanchor": "right", "y": top, "yanchor": "top", "font_size": 11}
        found.update_layout({"legend" if row == 1 else f"legend{row}": {**place, "bgcolor": "rgba(0,0,0,0)"}})
    found.update_yaxes(title_font_size=11)
    found.update_xaxes(title_text="time since the begin (s)", row=len(panels), col=1)
    found.update_layout(margin={"t": 20}, uirevision="kept", hovermode="x")
    live = go.FigureWidget(found, layout_autosize=True)
    live._config = {**(live._config or {}), "responsive": True, "displaylogo": False}  # as wide as the output
    return live
