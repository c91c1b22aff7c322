"""Makes a run: the passes one after the other, each in its own process, then one folder with everything."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from workbench.capture.ceilings.child import measure_in_process
from workbench.capture.ceilings.data_sheet import doubts, source_of
from workbench.capture.machine import describe_device, software_versions
from workbench.capture.passes import Pass, PassRunner, Progress
from workbench.capture.prepare import prepare
from workbench.capture.resolve import Activity, Device, resolve_activity, resolve_device
from workbench.capture.worker import OUTPUTS
from workbench.config import RunConfig
from workbench.errors import CpuFallbackError, DiskFullError, SourceError, WorkbenchError
from workbench.runs.manifest import FELL_BACK, Ceilings, LatencyInfo, Manifest, PassInfo, SourceInfo
from workbench.runs.schema import TABLES
from workbench.runs.writer import GRAPH, new_run_folder, write_manifest, write_table
from workbench.version import __version__

DEFAULT_TIMEOUT_S: Final = 600.0
TRACED_PASSES: Final = ("counters", "activity", "nodes")
_NOT_ASKED: Final = "not asked for"


@dataclass
class _Recording:
    """What is collected while the passes run."""

    runner: PassRunner
    folder: Path
    passes: dict[str, PassInfo] = field(default_factory=dict)
    sources: dict[str, SourceInfo] = field(default_factory=dict)
    providers: list[str] = field(default_factory=list)
    provider_options: dict[str, dict[str, str]] = field(default_factory=dict)
    latency: LatencyInfo | None = None
    notes: list[str] = field(default_factory=list)


def record(
    config: RunConfig,
    target: Path,
    *,
    activity: Activity = "auto",
    passes: Collection[str] = TRACED_PASSES,
    keep_outputs: bool = False,
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    progress: Progress = lambda name, share: None,
) -> Path:
    """Profile one model under one configuration into the folder `target`, and return it.

    passes: those to make after `latency`. keep_outputs: keep the outputs of one call as `outputs.npz`. timeout_s holds
    for each pass. When a pass after `latency` fails, the run is kept and marked incomplete; when the model cannot run
    at all, or the caller interrupts, nothing is left behind. Raises subclasses of `WorkbenchError`.
    """
    device = resolve_device(config)
    source, refusal = resolve_activity(activity, device)
    with new_run_folder(target) as folder:

        def begin(on: Device) -> _Recording:
            prepared = prepare(config, folder, device=on, timeout_s=timeout_s)
            recording = _Recording(PassRunner(config, prepared, on, timeout_s, progress), folder)
            _latency_pass(recording, keep_outputs)
            return recording

        try:
            recording = begin(device)
        except CpuFallbackError as error:
            if not config.allow_cpu:
                raise
            recording = begin("cpu")  # a conversion may be for one device
            recording.notes.append(f"{FELL_BACK}: {error}")
            source, refusal = resolve_activity(activity, "cpu")
        recording.sources[source if source != "none" else "activity"] = SourceInfo(
            state="present" if source != "none" else "absent", reason=refusal
        )
        steps = {"counters": _counters_pass, "activity": _activity_pass, "nodes": _nodes_pass}
        for name, step in steps.items():
            if recording.runner.device == "cpu" and name != "nodes":
                _skip(recording, name, "the run is on the CPU")
            elif name not in passes:
                _skip(recording, name, _NOT_ASKED)
            else:
                step(recording, source)
        ceilings = _ceilings(recording)
        _finish(recording, ceilings)
    return target


def _run_pass(recording: _Recording, name: str, **options: Any) -> Pass:
    """One pass of the run; its tables end up in `<folder>/passes/<name>`."""
    bare = recording.latency
    warmup = bare.warmup_calls if bare else 0
    found = recording.runner.run(name, recording.folder / "passes" / name, warmup_calls=warmup, **options)
    if bare is not None and found.info.median_ns is not None and bare.callers == 1:
        found.info.dilation = found.info.median_ns / bare.median_ns
    recording.passes[name] = found.info
    recording.sources.update(found.sources)
    return found


def _latency_pass(recording: _Recording, keep_outputs: bool) -> None:
    outcome = _run_pass(recording, "latency", keep_outputs=keep_outputs).outcome
    recording.latency = LatencyInfo.model_validate(outcome.events["latency"])
    recording.passes["latency"].dilation = 1.0
    recording.sources["wall_clock"] = SourceInfo(state="present")
    recording.providers = outcome.events["session"]["providers"]
    recording.provider_options = outcome.events["session"]["options"]


def _skip(recording: _Recording, name: str, reason: str) -> None:
    recording.passes[name] = PassInfo(name=name, state="skipped", reason=reason)
    recording.runner.progress(name, 1.0)


def _counters_pass(recording: _Recording, source: str) -> None:
    _guarded(recording, "counters", "gpm")


def _activity_pass(recording: _Recording, source: str) -> None:
    if source == "none":
        _skip(recording, "activity", recording.sources["activity"].reason)
        return
    _guarded(recording, "activity", source, source=source, calls=_affordable(recording, "activity_calls"))


def _nodes_pass(recording: _Recording, source: str) -> None:
    if source in recording.sources and recording.sources[source].state == "failed":
        source = "none"
    config = recording.runner.config
    # The profiler sees no node in a replayed graph: they are found through the capture, or else without the graph.
    replayed = config.cuda_graph and source != "none"
    # One caller at a time, so that each launch lies in one node.
    alone = config.changed(cuda_graph=replayed, concurrency=1, sessions=1)
    calls = _affordable(recording, "nodes_calls")
    recording.sources["ort_profiler"] = SourceInfo(state="present")
    _guarded(recording, "nodes", "ort_profiler", source=source, calls=calls, config=alone, graph_nodes=replayed)


def _guarded(recording: _Recording, name: str, source_name: str, **options: Any) -> None:
    """Run a pass that the run can do without. A full disk ends the run; other failures are written down."""
    try:
        _run_pass(recording, name, **options)
    except DiskFullError:
        raise
    except WorkbenchError as error:
        shutil.rmtree(recording.folder / "passes" / name, ignore_errors=True)
        # A source that refuses is missing, a worker that dies leaves the run incomplete.
        state: Literal["skipped", "failed"] = "skipped" if isinstance(error, SourceError) else "failed"
        recording.passes[name] = PassInfo(name=name, state=state, reason=str(error))
        recording.sources[source_name] = SourceInfo(state="failed", reason=str(error))


def _affordable(recording: _Recording, name: str) -> int:
    """The configured number of calls, or as many as fit the budget's seconds, but at least 3."""
    budget = recording.runner.config.budget
    assert recording.latency is not None
    fitting = int(budget.seconds * 1e9 / recording.latency.median_ns)
    return min(int(getattr(budget, name)), max(3, fitting))


def _ceilings(recording: _Recording) -> Ceilings:
    """The device's ceilings from the cache, or measured in a process of their own; what fails is written down."""
    runner = recording.runner
    runner.progress("ceilings", 0.0)
    try:
        ceilings = measure_in_process(
            runner.device,
            device_id=runner.config.cuda.device_id,
            threads=runner.config.intra_op_threads,
            timeout_s=runner.timeout_s,
        )
        recording.sources["ceilings"] = source_of(ceilings)
        recording.notes += doubts(ceilings)
    except WorkbenchError as error:
        recording.sources["ceilings"] = SourceInfo(state="failed", reason=str(error))
        ceilings = Ceilings(notes=[str(error)])
    runner.progress("ceilings", 1.0)
    return ceilings


def _finish(recording: _Recording, ceilings: Ceilings) -> None:
    folder, parts = recording.folder, recording.folder / "passes"
    config, prepared, device = recording.runner.config, recording.runner.prepared, recording.runner.device
    for name in TABLES:
        files = [file for part in recording.passes if (file := parts / part / f"{name}.parquet").is_file()]
        if files:
            write_table(folder, name, pa.concat_tables([pq.read_table(file) for file in files]))
    for kept in (parts / "nodes" / GRAPH, parts / "latency" / OUTPUTS):
        if kept.is_file():
            kept.rename(folder / kept.name)
    shutil.rmtree(parts)
    prepared.remove_files()
    write_manifest(
        folder,
        Manifest(
            workbench_version=__version__,
            created_ns=time.time_ns(),
            complete=all(info.state != "failed" for info in recording.passes.values()),
            config=config.model_dump(mode="json", exclude_unset=True),
            model=prepared.info,
            device=describe_device(device, config.cuda.device_id),
            software=software_versions(),
            providers=recording.providers,
            provider_options=recording.provider_options,
            latency=recording.latency,
            passes=recording.passes,
            sources=recording.sources,
            ceilings=ceilings,
            notes=recording.notes + prepared.notes,
        ),
    )
