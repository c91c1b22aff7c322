"""Measures configurations: rounds of blocks, each a fresh process, or a whole run whose latency pass is the block."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from workbench.analysis.conditions import disturbances
from workbench.analysis.tables import Tables, measured_calls
from workbench.capture.passes import PassRunner
from workbench.capture.prepare import Prepared, prepare
from workbench.capture.record import record
from workbench.capture.resolve import Activity, Device, resolve_device
from workbench.capture.worker import OUTPUTS
from workbench.config import RunConfig
from workbench.errors import WorkbenchError
from workbench.runs.manifest import ModelInfo
from workbench.runs.reader import RunFolder
from workbench.runs.schema import AGAIN, TABLES
from workbench.runs.writer import to_table
from workbench.tuning.blocks import Block

_BATCH_WORDS: Final = ("batch", "n")


@dataclass(frozen=True)
class Job:
    """One block to measure. config: with the model's path. folder: for what the arm's blocks share."""

    arm: str
    config: RunConfig
    round: int
    position: int
    folder: Path
    timeout_s: float | None


def measure_round(jobs: Sequence[Job]) -> list[Block]:
    """Measure the blocks of a round, one process after the other, in the order given.

    A configuration that cannot be measured gives a block with its error; other exceptions pass through.
    """
    return [measure_block(job) for job in jobs]


def measure_block(job: Job, progress: Callable[[str, float], None] = lambda name, share: None) -> Block:
    """Measure one configuration in a fresh process, with nothing attached."""
    where = job.folder / f"block-{job.position}"
    try:
        device = resolve_device(job.config)
        prepared = _prepared_for(job, device)
        runner = PassRunner(job.config, prepared, device, job.timeout_s, progress)
        found = runner.run("latency", where)
        tables = _PassTables(where)
        session, steps = found.outcome.events["session"], tables.table("steps")
        return _block(
            job.arm, job.round, job.position, tables, steps, job.config, prepared.info,
            warmup_calls=found.outcome.events["latency"]["warmup_calls"],
            peak_device_bytes=found.info.peak_device_bytes,
            peak_host_bytes=found.info.peak_host_bytes,
            providers=session["providers"],
            options=session["options"],
        )  # fmt: skip
    except WorkbenchError as error:
        return Block(job.arm, job.round, job.position, error=(type(error).__name__, str(error)))
    finally:
        shutil.rmtree(where, ignore_errors=True)


def record_block(
    job: Job,
    target: Path,
    *,
    passes: Sequence[str],
    activity: Activity = "auto",
    progress: Callable[[str, float], None] = lambda name, share: None,
) -> Block:
    """Profile the configuration into the run folder `target`; its latency pass is the block, its outputs are kept."""
    try:
        record(
            job.config, target, activity=activity, passes=passes, keep_outputs=True, timeout_s=job.timeout_s,
            progress=progress,
        )  # fmt: skip
    except WorkbenchError as error:
        return Block(job.arm, job.round, job.position, error=(type(error).__name__, str(error)))
    return block_of_run(RunFolder(target), job.arm, job.round, job.position)


def block_of_run(run: RunFolder, arm: str, round_: int = 0, position: int = 0) -> Block:
    """The latency pass of a recorded run as a block."""
    manifest = run.manifest
    info = manifest.passes["latency"]
    outputs = run.folder / OUTPUTS
    steps = run.steps
    return _block(
        arm, round_, position, run, steps[steps["pass"] == "latency"], RunConfig(**manifest.config), manifest.model,
        warmup_calls=manifest.latency.warmup_calls if manifest.latency else 0,
        peak_device_bytes=info.peak_device_bytes,
        peak_host_bytes=info.peak_host_bytes,
        providers=manifest.providers,
        options=manifest.provider_options,
        outputs=outputs if outputs.is_file() else None,
    )  # fmt: skip


def _block(
    arm: str,
    round_: int,
    position: int,
    tables: Tables,
    steps: pd.DataFrame,
    config: RunConfig,
    model: ModelInfo,
    **given: Any,
) -> Block:
    calls = measured_calls(tables, "latency")
    starts, durations = (calls[name].to_numpy(np.int64) for name in ("start_ns", "duration_ns"))
    window_ns = int((starts + durations).max() - starts.min())
    taken_ns = {str(name): int(ns) for name, ns in zip(steps["name"], steps["duration_ns"], strict=True)}
    return Block(
        arm,
        round_,
        position,
        starts,
        durations,
        calls_per_s=1e9 * len(calls) / window_ns,
        batch=items_per_call(config, model),
        steps_ns={name: ns for name, ns in taken_ns.items() if not name.endswith(AGAIN)},
        again_ns={name.removesuffix(AGAIN): ns for name, ns in taken_ns.items() if name.endswith(AGAIN)},
        disturbances=disturbances(tables),
        **given,
    )


def items_per_call(config: RunConfig, model: ModelInfo) -> int:
    """Items in one call: the batch of the configuration, else the first dimension of an input that is open or called
    so (`batch`, `N`), else 1.
    """
    if config.batch is not None:
        return config.batch
    for given in model.inputs:
        first = given.shape[0] if given.shape else 0
        if first is None or (isinstance(first, str) and any(word in first.lower() for word in _BATCH_WORDS)):
            return model.feed_shapes[given.name][0]
    return 1


def _prepared_for(job: Job, device: Device) -> Prepared:
    """The arm's model and feeds, made once for all of its blocks, and again where the folder was removed since."""
    given = job.config.model_dump_json(exclude_unset=True), job.folder, device, job.timeout_s
    found = _prepared(*given)
    if not found.feeds_path.is_file():
        _prepared.cache_clear()
        found = _prepared(*given)
    return found


@functools.lru_cache(maxsize=256)
def _prepared(config_json: str, folder: Path, device: Device, timeout_s: float | None) -> Prepared:
    folder.mkdir(parents=True, exist_ok=True)
    return prepare(RunConfig.model_validate_json(config_json), folder, device=device, timeout_s=timeout_s)


class _PassTables:
    """The tables that one pass left in its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        file = self._folder / f"{name}.parquet"
        held = pq.read_table(file) if file.is_file() else TABLES[name].empty_table()
        frame: pd.DataFrame = to_table(name, held).to_pandas()
        return frame if columns is None else frame[list(columns)]
