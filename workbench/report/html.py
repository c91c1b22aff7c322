"""The report of a run: verdict, arithmetic, what would help, and everything that they rest on."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from workbench.analysis.kernel_times import kernel_times
from workbench.analysis.thresholds import CLEAR_LEAD, LARGE_SHARE
from workbench.diagnosis.findings import findings
from workbench.diagnosis.levers import Ranked, ranked, situation_of
from workbench.diagnosis.result import Diagnosis
from workbench.figures.units import format_percent
from workbench.report import facts, tables
from workbench.report.findings import shown
from workbench.report.page import rendered, write_page
from workbench.report.pictures import pictures
from workbench.report.ranges import nvtx_times, range_rows
from workbench.report.redact import without_folders
from workbench.runs.reader import RunFolder


class _Lever(NamedTuple):
    """One row of what would help; `ratio` is T' / T with its interval, empty where nothing could be predicted."""

    title: str
    condition: str
    effect: str
    cost: str
    ratio: str
    why: str


def write_report(run: RunFolder, diagnosis: Diagnosis, path: Path) -> Path:
    """Write the report beside `path` and rename it; returns `path`.

    Raises `DiskFullError`, and `ConfigError` when the file cannot be written for another reason.
    """
    return write_page(render_report(run, diagnosis), path)


def render_report(run: RunFolder, diagnosis: Diagnosis) -> str:
    """The whole page."""
    manifest, kind = run.manifest, run.manifest.device.kind
    nodes = diagnosis.nodes
    kernels = kernel_times(run)
    ranges = nvtx_times(run)
    helping = [_lever(each) for each in ranked(situation_of(run, diagnosis)) if each.treats_verdict]
    return rendered(
        "report.html.j2",
        pictures(run, diagnosis),
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
        findings=shown(findings(run, diagnosis), diagnosis.latency.median_ns),
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
        percent=format_percent,
        large_share=LARGE_SHARE,
        points=f"{100 * CLEAR_LEAD:.0f}",
    )


def _lever(each: Ranked) -> _Lever:
    lever, said = each.lever, each.prediction
    ratio = "" if said.ratio is None else f"{said.ratio:.2f} ({said.low:.2f} to {said.high:.2f})"
    return _Lever(lever.title, lever.condition, lever.effect, lever.cost, ratio, said.cannot_say or said.why)
