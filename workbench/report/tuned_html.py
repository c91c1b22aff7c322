"""The pages of tuning: of experiments, a search and a sweep, each with all that its answer rests on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from workbench.diagnosis.diagnosis import diagnose
from workbench.figures.cold_start import cold_start
from workbench.figures.experiments import OUTCOMES, before_after
from workbench.figures.history import search_history
from workbench.figures.metrics import metric_name
from workbench.figures.pareto import pareto
from workbench.figures.rounds import round_ratios
from workbench.report import arms, facts, search_rows, sweep_rows, tables, tuned_rows
from workbench.report.options import as_yaml
from workbench.report.page import rendered, write_page
from workbench.runs.manifest import Manifest
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.metric import latency
from workbench.tuning.objective import Constraint, Objective
from workbench.tuning.record import TuningRecord
from workbench.tuning.sweep import Best, Cell
from workbench.tuning.trials import SearchResult
from workbench.version import __version__

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


class Tuned(Protocol):
    """Experiments as `workbench.api.Tuning` opens it."""

    @property
    def record(self) -> TuningRecord:
        """The experiments."""

    @property
    def blocks(self) -> Sequence[Block]:
        """Every measuring process."""

    def run(self, arm: str = BASE) -> RunFolder:
        """The recorded run of an arm."""


class Searched(Protocol):
    """A search as `workbench.api.Search` opens it."""

    @property
    def result(self) -> SearchResult:
        """The trials and the best of them."""

    @property
    def confirmation(self) -> Tuned | None:
        """The best against the base, measured anew."""

    def run(self) -> RunFolder:
        """The recorded run of the best trial, or of the base."""


class Swept(Protocol):
    """A sweep as `workbench.api.Sweep` opens it."""

    @property
    def cells(self) -> pd.DataFrame:
        """One row per cell, see `workbench.tuning.sweep.sweep`."""

    def knee(self) -> Cell | None:
        """The cell where more load stops paying."""

    def best(self, *constraints: str) -> Best | None:
        """The best cell under constraints."""

    def run(self, batch: int, concurrency: int) -> RunFolder:
        """The recorded run of a cell."""

    def figure(self, *constraints: str) -> go.Figure:
        """The map of all cells."""


def write_tuning_page(tuning: Tuned, path: Path) -> Path:
    """Write the page beside `path` and rename it; returns `path`.

    Raises `RunFolderError` when the base's run or the blocks are damaged or missing, `DiskFullError`, and `ConfigError`
    when the file cannot be written for another reason.
    """
    return write_page(render_tuning_page(tuning), path)


def write_search_page(searched: Searched, path: Path) -> Path:
    """Write the page of a search; raises like `write_tuning_page`, of the run of the best trial."""
    return write_page(render_search_page(searched), path)


def write_sweep_page(swept: Swept, path: Path, constraints: Sequence[str] = ()) -> Path:
    """Write the page of a sweep with its best cell under the constraints, such as `p99<10ms`.

    Raises like `write_tuning_page`, of the run of the best cell.
    """
    return write_page(render_sweep_page(swept, constraints), path)


def render_tuning_page(tuning: Tuned) -> str:
    """The whole page."""
    record, base = tuning.record, tuning.run(BASE)
    manifest, diagnosis = base.manifest, diagnose(base)
    measured = [each.lever for each in record.experiments if each.comparison is not None]
    figures = _figures(record, tuning.blocks, measured)
    command, not_named = tuned_rows.repeat_command(record)
    rows = tuned_rows.tried(record)
    return rendered(
        "tuned.html.j2",
        figures,
        record=record,
        headline=f"{record.model} on {record.device.name}: {metric_name(record.objective)} of what was tried",
        created=tables.utc(record.created_ns),
        run_line=tables.run_line(manifest),
        subject=tuned_rows.subject(record),
        best=tuned_rows.headline(record),
        metric=metric_name(record.objective),
        level=tuned_rows.LEVEL,
        smallest=tuned_rows.SMALLEST,
        measured=[row for row in rows if row.main is not None],
        not_measured=[row for row in rows if row.main is None],
        round_notes=tuned_rows.round_notes(record),
        left_out=_changed_outputs(record),
        base_card=facts.card(diagnosis, manifest),
        base_shares=facts.shares(diagnosis, manifest.device.kind),
        base_interval=facts.interval(diagnosis),
        best_yaml=as_yaml(record.config_of(record.best).model_dump(mode="json", exclude_unset=True)),
        base_yaml=as_yaml(record.base),
        command=command,
        base_file=tuned_rows.BASE_FILE,
        not_named=not_named,
        conditions=tuned_rows.condition_rows(record, tuning.blocks),
        environment=tables.device_rows(manifest),
        fewest_for_interval=arms.FEWEST_FOR_INTERVAL,
    )


def _figures(record: TuningRecord, blocks: Sequence[Block], measured: Sequence[str]) -> dict[str, go.Figure]:
    metric = Objective.parse(record.objective).metric
    latency_metric = metric if metric.name.startswith("latency") else latency(50)
    comparable = [BASE, *(arm for arm in measured if arm not in _changed_outputs(record))]
    points = arms.candidates(
        blocks,
        comparable,
        [Constraint.parse(text) for text in record.constraints],
        latency_metric=latency_metric,
        on_device=record.device.kind == "cuda",
    )
    intervals = {
        each.lever: None if each.comparison.low is None or each.comparison.high is None
        else (each.comparison.low, each.comparison.high)
        for each in record.experiments if each.comparison is not None
    }  # fmt: skip
    figures = {
        "levers": before_after(record.to_frame()),
        "rounds": round_ratios(arms.round_pairs(blocks, measured, metric), intervals, metric.unit),
        "front": pareto(points, best=record.best, latency_name=metric_name(latency_metric.name)),
    }
    if metric.name.startswith("cold-start"):
        figures["cold-start"] = cold_start(arms.cold_start_steps(blocks, [BASE, *measured]))
    return figures


def _changed_outputs(record: TuningRecord) -> list[str]:
    """Levers that compute something else, so that their speed is no alternative."""
    return [each.lever for each in record.experiments if each.parity is not None and not each.parity.within]


def render_search_page(searched: Searched) -> str:
    """The whole page."""
    result, manifest = searched.result, searched.run().manifest
    metric, best = result.objective.metric, result.best
    limits = f" with {' and '.join(limit.text for limit in result.constraints)}" if result.constraints else ""
    figures = {
        "history": search_history(
            search_rows.history(result),
            metric=metric.name,
            unit=metric.unit,
            smaller_is_better=metric.smaller_is_better,
        ),
        "front": search_rows.front(result),
    }
    confirmed, anew = None, None if searched.confirmation is None else searched.confirmation.record
    options = None if best is None else best.options
    if anew is not None:
        figures["confirmation"] = before_after(anew.to_frame())
        confirmed = tuned_rows.tried(anew)[0]
        options = anew.config_of(anew.best).model_dump(mode="json", exclude_unset=True)
    colour = OUTCOMES["better" if best is not None and best.feasible else "no difference"].colour
    return rendered(
        "search.html.j2",
        figures,
        title=f"{manifest.model.name} on {manifest.device.name}: search for the best {metric_name(metric.name)}",
        headline=f"{manifest.model.name} on {manifest.device.name}: search",
        facts=_facts(manifest),
        colour=colour if confirmed is None else confirmed.colour or OUTCOMES["no difference"].colour,
        subject=f"Best of {len(result.trials):,} trials, for {metric_name(metric.name)}{limits}",
        best_words="Nothing was measured" if best is None else search_rows.words_of(best, result),
        sentences=search_rows.best_sentences(result, anew),
        aside=search_rows.counts(result),
        best_number=None if best is None else best.number,
        confirmed=confirmed,
        metrics=[metric_name(name) for name in search_rows.metrics_of(result)],
        trials=search_rows.trial_rows(result),
        best_yaml="" if options is None else as_yaml(options),
        environment=tables.device_rows(manifest),
        workbench_version=manifest.workbench_version,
    )


def render_sweep_page(swept: Swept, constraints: Sequence[str] = ()) -> str:
    """The whole page."""
    cells, best = swept.cells, swept.best(*constraints)
    manifest = None if best is None else swept.run(*best.cell).manifest
    limits = f" with {' and '.join(constraints)}" if constraints else ""
    of = "" if manifest is None else f"{manifest.model.name} on {manifest.device.name}: "
    return rendered(
        "sweep.html.j2",
        {"map": swept.figure(*constraints)},
        title=f"{of}batch × concurrency",
        headline=f"{of}batch × concurrency",
        facts=[] if manifest is None else _facts(manifest),
        colour=OUTCOMES["better" if best is not None and best.feasible else "no difference"].colour,
        subject=f"Best of {len(cells):,} cells, for throughput{limits}",
        best_words="Nothing was measured" if best is None else sweep_rows.cell_words(best.cell),
        best_sentence=sweep_rows.best_sentence(cells, best, constraints),
        knee_sentence=sweep_rows.knee_sentence(cells, swept.knee()),
        head=sweep_rows.HEAD,
        rows=sweep_rows.cell_rows(cells, "cuda" if manifest is None else manifest.device.kind),
        best_yaml="" if manifest is None else as_yaml(manifest.config),
        command=sweep_rows.repeat_command(cells, constraints),
        environment=[] if manifest is None else tables.device_rows(manifest),
        workbench_version=__version__ if manifest is None else manifest.workbench_version,
    )


def _facts(manifest: Manifest) -> list[str]:
    """The line below the title."""
    ort = manifest.software.get("onnxruntime", "of unknown version")
    return [f"ONNX Runtime {ort}", tables.utc(manifest.created_ns)]
