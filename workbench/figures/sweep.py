"""Batch × concurrency as a map: throughput, tail latency and class of every load, where it stops paying, the best."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.figures.axes import fit_narrow
from workbench.figures.classes import COLOURS, label_of_verdict
from workbench.figures.theme import TEXT, empty, shorten, style, text
from workbench.figures.units import UNKNOWN, format_bytes, format_ns, format_rate

# Light to dark, so that it reads in grey as well; the outlines are of a hue that the scale does not hold.
_SCALE: Final = "YlGnBu"
_OUTLINE: Final = "#EE3377"
_CELL_PIXELS: Final = 58
_WORDS: Final = {
    "OutOfMemoryError": "out of<br>memory",
    "ConfigError": "not<br>possible",
    "WorkerTimeoutError": "time<br>limit",
}
_INCONCLUSIVE: Final = "?"


def sweep_map(
    cells: pd.DataFrame,
    *,
    knee: tuple[int, int] | None = None,
    best: tuple[int, int] | None = None,
    constraint: str = "",
    met: bool = True,
    device_kind: str = "cuda",
) -> go.Figure:
    """Throughput as colour and number, P99 and the class's letter in each cell; cells that failed are hatched.

    cells: rows of `workbench.tuning.sweep.sweep`. knee, best: (batch, concurrency) of the cells to outline.
    constraint: what the best cell was asked to meet, as the user wrote it; met: whether it does.
    """
    measured = cells[cells["items_per_s"].notna()]
    if not len(cells):
        return empty("No cell was measured: workbench tune sweeps batch and concurrency.")
    batches, concurrencies = (sorted(int(value) for value in cells[axis].unique()) for axis in ("batch", "concurrency"))
    at = {"batch": {batch: row for row, batch in enumerate(batches)}}
    at["concurrency"] = {concurrency: column for column, concurrency in enumerate(concurrencies)}
    shape = (len(batches), len(concurrencies))
    rate, said, hover = np.full(shape, np.nan), np.full(shape, "", object), np.full(shape, "", object)
    for cell in measured.to_dict("records"):
        place = at["batch"][cell["batch"]], at["concurrency"][cell["concurrency"]]
        rate[place], said[place], hover[place] = cell["items_per_s"], _said(cell), _hover(cell)
    figure = go.Figure()
    if len(measured):
        figure.add_heatmap(
            z=rate, text=said, texttemplate="%{text}", hovertext=hover, hoverinfo="text", colorscale=_SCALE,
            xgap=2, ygap=2, zmin=0, hoverongaps=False, showscale=False,
        )  # fmt: skip
    _add_failed(figure, cells[cells["error_kind"].notna()], at)
    if knee is not None:
        _add_outline(figure, at, knee, f"knee: batch {knee[0]} × {knee[1]}", inset=0.08, dash="dot")
    if best is not None:
        _add_outline(figure, at, best, f"best: batch {best[0]} × {best[1]}", inset=0.02, dash="solid")
    style(figure, _title(cells, best, constraint, met), height=150 + _CELL_PIXELS * len(batches), left=60)
    fit_narrow(figure)
    letters = _letters(measured["klass"].dropna().unique(), device_kind)
    figure.update_xaxes(
        tickvals=list(range(shape[1])), ticktext=[str(each) for each in concurrencies], showgrid=False,
        title_text=f"concurrency (calls in flight)<br><span style='font-size:11px'>{letters}</span>",
        range=[-0.5, shape[1] - 0.5],
    )  # fmt: skip
    figure.update_yaxes(
        tickvals=list(range(shape[0])), ticktext=[str(each) for each in batches], showgrid=False,
        title_text="batch (items per call)", range=[-0.5, shape[0] - 0.5],
    )  # fmt: skip
    figure.update_layout(bargap=0)
    return figure


def class_letter(klass: str) -> str:
    """`M` for memory, `C+L` for a pair, `?` where no class can be named."""
    names = klass.split("+")
    return "+".join(name[0].upper() for name in names) if set(names) <= set(COLOURS) else _INCONCLUSIVE


def _letters(classes: Iterable[str], device_kind: str) -> str:
    """What stands in each cell, and what the letters mean that the map uses."""
    names = sorted({name for klass in classes for name in klass.split("+")})
    said = [f"{class_letter(name)} {label_of_verdict(name, device_kind)}" for name in names]
    return "each cell: items/s, P99" + (f", class<br>{', '.join(said)}" if said else "")


def _said(cell: Mapping[Hashable, Any]) -> str:
    """Three short lines: plotly sizes them so that the longest fits into its cell."""
    rate = format_rate(cell["items_per_s"]).removesuffix(" items/s")
    tail = UNKNOWN if pd.isna(cell["p99_ns"]) else format_ns(cell["p99_ns"])
    return f"<b>{rate}</b><br>{tail}" + ("" if pd.isna(cell["klass"]) else f"<br>{class_letter(cell['klass'])}")


def _hover(cell: Mapping[Hashable, Any]) -> str:
    times = ", ".join(
        f"P{percentile} {format_ns(None if pd.isna(value := cell[f'p{percentile}_ns']) else value)}"
        for percentile in (50, 90, 99)
    )
    device, host = (
        format_bytes(None if pd.isna(cell[name]) else cell[name]) for name in ("peak_device_bytes", "peak_host_bytes")
    )
    lines = [
        f"batch {cell['batch']}, concurrency {cell['concurrency']}: {format_rate(cell['items_per_s'])}",
        times,
        f"peak memory: device {device}, host {host}",
        "" if pd.isna(cell["klass"]) else f"class: {cell['klass']}",
        "" if pd.isna(cell["note"]) else cell["note"],
    ]
    return "<br>".join(text(line) for line in lines if line)


def _add_failed(figure: go.Figure, cells: pd.DataFrame, at: dict[str, dict[int, int]]) -> None:
    if not len(cells):
        return
    rows = cells["batch"].map(at["batch"])
    where = "batch " + cells["batch"].astype(str) + ", concurrency " + cells["concurrency"].astype(str) + ": "
    figure.add_bar(
        x=cells["concurrency"].map(at["concurrency"]), y=[0.96] * len(cells), base=rows - 0.48, width=0.96,
        marker={"color": "rgba(128,128,128,0.12)", "line": {"width": 0},
                "pattern": {"shape": "/", "fgcolor": "rgba(128,128,128,0.45)", "size": 8, "solidity": 0.15}},
        text=[_WORDS.get(kind, "failed") for kind in cells["error_kind"]], textposition="inside", textangle=0,
        insidetextanchor="middle", insidetextfont={"color": TEXT}, showlegend=False, hoverinfo="text",
        hovertext=[text(f"{place}{shorten(why, 160)}") for place, why in zip(where, cells["error"], strict=True)],
    )  # fmt: skip


def _add_outline(
    figure: go.Figure, at: dict[str, dict[int, int]], cell: tuple[int, int], name: str, *, inset: float, dash: str
) -> None:
    row, column, half = at["batch"][cell[0]], at["concurrency"][cell[1]], 0.5 - inset
    figure.add_scatter(
        x=[column - half, column + half, column + half, column - half, column - half],
        y=[row - half, row - half, row + half, row + half, row - half],
        mode="lines", name=name, hoverinfo="skip", line={"color": _OUTLINE, "width": 3, "dash": dash},
    )  # fmt: skip


def _title(cells: pd.DataFrame, best: tuple[int, int] | None, constraint: str, met: bool) -> str:
    if best is None:
        return "No cell could be measured" if cells["items_per_s"].isna().all() else "Throughput of every load"
    row = cells[(cells["batch"] == best[0]) & (cells["concurrency"] == best[1])].iloc[0]
    said = f"batch {best[0]} × {best[1]}: {format_rate(row['items_per_s'])}"
    if not constraint:
        return said.capitalize()
    return f"{constraint}: {said}" if met else f"{constraint} is never met; closest {said}"
