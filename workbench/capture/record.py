"""Makes a run: the passes one after the other, each in its own process, then one folder with everything."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workbench.capture.ceilings.child import measure_in_process
from workbench.capture.machine import describe_device, software_versions
from workbench.capture.nsys import nsys_command, read_report
from workbench.capture.nvml import DeviceSampler
from workbench.capture.prepare import Prepared, prepare
from workbench.capture.process import Outcome, run_worker
from workbench.capture.resolve import Activity, Device, resolve_activity, resolve_device
from workbench.capture.worker import WorkerSpec, write_device_tables
from workbench.config import RunConfig
from workbench.errors import CpuFallbackError, DiskFullError, SourceError, WorkbenchError
from workbench.runs.manifest import Ceilings, LatencyInfo, Manifest, PassInfo, SourceInfo
from workbench.runs.schema import TABLES
from workbench.runs.writer import GRAPH, new_run_folder, write_manifest, write_table
from workbench.version import __version__

Progress = Callable[[str, float], None]
"""Called with the name of what is going on and how much of it is done, 0..1."""

DEFAULT_TIMEOUT_S: Final = 600.0
MOST_WARMUP_CALLS: Final = 10  # in the traced passes, where each call costs room for its records
FEWEST_WARMUP_CALLS: Final = 3  # ONNX Runtime allocates in the first call and may capture a graph in the second


@dataclass
class _Recording:
    """What is collected while the passes run."""

    config: RunConfig
    prepared: Prepared
    device: Device
    folder: Path
    timeout_s: float | None
    progress: Progress
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
    timeout_s: float | None = DEFAULT_TIMEOUT_S,
    progress: Progress = lambda name, share: None,
) -> Path:
    """Profile one model under one configuration into the folder `target`, and return it.

    timeout_s holds for each pass. When a pass after `latency` fails, the run is kept and marked incomplete; when the
    model cannot run at all, or the caller interrupts, nothing is left behind. Raises subclasses of `WorkbenchError`.
    """
    device = resolve_device(config)
    source, refusal = resolve_activity(activity, device)
    with new_run_folder(target) as folder:
        prepared = prepare(config, folder)
        recording = _Recording(config, prepared, device, folder, timeout_s, progress)
        try:
            _latency_pass(recording)
        except CpuFallbackError as error:
            if not config.allow_cpu:
                raise
            recording.notes.append(f"Measured on the CPU, as allowed: {error}")
            recording.device = "cpu"
            source, refusal = resolve_activity(activity, "cpu")
            _latency_pass(recording)
        recording.sources[source if source != "none" else "activity"] = SourceInfo(
            state="present" if source != "none" else "absent", reason=refusal
        )
        if recording.device == "cuda":
            _counters_pass(recording)
            _activity_pass(recording, source)
        else:
            for name in ("counters", "activity"):
                _skip(recording, name, "the run is on the CPU")
        _nodes_pass(recording, source)
        ceilings = _ceilings(recording)
        _finish(recording, ceilings)
    return target


def _run_pass(
    recording: _Recording,
    name: str,
    *,
    source: str = "none",
    calls: int = 0,
    config: RunConfig | None = None,
    graph_nodes: bool = False,
) -> Outcome:
    """One worker, with NVML beside it; its tables end up in `<folder>/passes/<name>`."""
    begun = time.monotonic_ns()
    where = recording.folder / "passes" / name
    warmup = recording.latency.warmup_calls if recording.latency else 0
    spec = WorkerSpec.model_validate(
        {
            "config": config or recording.config,
            "pass_name": name,
            "model": recording.prepared.model_path,
            "feeds": recording.prepared.feeds_path,
            "device": recording.device,
            "trace_here": source == "cupti",
            "graph_nodes": graph_nodes,
            "warmup_calls": min(max(warmup, FEWEST_WARMUP_CALLS), MOST_WARMUP_CALLS),
            "calls": calls,
        }
    )
    report = where / "report"
    wrapper = nsys_command(report, graph_nodes=graph_nodes) if source == "nsys" else ()
    recording.progress(name, 0.0)

    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            recording.progress(name, event["share"])

    if recording.device == "cuda":
        device_id = recording.config.cuda.device_id
        with DeviceSampler(device_id, name, gpm=name == "counters") as sampler:
            outcome = run_worker(spec, where, timeout_s=recording.timeout_s, on_event=on_event, wrapper=wrapper)
        write_table(where, "samples", sampler.samples())
        recording.sources["nvml"] = sampler.nvml_source
        if name == "counters":
            write_table(where, "counters", sampler.counters())
            recording.sources["gpm"] = sampler.gpm_source
    else:
        outcome = run_worker(spec, where, timeout_s=recording.timeout_s, on_event=on_event)
    calls_table = pq.read_table(where / "latency.parquet")
    if source == "nsys":
        starts = calls_table["start_ns"].to_numpy()
        tables = read_report(report, outcome.process)
        write_device_tables(where, tables, name, starts, starts + calls_table["duration_ns"].to_numpy())
    recording.passes[name] = _pass_info(name, calls_table, recording.latency, time.monotonic_ns() - begun)
    recording.progress(name, 1.0)
    return outcome


def _pass_info(name: str, calls: pa.Table, bare: LatencyInfo | None, wall_ns: int) -> PassInfo:
    measured = calls.filter(pc.equal(calls["phase"], "measured"))["duration_ns"].to_numpy()
    median = float(np.median(measured)) if len(measured) else None
    return PassInfo(
        name=name,
        state="complete",
        calls=len(calls),
        measured_calls=len(measured),
        median_ns=median,
        dilation=median / bare.median_ns if bare and median else None,
        wall_ns=wall_ns,
    )


def _latency_pass(recording: _Recording) -> None:
    outcome = _run_pass(recording, "latency")
    recording.latency = LatencyInfo.model_validate(outcome.events["latency"])
    recording.passes["latency"].dilation = 1.0
    recording.sources["wall_clock"] = SourceInfo(state="present")
    recording.providers = outcome.events["session"]["providers"]
    recording.provider_options = outcome.events["session"]["options"]


def _skip(recording: _Recording, name: str, reason: str) -> None:
    recording.passes[name] = PassInfo(name=name, state="skipped", reason=reason)
    recording.progress(name, 1.0)


def _counters_pass(recording: _Recording) -> None:
    _guarded(recording, "counters", "gpm")


def _activity_pass(recording: _Recording, source: str) -> None:
    if source == "none":
        _skip(recording, "activity", recording.sources["activity"].reason)
        return
    _guarded(recording, "activity", source, source=source, calls=_affordable(recording, "activity_calls"))


def _nodes_pass(recording: _Recording, source: str) -> None:
    if source in recording.sources and recording.sources[source].state == "failed":
        source = "none"
    # The profiler sees no node in a replayed graph: they are found through the capture, or else without the graph.
    replayed = recording.config.cuda_graph and source != "none"
    config = recording.config.changed(cuda_graph=False) if recording.config.cuda_graph and not replayed else None
    calls = _affordable(recording, "nodes_calls")
    recording.sources["ort_profiler"] = SourceInfo(state="present")
    _guarded(recording, "nodes", "ort_profiler", source=source, calls=calls, config=config, graph_nodes=replayed)


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
    budget = recording.config.budget
    assert recording.latency is not None
    fitting = int(budget.seconds * 1e9 / recording.latency.median_ns)
    return min(int(getattr(budget, name)), max(3, fitting))


def _ceilings(recording: _Recording) -> Ceilings:
    """The device's ceilings from the cache, or measured in a process of their own; what fails is written down."""
    recording.progress("ceilings", 0.0)
    try:
        ceilings = measure_in_process(
            recording.device,
            device_id=recording.config.cuda.device_id,
            threads=recording.config.intra_op_threads,
            timeout_s=recording.timeout_s,
        )
        recording.sources["ceilings"] = SourceInfo(state="present")
    except WorkbenchError as error:
        recording.sources["ceilings"] = SourceInfo(state="failed", reason=str(error))
        ceilings = Ceilings(notes=[str(error)])
    recording.progress("ceilings", 1.0)
    return ceilings


def _finish(recording: _Recording, ceilings: Ceilings) -> None:
    folder, parts = recording.folder, recording.folder / "passes"
    for name in TABLES:
        files = [file for part in recording.passes if (file := parts / part / f"{name}.parquet").is_file()]
        if files:
            write_table(folder, name, pa.concat_tables([pq.read_table(file) for file in files]))
    graph = parts / "nodes" / GRAPH
    if graph.is_file():
        graph.rename(folder / GRAPH)
    shutil.rmtree(parts)
    recording.prepared.remove_files()
    write_manifest(
        folder,
        Manifest(
            workbench_version=__version__,
            created_ns=time.time_ns(),
            complete=all(info.state != "failed" for info in recording.passes.values()),
            config=recording.config.model_dump(mode="json", exclude_unset=True),
            model=recording.prepared.info,
            device=describe_device(recording.device, recording.config.cuda.device_id),
            software=software_versions(),
            providers=recording.providers,
            provider_options=recording.provider_options,
            latency=recording.latency,
            passes=recording.passes,
            sources=recording.sources,
            ceilings=ceilings,
            notes=recording.notes + recording.prepared.notes,
        ),
    )
