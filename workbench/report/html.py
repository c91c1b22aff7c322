"""The report: one HTML file that opens offline and asks the network for nothing.

Plotly's source and the figures' data stand in the page compressed (gzip, base64) and are unpacked by the browser after
the text is painted; base64 also means that no name in the data can end the script it stands in. Everything else is
escaped by Jinja. A content security policy allows the page's own two scripts by their hashes and no request at all.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from workbench.analysis.kernel_times import kernel_times
from workbench.analysis.thresholds import CLEAR_LEAD, LARGE_SHARE
from workbench.diagnosis.diagnosis import Diagnosis
from workbench.diagnosis.levers import Ranked, ranked, situation_of
from workbench.errors import ConfigError
from workbench.figures.units import format_percent
from workbench.report import facts, tables
from workbench.report.pictures import pictures
from workbench.report.ranges import nvtx_times, range_rows
from workbench.report.redact import without_folders
from workbench.runs.reader import RunFolder
from workbench.runs.writer import full_disk_is_said

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TITLE_PIXELS: Final = 30  # the title stands above the figure, as text of the page


class _Place(NamedTuple):
    """Where a figure is drawn: its title and height, or for an empty one the sentence that stands there instead."""

    title: str
    height: int
    instead: str = ""


class _Lever(NamedTuple):
    """One row of what would help; `ratio` is T' / T with its interval, empty where nothing could be predicted."""

    title: str
    condition: str
    effect: str
    cost: str
    ratio: str
    why: str


class _Script(NamedTuple):
    packed: str
    csp_hash: str


def write_report(run: RunFolder, diagnosis: Diagnosis, path: Path) -> Path:
    """Write the report beside `path` and rename it; returns `path`.

    Raises `DiskFullError`, and `ConfigError` when the file cannot be written for another reason.
    """
    page = render_report(run, diagnosis)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with full_disk_is_said(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(page, encoding="utf-8")
            partial.replace(path)
    except OSError as error:
        raise ConfigError(
            f"The report cannot be written to {path} ({error.strerror}): choose another file with --out."
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return path


def render_report(run: RunFolder, diagnosis: Diagnosis) -> str:
    """The whole page."""
    manifest, kind = run.manifest, run.manifest.device.kind
    drawn = pictures(run, diagnosis)
    places = {name: _place(figure) for name, figure in drawn.items()}
    plotly = _plotly()
    page_js = _template_file("report.js")
    nodes = diagnosis.nodes
    kernels = kernel_times(run)
    ranges = nvtx_times(run)
    helping = [_lever(each) for each in ranked(situation_of(run, diagnosis)) if each.treats_verdict]
    environment = Environment(
        loader=PackageLoader("workbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        manifest=manifest,
        kind=kind,
        diagnosis=diagnosis,
        created=tables.utc(manifest.created_ns),
        run_line=tables.run_line(manifest),
        headline=facts.headline(diagnosis, manifest),
        card=facts.card(diagnosis, manifest),
        shares=facts.shares(diagnosis, kind),
        interval=facts.interval(diagnosis),
        launch_sum=facts.launch_sum(diagnosis.pieces) if diagnosis.pieces is not None else "",
        arithmetic=facts.arithmetic(diagnosis, kind),
        counters=tables.counter_rows(diagnosis),
        levers=[row for row in helping if row.ratio],
        unpredicted_levers=[row for row in helping if not row.ratio],
        nodes=tables.node_rows(nodes) if nodes is not None else [],
        ranges=range_rows(ranges) if ranges is not None else None,
        kernels=tables.kernel_rows(kernels) if kernels is not None else [],
        kernels_from=tables.kernels_from(kernels) if kernels is not None else "",
        copies=tables.copy_rows(run, nodes) if nodes is not None else [],
        steps=tables.step_rows(run),
        passes=tables.pass_rows(manifest),
        sources=tables.source_rows(manifest),
        config=tables.config_rows(manifest),
        provider_options=tables.provider_rows(manifest),
        environment=tables.device_rows(manifest),
        ceilings=tables.ceiling_rows(manifest),
        ceiling_notes=[without_folders(note) for note in manifest.ceilings.notes],
        missing=[without_folders(text) for text in diagnosis.missing],
        notes=facts.notes(diagnosis),
        places=places,
        percent=format_percent,
        large_share=LARGE_SHARE,
        points=f"{100 * CLEAR_LEAD:.0f}",
        css=Markup(_template_file("report.css")),
        page_js=Markup(page_js),
        script_hashes=[_csp_hash(page_js), plotly.csp_hash],
        plotly_js=plotly.packed,
        figures=_packed(_figures_json({name: drawn[name] for name, place in places.items() if not place.instead})),
    )


def _lever(each: Ranked) -> _Lever:
    lever, said = each.lever, each.prediction
    ratio = "" if said.ratio is None else f"{said.ratio:.2f} ({said.low:.2f} to {said.high:.2f})"
    return _Lever(lever.title, lever.condition, lever.effect, lever.cost, ratio, said.cannot_say or said.why)


@cache
def _plotly() -> _Script:
    """Plotly's source, packed once for all reports of a process."""
    source = get_plotlyjs()
    return _Script(_packed(source), _csp_hash(source))


def _template_file(name: str) -> str:
    return (files("workbench.report") / "templates" / name).read_text(encoding="utf-8")


def _place(figure: go.Figure) -> _Place:
    """Take the title out of the figure: as text of the page it wraps, is read aloud and can be selected."""
    layout = figure.layout
    if (layout.meta or {}).get("empty"):
        return _Place("", 0, html.unescape(layout.annotations[0].text))
    title = html.unescape(layout.title.text)
    figure.update_layout(title_text="", height=layout.height - _TITLE_PIXELS, margin_t=layout.margin.t - _TITLE_PIXELS)
    return _Place(title, layout.height)


def _figures_json(figures: dict[str, go.Figure]) -> str:
    return "{" + ",".join(f'"{name}":{figure.to_json()}' for name, figure in figures.items()) + "}"


def _packed(text: str) -> str:
    """Compressed, in characters that mean nothing to HTML; the same text gives the same bytes."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _csp_hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"
