"""What every widget shares: its look in light and dark, the verdict card, and sentences for what is missing.

Nothing here imports ipywidgets, so that a missing extra is said in a sentence and not in a traceback.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any, Final

from workbench.diagnosis.diagnosis import diagnose
from workbench.diagnosis.result import Diagnosis
from workbench.errors import ConfigError
from workbench.figures.classes import COLOURS, ON_COLOUR, label
from workbench.figures.units import format_ns, format_percent
from workbench.report import facts, tables
from workbench.runs.manifest import Manifest
from workbench.runs.reader import RunFolder

CSS_CLASS: Final = "wb"
"""Every widget of the workbench carries it, so that `STYLE` reaches its content and nothing else."""

_NEEDED: Final = ("ipywidgets", "anywidget")
_LEAST_LABELLED: Final = 0.06  # a narrower segment of the shares has no room for its per cent

# JupyterLab's own colours, which change with its theme; the system's where there is no JupyterLab.
VARIABLES: Final = """
  --wb-page: var(--jp-layout-color1, Canvas); --wb-panel: var(--jp-layout-color2, rgba(128,128,128,.1));
  --wb-text: var(--jp-ui-font-color1, CanvasText); --wb-quiet: var(--jp-ui-font-color2, GrayText);
  --wb-line: var(--jp-border-color2, rgba(128,128,128,.35)); --wb-accent: var(--jp-brand-color1, #1976d2);
  --wb-font: var(--jp-ui-font-family, system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif);
"""
STYLE: Final = f"""
.wb {{ {VARIABLES} color: var(--wb-text); font-family: var(--wb-font); font-size: 13px; line-height: 1.45; }}
.wb p {{ margin: 3px 0; max-width: 110ch; overflow-wrap: anywhere; }}
.wb h4 {{ margin: 8px 0 3px; font-size: 13px; font-weight: 600; }}
.wb .quiet {{ color: var(--wb-quiet); }}
.wb .card {{ border: 1px solid var(--wb-line); border-left: 8px solid var(--class); border-radius: 5px;
  background: var(--wb-panel); padding: 8px 14px 10px; }}
.wb .card .name {{ font-size: 21px; font-weight: 650; line-height: 1.25; }}
.wb .card .name::first-letter, .wb .card .cause::first-letter {{ text-transform: uppercase; }}
.wb .bar {{ display: flex; height: 22px; margin-top: 8px; border-radius: 3px; overflow: hidden; }}
.wb .bar > span {{ overflow: hidden; text-align: center; font-size: 12px; line-height: 22px; white-space: nowrap; }}
.wb .legend {{ display: flex; flex-wrap: wrap; gap: 0 16px; margin-top: 4px; font-size: 12px; }}
.wb .swatch {{ display: inline-block; width: 10px; height: 10px; border-radius: 2px; background: var(--class);
  margin-right: 5px; }}
.wb .missing {{ border: 1px dashed var(--wb-line); border-radius: 5px; padding: 7px 12px; color: var(--wb-quiet); }}
.wb table {{ border-collapse: collapse; font-size: 12px; }}
.wb th {{ font-weight: 600; color: var(--wb-quiet); }}
.wb th, .wb td {{ padding: 2px 12px 2px 0; border-bottom: 1px solid var(--wb-line); vertical-align: top;
  text-align: left; }}
.wb .n {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
"""


def require_lab() -> None:
    """Raise `ConfigError`, which says what to install, unless the packages that widgets are made of are there."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ConfigError(f"Widgets need {' and '.join(missing)}: run `pip install 'ort-workbench[lab]'`.")


def diagnosed(run: RunFolder) -> Diagnosis:
    """The diagnosis that a run of the Python interface keeps, or else a new one; raises `RunFolderError`."""
    kept: Any = run
    found: Diagnosis = kept.diagnosis if hasattr(type(run), "diagnosis") else diagnose(run)
    return found


def text(plain: object) -> str:
    """Any text as HTML shows it; names come from others and are never obeyed."""
    return html.escape(str(plain), quote=True)


def block(content: str) -> str:
    """A piece of HTML of ours with its style, for an HTML widget, an output or a page."""
    return f'<div class="{CSS_CLASS}"><style>{STYLE}</style>{content}</div>'


def missing_html(sentence: str) -> str:
    """The place of something that cannot be shown: the sentence that says why, and what would provide it."""
    return block(f'<div class="missing" role="note">{text(sentence)}</div>')


def card_html(diagnosis: Diagnosis, manifest: Manifest) -> str:
    """The verdict of a run: its name and colour, cause, reason, confidence, and the shares as one bar with a legend."""
    card, kind = facts.card(diagnosis, manifest), manifest.device.kind
    lines = [f'<p class="cause">{text(card.sub_cause)}</p>'] if card.sub_cause else []
    lines += [f"<p>{text(card.reason)}</p>", f'<p class="quiet">{text(card.confidence)}</p>']
    if not manifest.complete:
        lines.append("<p><b>The run is incomplete:</b> a pass failed, and its reason is in the run's manifest.</p>")
    return block(
        f'<div class="card" style="--class: {card.colour}"><div class="quiet">{text(_subject(manifest))}</div>'
        f'<div class="name">{text(card.name)}</div>{"".join(lines)}{shares_html(diagnosis.shares, kind)}</div>'
    )


def shares_html(shares: dict[str, float | None], device_kind: str) -> str:
    """Shares as one stacked bar above its legend; those that are None are left out."""
    known = {name: share for name, share in shares.items() if share is not None}
    segments = "".join(
        f'<span style="flex: 0 0 {100 * share:.3f}%; background: {COLOURS[name]}; color: '
        f'{ON_COLOUR.get(name, "#000000")}">{format_percent(share) if share >= _LEAST_LABELLED else ""}</span>'
        for name, share in known.items()
    )
    legend = "".join(
        f'<span><span class="swatch" style="--class: {COLOURS[name]}"></span>{text(label(name, device_kind))} '
        f"{format_percent(share)}</span>"
        for name, share in known.items()
    )
    return f'<div class="bar" aria-hidden="true">{segments}</div><div class="legend">{legend}</div>' if known else ""


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """A small table of texts. numbers: positions of the columns that hold numbers, which stand to the right."""

    def cells(tag: str, row: Sequence[str]) -> str:
        marks = [' class="n"' if at in numbers else "" for at in range(len(row))]
        return "".join(f"<{tag}{mark}>{text(cell)}</{tag}>" for mark, cell in zip(marks, row, strict=True))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"


def _subject(manifest: Manifest) -> str:
    took = [] if manifest.latency is None else [f"{format_ns(round(manifest.latency.median_ns))} a call"]
    return " · ".join((f"{manifest.model.name} on {manifest.device.name}", *took, *tables.run_line(manifest)))
