"""Batch × concurrency of a model, measured cell by cell, each cell a run that can be diagnosed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final

from workbench.api.base import Base, check_measurable, device_of, ready
from workbench.api.display import Displayed, sweep_html
from workbench.api.run import Run, free_folder
from workbench.api.tuning import BEST_FILE
from workbench.capture.record import DEFAULT_TIMEOUT_S
from workbench.config import RunConfig
from workbench.diagnosis.diagnosis import diagnose
from workbench.errors import RunFolderError
from workbench.runs.reader import RunFolder
from workbench.runs.writer import new_run_folder
from workbench.tuning import sweep as sweeps
from workbench.tuning.blocks import Block
from workbench.tuning.executors import LocalExecutor
from workbench.tuning.measure import Job, record_block
from workbench.tuning.metric import latency
from workbench.tuning.objective import Constraint
from workbench.tuning.rounds import block_for, with_block
from workbench.tuning.store import load_blocks, save_blocks

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

CELLS: Final = "cells.parquet"
RUNS: Final = "runs"
CLASS_PASSES: Final = ("activity", "nodes")
"""What the class of a cell takes: what the device did with all callers, and where its time went node by node."""


class Sweep(Displayed):
    """A sweep, opened from its folder; read only."""

    def __init__(self, folder: str | Path) -> None:
        import pandas as pd

        self.folder = Path(folder)
        blocks = load_blocks(self.folder)
        try:
            cells = pd.read_parquet(self.folder / CELLS)
            self._sweep = sweeps.Sweep(cells, {_cell(block.arm): block for block in blocks})
        except (OSError, ValueError):
            raise RunFolderError(f"{self.folder} holds no readable {CELLS}: it is no result of a sweep.") from None

    @property
    def cells(self) -> pd.DataFrame:
        """One row per cell: latency percentiles, throughput, memory, class; or why there are none."""
        return self._sweep.cells

    def run(self, batch: int, concurrency: int) -> Run:
        """The recorded run of a cell; raises `RunFolderError`."""
        return Run(self.folder / RUNS / _name(batch, concurrency))

    @property
    def device_kind(self) -> str:
        """`cuda` or `cpu`, where the cells ran; `cuda` where none did."""
        runs = sorted((self.folder / RUNS).glob("*"))
        return RunFolder(runs[0]).manifest.device.kind if runs else "cuda"

    def knee(self) -> sweeps.Cell | None:
        """The smallest load that reaches nine tenths of the best throughput."""
        return self._sweep.knee()

    def best(self, *constraints: str) -> sweeps.Best | None:
        """The cell of highest throughput that keeps the constraints (`p99<10ms`), else the closest."""
        return self._sweep.best([Constraint.parse(text) for text in constraints])

    def figure(self, *constraints: str) -> go.Figure:
        """The cells as a heat map, with the knee and the best cell under the constraints."""
        from workbench.figures.sweep import sweep_map

        best = self.best(*constraints)
        return sweep_map(
            self.cells, knee=self.knee(), best=None if best is None else best.cell, constraint=", ".join(constraints),
            met=best is None or best.feasible, device_kind=self.device_kind,
        )  # fmt: skip

    def summary(self, *constraints: str) -> str:
        """The cells for a terminal."""
        from workbench.report.swept import sweep_summary

        return sweep_summary(self.cells, self.knee(), self.best(*constraints), constraints, self.device_kind)

    def _html(self) -> str:
        return sweep_html(self)

    def __repr__(self) -> str:
        return f"<Sweep of {len(self.cells)} cells: {self.folder}>"

    def report(self, path: str | Path, *constraints: str) -> Path:
        """Write the sweep as one HTML file that opens offline; raises `DiskFullError`."""
        from workbench.report.tuned_html import write_sweep_page

        return write_sweep_page(self, Path(path), constraints)


def sweep(
    base: Base,
    batches: Iterable[int],
    concurrencies: Iterable[int],
    *,
    constraints: Iterable[str] = (),
    classes: bool = True,
    out: str | Path | None = None,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    progress: Callable[[str, float], None] = lambda name, share: None,
    cancelled: Event | None = None,
) -> Sweep:
    """Measure every cell of batch × concurrency: latency percentiles, throughput, memory and what holds it back.

    base: as in `wb.experiment`. constraints: what the cell has to keep that is written down as the best. classes: trace
    each cell for its class, which takes two further processes; without it a cell is one process. A cell that runs out
    of memory is a result. Raises what `workbench.tuning.sweep` raises, and `ConfigError` for a constraint that cannot
    be read or measured.
    """
    config = ready(base)
    limits = [Constraint.parse(text) for text in constraints]
    decisive = [latency(99), *(limit.metric for limit in limits)]
    check_measurable(decisive, config)
    target = Path(out) if out is not None else free_folder(f"{Path(config.model).stem}-sweep")
    budget = block_for(decisive)
    device = device_of(config)
    with new_run_folder(target) as folder, LocalExecutor(device, config.cuda.device_id) as executor:

        def measure(cell: RunConfig, batch: int, concurrency: int) -> Block:
            name = _name(batch, concurrency)
            job = Job(name, with_block(cell, budget), 0, 0, folder / "blocks" / name, timeout_s)
            passes = CLASS_PASSES if classes else ()
            return executor.submit(record_block, job, folder / RUNS / name, passes=passes).result()

        def classify(cell: RunConfig, batch: int, concurrency: int) -> str:
            verdict = diagnose(RunFolder(folder / RUNS / _name(batch, concurrency))).verdict
            return "+".join(verdict.pair) if verdict.pair else verdict.name

        found = sweeps.sweep(
            config, batches, concurrencies, measure,
            classify=classify if classes else None,
            progress=lambda done, cells: progress(f"{done} of {cells} cells", done / cells),
            cancelled=None if cancelled is None else cancelled.is_set,
        )  # fmt: skip
        found.cells.to_parquet(folder / CELLS)
        save_blocks(folder, list(found.blocks.values()))
        best = found.best(limits)
        if best is not None:
            batch, concurrency = best.cell
            config.changed(batch=batch, concurrency=concurrency).save(folder / BEST_FILE)
    return Sweep(target)


def _name(batch: int, concurrency: int) -> str:
    return f"batch-{batch}-callers-{concurrency}"


def _cell(name: str) -> sweeps.Cell:
    _, batch, _, concurrency = name.split("-")
    return sweeps.Cell(int(batch), int(concurrency))
