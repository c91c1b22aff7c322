"""One HTML file that opens offline and asks the network for nothing: the frame that every page stands in.

Plotly's source and the figures' data stand in the page compressed (gzip, base64) and are unpacked by the browser after
the text is painted; base64 also means that no name in the data can end the script it stands in. Everything else is
escaped by Jinja. A content security policy allows the page's own two scripts by their hashes and no request at all.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from workbench.errors import ConfigError
from workbench.runs.writer import full_disk_is_said

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TITLE_PIXELS: Final = 30  # the title stands above the figure, as text of the page


class _Place(NamedTuple):
    """Where a figure is drawn: its title and height, or for an empty one the sentence that stands there instead."""

    title: str
    height: int
    instead: str = ""


class _Script(NamedTuple):
    packed: str
    csp_hash: str


def rendered(template: str, figures: Mapping[str, go.Figure], **values: Any) -> str:
    """The whole page: a template of `report/templates` that extends `page.html.j2`, with the figures by their id.

    values: what the template names beside the figures, all of it escaped. The figures lose their titles to the page.
    """
    environment = Environment(
        loader=PackageLoader("workbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    places = {name: _place(figure) for name, figure in figures.items()}
    plotly = _plotly()
    page_js = _template_file("report.js")
    return environment.get_template(template).render(
        places=places,
        css=Markup(_template_file("report.css")),
        page_js=Markup(page_js),
        script_hashes=[_csp_hash(page_js), plotly.csp_hash],
        plotly_js=plotly.packed,
        figures=_packed(_figures_json({name: figures[name] for name, place in places.items() if not place.instead})),
        **values,
    )


def write_page(page: str, path: Path) -> Path:
    """Write a page beside `path` and rename it; returns `path`.

    Raises `DiskFullError`, and `ConfigError` when the file cannot be written for another reason.
    """
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
