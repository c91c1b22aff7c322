"""Replay: answers from a recorded table in the place of a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from workbench.config import RunConfig
from workbench.errors import ConfigError
from workbench.tuning.blocks import Block
from workbench.tuning.space import Space, key_of

if TYPE_CHECKING:
    import pandas as pd

_CALLS: Final = 1001  # every percentile with one decimal is then the duration of one call
_LATENCY: Final = r"p\d+(?:\.\d)?_ns"


def replay(grid: pd.DataFrame, space: Space) -> Callable[[RunConfig, Path, int], Block]:
    """A function for `search` that answers from a recorded grid, every round the same.

    grid: one row per cell, with a column for each dimension (names of choices) and those that `SearchResult.to_frame`
    has for metrics; `error` holds "class: message", or is null where the cell was measured. Rows that contradict
    themselves are left out. Raises `ConfigError` for a missing dimension, and when a cell was not recorded.
    """
    if missing := [name for name in space.dimensions if name not in grid]:
        raise ConfigError(f"The recorded grid has no column {missing[0]!r}: record it with this dimension.")
    rows = {}
    for row in grid.astype(object).where(grid.notna(), None).to_dict("records"):
        try:
            config = space.config_of({name: str(row[name]) for name in space.dimensions})
        except ConfigError:
            continue
        rows[key_of(config)] = {name: value for name, value in row.items() if value is not None}
    percentiles = sorted(float(name[1:-3]) for name in grid.columns[grid.columns.str.fullmatch(_LATENCY)])

    def evaluate(config: RunConfig, folder: Path, index: int) -> Block:
        row = rows.get(key_of(config))
        if row is None:
            raise ConfigError("The recorded grid lacks this configuration: record it, or search a smaller space.")
        if "error" in row:
            kind, _, message = str(row["error"]).partition(": ")
            return Block(folder.name, index, index, error=(kind, message))
        cold_start = {"recorded": int(row["cold_start_ns"])} if "cold_start_ns" in row else {}
        return Block(
            folder.name,
            index,
            index,
            durations_ns=_durations_ns({each: row[f"p{each:g}_ns"] for each in percentiles if f"p{each:g}_ns" in row}),
            calls_per_s=row.get("items_per_s", float("nan")),
            steps_ns=cold_start,
            peak_device_bytes=_whole(row.get("peak_device_bytes")),
            peak_host_bytes=_whole(row.get("peak_host_bytes")),
        )

    return evaluate


def _durations_ns(percentiles_ns: dict[float, float]) -> NDArray[np.int64]:
    """Calls whose percentiles are those given, linear in between and constant beyond them: int64[calls]."""
    if not percentiles_ns:
        return np.empty(0, np.int64)
    ranks = np.linspace(0, 100, _CALLS)
    return np.rint(np.interp(ranks, list(percentiles_ns), list(percentiles_ns.values()))).astype(np.int64)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
