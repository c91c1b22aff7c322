"""The diagnosis of a run: every number that a verdict, a report or a script quotes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.conditions import disturbances
from workbench.analysis.device_work import call_times
from workbench.analysis.node_times import NODES_PASS, NodeTimes, RunLike, node_times
from workbench.analysis.some_calls import SomeCalls, spread_stretches, work_per_call
from workbench.analysis.subject import Restricted
from workbench.analysis.tables import measured_calls
from workbench.analysis.thresholds import (
    BEYOND_CEILING,
    BEYOND_SHARE,
    PROFILED_STRETCH,
    SPEED_DIFFERENCE,
    TRACED_STRETCH,
)
from workbench.analysis.work import coverage
from workbench.diagnosis.confidence import Stretch, ceiling_sigma, confidence
from workbench.diagnosis.counters import Corroboration, corroborate
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
from workbench.diagnosis.verdict import INCONCLUSIVE, Verdict, judge
from workbench.errors import RunFolderError
from workbench.runs.manifest import LatencyInfo, Manifest
from workbench.runs.memory import give_back_memory

ACTIVITY_PASS: Final = "activity"
MOST_WORK: Final = 1 << 16
"""Pieces of device work that nodes, limits and attribution are worked out from; more are sampled by calls."""
STRETCHES: Final = 4
_GPU_ONLY: Final = ("pcie", "sync")
_GPU_SOURCES: Final = frozenset(("counters", "activity", "nvml", "gpm"))


class DiagnosedRun(RunLike, Protocol):
    """A run with its manifest."""

    @property
    def manifest(self) -> Manifest:
        """What was run, where, with what."""


@dataclass(frozen=True)
class Diagnosis:
    """Verdict, shares and their arithmetic. Times are nanoseconds per call, fractions 0..1; None is "not measured".

    attributed: fraction of kernels and copies in the `nodes` pass that lead to a node or a graph input or output; 1 on
    a CPU, where the nodes themselves are the work, None where no node was recorded.
    work_coverage: fraction of node time whose flops and bytes are counted. traced: the measured pieces before they were
    set in proportion to T. missing: what is not known, and why. not_applicable: classes that need a GPU, on a CPU.
    """

    verdict: Verdict
    sub_cause: str | None
    confidence: float
    shares: dict[str, float | None]
    latency: LatencyInfo
    pieces: Pieces | None
    traced: dict[str, float]
    attributed: float | None
    work_coverage: float | None
    corroboration: list[Corroboration]
    missing: list[str]
    not_applicable: list[str]
    notes: list[str]
    nodes: NodeTimes | None = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The object that `workbench diagnose --json` prints."""
        pieces = self.pieces
        return {
            "verdict": self.verdict.name,
            "pair": list(self.verdict.pair) if self.verdict.pair else None,
            "sub_cause": self.sub_cause,
            "runner_up": self.verdict.runner_up,
            "reason": self.verdict.reason,
            "confidence": self.confidence,
            "shares": self.shares,
            "latency_ns": self.latency.median_ns,
            "latency_interval_ns": [self.latency.ci_low_ns, self.latency.ci_high_ns],
            "attributed": self.attributed,
            "work_coverage": self.work_coverage,
            "pieces_ns": {k: float(v) for k, v in vars(pieces).items() if k != "latency_ns"} if pieces else None,
            "traced_ns": self.traced,
            "counters": [each.to_dict() for each in self.corroboration],
            "missing": self.missing,
            "not_applicable": self.not_applicable,
            "notes": self.notes,
        }


def diagnose(run: DiagnosedRun) -> Diagnosis:
    """Work out the diagnosis of a run; a source that is missing makes it less sure and is named, never guessed.

    Raises `RunFolderError` when the run holds no latency, without which no share means anything.
    """
    manifest = run.manifest
    if manifest.latency is None:
        raise RunFolderError("The run holds no latency, so nothing can be diagnosed: profile the model again.")
    if manifest.device.kind == "cpu":
        return _diagnose_cpu(manifest, manifest.latency, _nodes(run))
    if manifest.imported is not None and manifest.imported.subject_process is not None:
        run = Restricted(run, manifest.imported.subject_process, manifest.imported.subject_device)
    return _diagnose_gpu(run, manifest, manifest.latency)


def detailed_pass(manifest: Manifest) -> str | None:
    """The pass that recorded most about nodes and device work, None when none did."""
    complete = [name for name, info in manifest.passes.items() if info.state == "complete"]
    return next((name for name in (NODES_PASS, ACTIVITY_PASS) if name in complete), None)


def timed_pass(manifest: Manifest) -> str | None:
    """The pass whose calls T was measured on: the bare one, or of an imported capture the only one."""
    return "latency" if manifest.imported is None else detailed_pass(manifest)


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
    missing = _missing(manifest)
    with ThreadPoolExecutor(1) as beside:  # both read large tables, outside the interpreter's lock
        found = beside.submit(_nodes, run)
        traced_calls = _traced_calls(run)
        nodes = found.result()
    attributed = _attributed(nodes)
    if traced_calls is None:
        return _unknown(bare, missing, "no pass recorded what the device did", nodes)
    calls = traced_calls[TRACED_COLUMNS].to_numpy(np.float64)
    single = float(nodes.device["own_ns"].sum()) / nodes.calls if nodes is not None and nodes.calls else None

    def remake(latency: Any, sampled: NDArray[np.float64], shift: Any, bounds_instead: Any) -> Pieces:
        return gpu_pieces(latency, Traced.of(sampled), limit_split(nodes, shift, bounds_instead), single)

    pieces = _floats(remake(bare.median_ns, calls, 0.0, 0.0))
    shares = pieces.shares()
    verdict = judge(shares)
    causes = pieces.launch_causes()
    traced = Traced.of(calls)
    speed = float(speed_difference(bare.median_ns, traced))
    corroboration = corroborate(run, manifest, nodes)
    names_launch = "launch" in (verdict.name, *(verdict.pair or ()))
    return Diagnosis(
        verdict=verdict,
        sub_cause=max(causes, key=lambda name: float(causes[name])) if names_launch else None,
        confidence=confidence(
            shares, remake, calls, bare, ceiling_sigma(verdict.name, corroboration), _stretch(manifest, pieces.idle)
        ),
        shares={name: float(shares[name]) for name in SHARES},
        latency=bare,
        pieces=pieces,
        traced={"wall_ns": float(traced_calls["wall_ns"].median()), **_as_columns(traced)},
        attributed=attributed,
        work_coverage=_coverage(nodes),
        corroboration=corroboration,
        missing=missing,
        not_applicable=[],
        notes=disturbances(run) + _notes(manifest, bare, speed, nodes, replayed=bool(traced.replay)),
        nodes=nodes,
    )


def _diagnose_cpu(manifest: Manifest, bare: LatencyInfo, nodes: NodeTimes | None) -> Diagnosis:
    missing = _missing(manifest)
    if nodes is None or not len(nodes.executions):
        return _unknown(bare, missing, "no pass recorded the nodes", nodes, list(_GPU_ONLY))
    per_call = node_ns_per_call(nodes.executions)
    traced_ns = manifest.passes[NODES_PASS].median_ns or bare.median_ns

    def remake(latency: Any, sampled: NDArray[np.float64], shift: Any, bounds_instead: Any) -> Pieces:
        split = limit_split(nodes, shift, bounds_instead)
        return cpu_pieces(latency, np.median(sampled[..., 0], axis=-1), traced_ns, split)

    pieces = _floats(remake(bare.median_ns, per_call[:, None], 0.0, 0.0))
    shares = pieces.shares()
    verdict = judge(shares)
    names_launch = "launch" in (verdict.name, *(verdict.pair or ()))
    notes = _notes(manifest, bare, 1.0, nodes, replayed=False)
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
            _stretch(manifest, pieces.idle),
        ),
        shares={name: None if name in _GPU_ONLY else float(shares[name]) for name in SHARES},
        latency=bare,
        pieces=pieces,
        traced={"wall_ns": traced_ns, "node_ns": float(np.median(per_call))},
        attributed=1.0,  # on a CPU the nodes are the work
        work_coverage=_coverage(nodes),
        corroboration=[],
        missing=missing,
        not_applicable=list(_GPU_ONLY),
        notes=notes,
        nodes=nodes,
    )


def _unknown(
    bare: LatencyInfo, missing: list[str], why: str, nodes: NodeTimes | None, not_applicable: list[str] | None = None
) -> Diagnosis:
    """Nothing but the latency is known: all of the time is "other", and any class would be a guess."""
    shares = {name: 1.0 if name == "other" else None for name in SHARES}
    reason = f"Only the latency is known, because {why}."
    return Diagnosis(
        verdict=Verdict(INCONCLUSIVE, None, None, reason),
        sub_cause=None,
        confidence=0.0,
        shares=shares,
        latency=bare,
        pieces=None,
        traced={},
        attributed=_attributed(nodes),
        work_coverage=_coverage(nodes),
        corroboration=[],
        missing=missing,
        not_applicable=not_applicable or [],
        notes=[],
        nodes=nodes,
    )


def _as_columns(traced: Traced) -> dict[str, float]:
    return {name: float(value) for name, value in zip(TRACED_COLUMNS, traced, strict=True)}


def _beyond_ceilings(nodes: NodeTimes | None) -> float:
    """Fraction of node time in nodes that are faster than their bound at the ceilings, beyond doubt."""
    if nodes is None or not nodes.nodes["time_ns"].sum():
        return 0.0
    table = nodes.nodes
    return float(table.loc[table["efficiency"] > BEYOND_CEILING, "time_ns"].sum() / table["time_ns"].sum())


def _floats(pieces: Pieces) -> Pieces:
    return Pieces(**{name: float(value) for name, value in vars(pieces).items()})


def _missing(manifest: Manifest) -> list[str]:
    """Passes and sources that gave nothing, each with its reason, and what an import had to leave out.

    On a CPU those of a GPU are not missing.
    """
    unneeded = _GPU_SOURCES if manifest.device.kind == "cpu" else frozenset()
    passes = [p for p in manifest.passes.values() if p.state != "complete" and p.name not in unneeded]
    sources = [(n, s) for n, s in manifest.sources.items() if s.state != "present" and n not in unneeded]
    said = [*(f"{p.name} pass: {p.reason}" for p in passes), *(f"{n}: {s.reason}" for n, s in sources)]
    left_out = manifest.imported.skipped if manifest.imported is not None else []
    return list(dict.fromkeys([*said, *left_out]))


def _attributed(nodes: NodeTimes | None) -> float | None:
    if nodes is None or not len(nodes.device) or not len(nodes.executions):
        return None
    return float(nodes.device["cause"].isna().mean())


def _stretch(manifest: Manifest, idle_ns: float) -> Stretch:
    """How much of T the profiler that was attached may have made; nothing where T comes from a bare pass."""
    if manifest.latency is None or not manifest.latency.traced:
        return Stretch(0.0, 1.0)
    profiled = manifest.sources.get("ort_profiler")
    by_node = profiled is not None and profiled.state == "present"
    return Stretch(idle_ns, PROFILED_STRETCH if by_node else TRACED_STRETCH)


def _sampled(manifest: Manifest, nodes: NodeTimes | None) -> tuple[int, int] | None:
    """How many calls the nodes are worked out from, and how many there are; None when it is all of them."""
    pass_name = detailed_pass(manifest)
    if nodes is None or pass_name is None or nodes.calls >= manifest.passes[pass_name].measured_calls:
        return None
    return nodes.calls, manifest.passes[pass_name].measured_calls


def _coverage(nodes: NodeTimes | None) -> float | None:
    if nodes is None or not len(nodes.executions):
        return None
    weighted = nodes.executions.assign(duration_ns=nodes.executions["device_ns"])
    found = coverage(nodes.executions, weighted)
    return None if np.isnan(found) else found


def _notes(
    manifest: Manifest, bare: LatencyInfo, speed: float, nodes: NodeTimes | None, *, replayed: bool
) -> list[str]:
    notes = [*manifest.notes, *bare.notes]
    sampled = _sampled(manifest, nodes)
    if sampled is not None:
        notes.append(
            f"Nodes, limits and attribution are those of {sampled[0]:,} of the {sampled[1]:,} calls, taken in "
            f"{STRETCHES} stretches spread over the capture; times and idle causes are of all calls."
        )
    if bare.traced:
        stretch = _stretch(manifest, 0.0).most
        notes.append(
            f"T was measured with a profiler attached, which stretches idle time by up to {stretch:g} times: without "
            "it the launch share is smaller and the others are larger."
        )
    if abs(speed - 1) > SPEED_DIFFERENCE:
        said = "faster than the traced device work allows" if speed < 1 else "slower than the traced ones"
        notes.append(
            f"The bare calls ran {said}: the passes saw different speeds, and traced times were scaled by {speed:.2f}."
        )
    beyond = _beyond_ceilings(nodes)
    if beyond > BEYOND_SHARE:
        notes.append(
            f"Nodes with {100 * beyond:.0f} % of the time beat the measured ceilings: their data stays "
            "in caches, or the ceilings were measured while the machine was busy."
        )
    if replayed:
        notes.append("A graph replay counts as busy; what it takes beyond its kernels is launch latency.")
    return notes
