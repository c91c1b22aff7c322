"""Batch × concurrency: what each load gives in throughput, latency and memory, where more load stops paying, the best.

Nothing is started here: `sweep` is given the function that measures one cell, and the rest is arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from workbench.config import RunConfig
from workbench.errors import ConfigError, WorkbenchError
from workbench.tuning.blocks import Block
from workbench.tuning.metric import latency, memory, throughput
from workbench.tuning.objective import Constraint, Objective, best

if TYPE_CHECKING:
    import pandas as pd

KNEE_SHARE: Final = 0.9
"""Share of the best throughput that the knee reaches: all load beyond it buys at most a ninth more. Fresh processes
differ by 1 to 3 %, far less than the tenth that is given away here; only a cell within that of nine tenths may fall on
either side."""

_PERCENTILES: Final = (50, 90, 99)
_DTYPES: Final = {
    "batch": "int64",
    "concurrency": "int64",
    "calls": "int64",
    **{f"p{percentile}_ns": "Int64" for percentile in _PERCENTILES},
    "items_per_s": "float64",
    "peak_device_bytes": "Int64",
    "peak_host_bytes": "Int64",
    "klass": "str",
    "note": "str",
    "error_kind": "str",
    "error": "str",
}


@dataclass(frozen=True)
class CellError:
    """Why a cell has no numbers.

    kind: name of a class of `workbench.errors`. message: its sentence. impossible: the device can hold neither this
    cell nor a larger one whatever else happens, as when a single allocation is larger than all its memory.
    """

    kind: str
    message: str
    impossible: bool = False


class Cell(NamedTuple):
    """Where a cell lies in the sweep."""

    batch: int
    concurrency: int


class Best(NamedTuple):
    """The cell to take, whether it keeps every constraint, and a sentence that says so."""

    cell: Cell
    feasible: bool
    sentence: str


@dataclass(frozen=True)
class Sweep:
    """What was measured. cells: one row per cell, by batch and concurrency. blocks: of the measured cells, by load."""

    cells: pd.DataFrame
    blocks: dict[Cell, Block]

    def knee(self) -> Cell | None:
        """`knee` of the cells."""
        return knee(self.cells)

    def best(self, constraints: Sequence[Constraint] = ()) -> Best | None:
        """The cell of highest throughput that keeps every constraint, else the closest (`workbench.tuning.objective`).

        Of equal ones, that of the smallest load. None when no cell was measured.
        """
        goal = Objective(throughput())
        metrics = [goal.metric, *(constraint.metric for constraint in constraints)]
        values = [{metric.name: metric.of(block) for metric in metrics} for block in self.blocks.values()]
        found = best(values, goal, constraints)
        return None if found is None else Best(list(self.blocks)[found.index], found.feasible, found.sentence)


def sweep(
    base: RunConfig,
    batches: Iterable[int],
    concurrencies: Iterable[int],
    measure: Callable[[RunConfig, int, int], Block | CellError],
    *,
    classify: Callable[[RunConfig, int, int], str | None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Sweep:
    """Measure every cell, smallest load first.

    measure: runs one cell in a process of its own. A `Block` with an error, a `CellError` and a `WorkbenchError` are
    results alike: the row keeps kind and message. classify: the class of a measured cell (a verdict's name, or `a+b`),
    which takes traced passes of its own; where it fails, the note says why. progress: cells done, cells in all.
    cancelled: asked before each cell; cells that were not reached have no row.

    Cells above one that ran out of memory are still tried, since need does not simply grow with load: cuDNN takes a
    smaller workspace where less is free, arenas grow in powers of two, and another process may have held memory for
    a moment. Only where the error is `impossible` are cells of no smaller batch and concurrency not tried; they carry
    that error. Because load only grows, drift of the clock falls on the largest loads: an experiment compares two cells
    fairly, a sweep shows the terrain.

    Columns of the cells: batch, concurrency, calls (timed), p50_ns, p90_ns, p99_ns (null where too few calls were
    timed), items_per_s (NaN when unknown), peak_device_bytes, peak_host_bytes (null when unknown), klass, note (what is
    missing and why), error_kind, error (null where they do not apply).

    Raises `ConfigError` when the two axes are not made of positive numbers, or when no cell is a valid configuration.
    """
    import pandas as pd

    cells = _cells(batches, concurrencies)
    configs, refused = _configs(base, cells)
    if not configs:
        raise ConfigError(refused[cells[0]].message)
    impossible: dict[Cell, CellError] = {}
    blocks: dict[Cell, Block] = {}
    rows = []
    for done, cell in enumerate(cells):
        if cancelled is not None and cancelled():
            break
        if progress is not None:
            progress(done, len(cells))
        result = refused.get(cell) or _not_tried(cell, impossible) or _result(configs[cell], cell, measure)
        if isinstance(result, CellError):
            rows.append({**cell._asdict(), "calls": 0, "error_kind": result.kind, "error": result.message})
            if result.impossible:
                impossible[cell] = result
            continue
        blocks[cell] = result
        klass, why = (None, None) if classify is None else _class(configs[cell], cell, classify)
        notes = "; ".join(filter(None, (_too_few(result), why)))
        rows.append({**cell._asdict(), **_numbers(result), "klass": klass, "note": notes or None})
    if progress is not None:
        progress(len(rows), len(cells))
    table = pd.DataFrame(rows, columns=list(_DTYPES)).astype(_DTYPES)
    return Sweep(table.sort_values(["batch", "concurrency"], ignore_index=True), blocks)


def knee(cells: pd.DataFrame) -> Cell | None:
    """The smallest load that reaches `KNEE_SHARE` of the best throughput; of equal loads, the one of lower median.

    Load is batch times concurrency, the items in flight, which by Little's law (Operations Research 9(3), 1961) is
    throughput times latency: among cells of about the same throughput the smallest load has the lowest latency. This is
    Jain's knee capacity ("The Art of Computer Systems Performance Analysis", 1991, section 3.3), the point after which
    throughput gains little while latency grows with the load. It is read from throughput alone, so that larger loads
    that buy nothing do not move it; Kneedle (Satopaa et al., ICDCS Workshops 2011) scales latency by the largest of the
    sweep, and its knee depends on how far the sweep went. The load where throughput / latency is largest (Kleinrock,
    ICC 1979) gives away half of the throughput where a fixed cost per call is shared out over a batch.

    cells: of a `Sweep`. None when nothing was measured, or when no larger load was, so that throughput may still
    grow beyond the sweep.
    """
    measured = cells[cells["items_per_s"].notna()]
    measured = measured.assign(load=measured["batch"] * measured["concurrency"])
    enough = measured[measured["items_per_s"] >= KNEE_SHARE * measured["items_per_s"].max()]
    if not len(enough):
        return None
    first = enough.sort_values(["load", "p50_ns", "batch"]).iloc[0]
    return _cell_of(first) if first["load"] < measured["load"].max() else None


def _cells(batches: Iterable[int], concurrencies: Iterable[int]) -> list[Cell]:
    """By load, so that a time limit or a full memory spares most cells."""
    axes = {"batches": sorted(set(batches)), "concurrencies": sorted(set(concurrencies))}
    for name, values in axes.items():
        if not values or values[0] < 1:
            raise ConfigError(f"The {name} of a sweep are {values or 'none'}: give one or more numbers from 1 on.")
    cells = [Cell(*cell) for cell in product(*axes.values())]
    return sorted(cells, key=lambda cell: (cell.batch * cell.concurrency, cell.batch))


def _configs(base: RunConfig, cells: Iterable[Cell]) -> tuple[dict[Cell, RunConfig], dict[Cell, CellError]]:
    """The configuration of each cell, or why there is none: a captured graph, say, has one caller at a time."""
    configs, refused = {}, {}
    for cell in cells:
        try:
            configs[cell] = base.changed(batch=cell.batch, concurrency=cell.concurrency)
        except ConfigError as error:
            refused[cell] = CellError(type(error).__name__, str(error))
    return configs, refused


def _not_tried(cell: Cell, impossible: dict[Cell, CellError]) -> CellError | None:
    for at, error in impossible.items():
        if cell.batch >= at.batch and cell.concurrency >= at.concurrency:
            why = f"Not tried, because batch {at.batch} with concurrency {at.concurrency} cannot fit: {error.message}"
            return CellError(error.kind, why)
    return None


def _result(
    config: RunConfig, cell: Cell, measure: Callable[[RunConfig, int, int], Block | CellError]
) -> Block | CellError:
    try:
        result = measure(config, *cell)
    except WorkbenchError as error:
        return CellError(type(error).__name__, str(error))
    return CellError(*result.error) if isinstance(result, Block) and result.error else result


def _class(
    config: RunConfig, cell: Cell, classify: Callable[[RunConfig, int, int], str | None]
) -> tuple[str | None, str | None]:
    """The class, and why there is none: a traced pass that fails takes no numbers away."""
    try:
        return classify(config, *cell), None
    except WorkbenchError as error:
        return None, f"class not known, because {error}"


def _numbers(block: Block) -> dict[str, Any]:
    return {
        "calls": block.durations_ns.size,
        **{f"p{percentile}_ns": _whole(latency(percentile).of(block)) for percentile in _PERCENTILES},
        "items_per_s": throughput().of(block),
        "peak_device_bytes": _whole(memory("device").of(block)),
        "peak_host_bytes": _whole(memory("host").of(block)),
    }


def _too_few(block: Block) -> str | None:
    short = [f"P{percentile}" for percentile in _PERCENTILES if math.isnan(latency(percentile).of(block))]
    calls = block.durations_ns.size
    return f"{', '.join(short)} not measured, because {calls} calls are too few" if short else None


def _whole(value: float) -> int | None:
    return None if math.isnan(value) else round(value)


def _cell_of(row: pd.Series) -> Cell:
    return Cell(int(row["batch"]), int(row["concurrency"]))
