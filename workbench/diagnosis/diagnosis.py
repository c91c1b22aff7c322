"""The diagnosis of a run: from its tables to the shares, the verdict and how sure it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.conditions import disturbances
from workbench.analysis.device_work import call_times
from workbench.analysis.node_times import NODES_PASS, NodeTimes, RunLike, node_times
from workbench.analysis.some_calls import SomeCalls, spread_stretches, work_per_call
from workbench.analysis.subject import Restricted
from workbench.analysis.tables import measured_calls
from workbench.analysis.thresholds import CEILING_SIGMA_CONTRADICTED
from workbench.diagnosis.confidence import ceiling_sigma, confidence
from workbench.diagnosis.counters import corroborate
from workbench.diagnosis.known import attributed_fraction, missing_sources, work_coverage
from workbench.diagnosis.notes import STRETCHES, notes_of, stretch_of
from workbench.diagnosis.passes import ACTIVITY_PASS, detailed_pass
from workbench.diagnosis.result import DiagnosedRun, Diagnosis
from workbench.diagnosis.shares import (
    FRAMEWORK_OVERHEAD,
    SHARES,
    TRACED_COLUMNS,
    Pieces,
    Traced,
    cpu_pieces,
    gpu_pieces,
    limit_split,
    node_ns_per_call,
    speed_difference,
)
from workbench.diagnosis.unattributed import IN_PLACE_OF_NODES, floors_in_place, with_floors
from workbench.diagnosis.untraced import GPU_ONLY, estimated, unknown
from workbench.diagnosis.verdict import judge
from workbench.errors import RunFolderError
from workbench.runs.manifest import LatencyInfo, Manifest
from workbench.runs.memory import give_back_memory

MOST_WORK: Final = 1 << 16
"""Pieces of device work that nodes, limits and attribution are worked out from; more are sampled by calls."""


def diagnose(run: DiagnosedRun) -> Diagnosis:
    """Work out the diagnosis of a run; a source that is missing makes it less sure and is named, never guessed.

    Raises `RunFolderError` when the run holds no latency, without which no share means anything.
    """
    manifest = run.manifest
    if manifest.latency is None:
        raise RunFolderError("The run holds no latency, so nothing can be diagnosed: profile the model again.")
    if manifest.device.kind == "cpu":
        return _diagnose_cpu(run, manifest, manifest.latency)
    if manifest.imported is not None and manifest.imported.subject_process is not None:
        run = Restricted(run, manifest.imported.subject_process, manifest.imported.subject_device)
    return _diagnose_gpu(run, manifest, manifest.latency)


def _nodes(run: DiagnosedRun) -> NodeTimes | None:
    manifest = run.manifest
    pass_name = detailed_pass(manifest)
    if pass_name is None:
        return None
    calls = measured_calls(run, pass_name)["call"].to_numpy(np.int64)
    work = work_per_call(run, calls) if len(calls) > 1 else np.zeros(len(calls), np.int64)
    seen: RunLike = run
    if work.sum() > MOST_WORK:
        seen = SomeCalls(run, spread_stretches(calls, work, MOST_WORK, STRETCHES))
    model = manifest.model
    sizes = {
        name: int(np.prod(shape)) * _item_bytes(model.feed_dtypes[name]) for name, shape in model.feed_shapes.items()
    }
    found = node_times(
        seen,
        manifest.device,
        manifest.ceilings,
        tf32=manifest.uses_tf32,
        input_bytes=sizes,
        output_names=[output.name for output in model.outputs],
        pass_name=pass_name,
    )
    if seen is not run:
        give_back_memory()
    return found


def _item_bytes(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _traced_calls(run: DiagnosedRun) -> pd.DataFrame | None:
    """What each call spent, of the first pass that saw the device work; None when none did."""
    times = (call_times(run, name) for name in (ACTIVITY_PASS, NODES_PASS))
    return next((table for table in times if len(table) and table["work_ns"].any()), None)


def _diagnose_gpu(run: DiagnosedRun, manifest: Manifest, bare: LatencyInfo) -> Diagnosis:
    missing = missing_sources(manifest)
    with ThreadPoolExecutor(1) as beside:  # both read large tables, outside the interpreter's lock
        found = beside.submit(_nodes, run)
        traced_calls = _traced_calls(run)
        nodes = found.result()
    attributed = attributed_fraction(nodes)
    if traced_calls is None:
        return estimated(run, manifest, bare, missing, nodes) or unknown(
            bare, missing, "no pass recorded what the device did", nodes
        )
    calls = traced_calls[TRACED_COLUMNS].to_numpy(np.float64)
    single = float(nodes.device["own_ns"].sum()) / nodes.calls if nodes is not None and nodes.calls else None

    floors = floors_in_place(run, nodes)
    work_ns = float(np.median(traced_calls["work_ns"]))

    def remake(latency: Any, sampled: NDArray[np.float64], shift: Any, bounds_instead: Any) -> Pieces:
        split = limit_split(nodes, shift, bounds_instead)
        if floors is not None:
            split = with_floors(split, floors, work_ns, shift, manifest.ceilings.shortest_kernel_ns)
        return gpu_pieces(latency, Traced.of(sampled), split, single)

    pieces = _floats(remake(bare.median_ns, calls, 0.0, 0.0))
    shares = pieces.shares()
    verdict = judge(shares)
    causes = pieces.launch_causes()
    traced = Traced.of(calls)
    speed = float(speed_difference(bare.median_ns, traced))
    corroboration = corroborate(run, manifest, nodes)
    sigma = ceiling_sigma(verdict.name, corroboration) if floors is None else CEILING_SIGMA_CONTRADICTED
    names_launch = "launch" in (verdict.name, *(verdict.pair or ()))
    return Diagnosis(
        verdict=verdict,
        sub_cause=max(causes, key=lambda name: float(causes[name])) if names_launch else None,
        confidence=confidence(
            shares, remake, calls, bare, sigma, stretch_of(manifest, pieces.idle)
        ),
        shares={name: float(shares[name]) for name in SHARES},
        latency=bare,
        pieces=pieces,
        traced={"wall_ns": float(traced_calls["wall_ns"].median()), **_as_columns(traced)},
        attributed=attributed,
        work_coverage=work_coverage(nodes),
        corroboration=corroboration,
        missing=missing,
        not_applicable=[],
        notes=[
            *disturbances(run),
            *notes_of(manifest, bare, speed, nodes, replayed=bool(traced.replay)),
            *([IN_PLACE_OF_NODES] if floors is not None else []),
        ],
        nodes=nodes,
    )


def _diagnose_cpu(run: DiagnosedRun, manifest: Manifest, bare: LatencyInfo) -> Diagnosis:
    missing, nodes = missing_sources(manifest), _nodes(run)
    if nodes is None or not len(nodes.executions):
        return estimated(run, manifest, bare, missing, nodes) or unknown(
            bare, missing, "no pass recorded the nodes", nodes, list(GPU_ONLY)
        )
    per_call = node_ns_per_call(nodes.executions)
    traced_ns = manifest.passes[NODES_PASS].median_ns or bare.median_ns

    def remake(latency: Any, sampled: NDArray[np.float64], shift: Any, bounds_instead: Any) -> Pieces:
        split = limit_split(nodes, shift, bounds_instead)
        return cpu_pieces(latency, np.median(sampled[..., 0], axis=-1), traced_ns, split)

    pieces = _floats(remake(bare.median_ns, per_call[:, None], 0.0, 0.0))
    shares = pieces.shares()
    verdict = judge(shares)
    names_launch = "launch" in (verdict.name, *(verdict.pair or ()))
    notes = notes_of(manifest, bare, 1.0, nodes, replayed=False)
    if bare.callers == 1 and np.median(per_call) > bare.median_ns:
        notes.append("The profiled pass ran slower than the bare one: its node times were scaled down in proportion.")
    return Diagnosis(
        verdict=verdict,
        sub_cause=FRAMEWORK_OVERHEAD if names_launch else None,
        confidence=confidence(
            shares,
            remake,
            per_call[:, None],
            bare,
            ceiling_sigma(verdict.name, []),
            stretch_of(manifest, pieces.idle),
        ),
        shares={name: None if name in GPU_ONLY else float(shares[name]) for name in SHARES},
        latency=bare,
        pieces=pieces,
        traced={"wall_ns": traced_ns, "node_ns": float(np.median(per_call))},
        attributed=1.0,  # on a CPU the nodes are the work
        work_coverage=work_coverage(nodes),
        corroboration=[],
        missing=missing,
        not_applicable=list(GPU_ONLY),
        notes=notes,
        nodes=nodes,
    )


def _as_columns(traced: Traced) -> dict[str, float]:
    return {name: float(value) for name, value in zip(TRACED_COLUMNS, traced, strict=True)}


def _floats(pieces: Pieces) -> Pieces:
    return Pieces(**{name: float(value) for name, value in vars(pieces).items()})
