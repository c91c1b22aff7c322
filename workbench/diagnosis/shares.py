"""Where the unprofiled time of a call goes: the pieces, and the shares that they make. Arithmetic a reader can redo.

Every amount is a float, or an array of draws when the uncertainty is worked out: the same formulas serve both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.intervals import own_time_ns
from workbench.analysis.node_times import NodeTimes

CLASSES: Final = ("compute", "memory", "pcie", "launch")
SHARES: Final = (*CLASSES, "sync", "other")
LAUNCH_CAUSES: Final = ("host", "launch latency", "under-filled")
FRAMEWORK_OVERHEAD: Final = "framework overhead"

Amount = Any  # float or float64[draws]; NumPy's own types cannot say "either" without a union at every use


class Traced(NamedTuple):
    """What the calls of a traced pass spent, in nanoseconds per call: medians, but means for the three idle causes."""

    work: Amount
    exposed: Amount
    replay: Amount
    host: Amount
    launch_latency: Amount
    sync: Amount

    @classmethod
    def of(cls, calls: NDArray[np.float64]) -> Traced:
        """From float64[..., calls, 6], the columns of `TRACED_COLUMNS`."""
        medians = np.median(calls[..., :3], axis=-2)
        means = calls[..., 3:].mean(axis=-2)
        return cls(*np.moveaxis(np.concatenate((medians, means), axis=-1), -1, 0))


TRACED_COLUMNS: Final = [
    "work_ns", "exposed_copy_ns", "replay_ns", "host_ns", "launch_latency_ns", "sync_ns",
]  # fmt: skip


@dataclass(frozen=True)
class Pieces:
    """Nanoseconds per call; they sum to `latency_ns`, T, the bare median.

    compute, memory, under_filled, unknown: the device work |K| (on a CPU: node time) by what limits it.
    exposed_copies: |X|, copies between host and device that no work covers. host, launch_latency, sync: the idle time
    T - |K ∪ C| by cause; on a CPU, `host` is the framework's overhead between nodes.
    """

    latency_ns: Amount
    compute: Amount
    memory: Amount
    under_filled: Amount
    unknown: Amount
    exposed_copies: Amount
    host: Amount
    launch_latency: Amount
    sync: Amount

    @property
    def idle(self) -> Amount:
        """The idle time T - |K ∪ C|, whatever its cause."""
        return self.host + self.launch_latency + self.sync

    def shares(self) -> dict[str, Amount]:
        """The shares of `SHARES`; they sum to 1."""
        parts = {
            "compute": self.compute,
            "memory": self.memory,
            "pcie": self.exposed_copies,
            "launch": self.host + self.launch_latency + self.under_filled,
            "sync": self.sync,
            "other": self.unknown,
        }
        total = sum(parts.values())
        return {name: value / total for name, value in parts.items()}

    def launch_causes(self) -> dict[str, Amount]:
        """Nanoseconds of the share `launch` by sub-cause."""
        return dict(zip(LAUNCH_CAUSES, (self.host, self.launch_latency, self.under_filled), strict=True))


class LimitSplit(NamedTuple):
    """Fractions of the device work by what limits it; they sum to 1."""

    compute: Amount
    memory: Amount
    under_filled: Amount
    unknown: Amount


def limit_split(nodes: NodeTimes | None, ceiling_shift: Amount = 0.0, bounds_instead: Amount = 0.0) -> LimitSplit:
    """How the device work of a pass splits by limit; all of it is unknown without that pass.

    Work that leads to no node counts by its own limit. ceiling_shift: natural logarithm of an error in the ratio of the
    memory ceiling to the compute ceiling, float or float64[draws]; nodes change sides when their two bounds change
    order. bounds_instead: fraction of the under-filled time that is classed by the larger bound instead, float or
    float64[draws]; outside nodes no bound is known, so that this time becomes unknown.
    """
    if nodes is None or not (len(nodes.nodes) or len(nodes.device)):
        return LimitSplit(0.0, 0.0, 0.0, 1.0)
    table = nodes.nodes
    outside = nodes.outside_ns
    bounded = (table["compute_ns"] + table["memory_ns"]).to_numpy(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(table["compute_bound_ns"].to_numpy(np.float64) / table["memory_bound_ns"].to_numpy(np.float64))
    base = table["compute_ns"].to_numpy(np.float64)
    shift = np.asarray(ceiling_shift, np.float64)[..., None]
    moved = np.where(ratio + shift > 0, bounded, 0.0)
    # A node whose kernels were classed one by one keeps that split until the shift takes it over the edge.
    compute = np.where((ratio > 0) == (ratio + shift > 0), base, moved).sum(axis=-1)
    memory = bounded.sum() - compute + outside["memory"]
    under_filled = table["under-filled_ns"].to_numpy(np.float64)
    under = under_filled.sum() + outside["under-filled"]
    unknown = float(table["unknown_ns"].sum()) + outside["unknown"]
    total = bounded.sum() + outside["memory"] + under + unknown
    if not total:
        return LimitSplit(0.0, 0.0, 0.0, 1.0)
    back_to_compute = bounds_instead * under_filled[ratio > 0].sum()
    back_to_memory = bounds_instead * under_filled[ratio <= 0].sum()
    back_to_unknown = bounds_instead * outside["under-filled"]
    return LimitSplit(
        (compute + back_to_compute) / total,
        (memory + back_to_memory) / total,
        (under - back_to_compute - back_to_memory - back_to_unknown) / total,
        (unknown + back_to_unknown) / total,
    )


def gpu_pieces(latency_ns: Amount, traced: Traced, split: LimitSplit, single_work_ns: float | None) -> Pieces:
    """The pieces of a GPU run.

    Tracing stretches the gaps and hardly the kernels, so work and exposed copies are taken as traced, and the idle
    time is T minus both, split as the traced idle time splits. Tracing never makes a call shorter: where the traced
    busy time exceeds T, or the whole traced call stays below T, the passes saw different speeds (throttling, a
    neighbour), and the traced call is scaled to T (`speed_difference` gives the factor). single_work_ns: device time
    per call of the same nodes without a CUDA graph; what a replay takes beyond it is launch latency between kernels.
    """
    fit = speed_difference(latency_ns, traced)
    work, exposed = traced.work * fit, traced.exposed * fit
    idle = np.maximum(latency_ns - work - exposed, 0.0)
    causes = traced.host + traced.launch_latency + traced.sync
    scale = np.divide(idle, causes, out=np.zeros_like(np.asarray(idle, float)), where=np.asarray(causes) > 0)
    rest = np.where(np.asarray(causes) > 0, 0.0, idle)  # no traced idle time to split: the host's
    gap = np.where(traced.replay > 0, np.maximum(0.0, work - single_work_ns), 0.0) if single_work_ns else 0.0
    kernels = work - gap
    return Pieces(
        latency_ns=latency_ns,
        compute=kernels * split.compute,
        memory=kernels * split.memory,
        under_filled=kernels * split.under_filled,
        unknown=kernels * split.unknown,
        exposed_copies=exposed,
        host=traced.host * scale + rest,
        launch_latency=traced.launch_latency * scale + gap,
        sync=traced.sync * scale,
    )


def speed_difference(latency_ns: Amount, traced: Traced) -> Amount:
    """The factor that takes traced device times to the speed of the bare pass; 1 where the two agree.

    Below 1 the bare pass was faster than the traced device work allows, above 1 it was slower than the traced call.
    """
    busy = np.maximum(traced.work + traced.exposed, 1e-9)
    whole = busy + traced.host + traced.launch_latency + traced.sync
    return np.minimum(np.maximum(1.0, latency_ns / whole), latency_ns / busy)


def cpu_pieces(latency_ns: Amount, node_ns: Amount, traced_ns: float, split: LimitSplit) -> Pieces:
    """The pieces of a CPU run: node time by limit, and the framework's overhead in the place of launch.

    node_ns: node time per call in the profiled pass, whose calls took traced_ns. The profiler's own time lies between
    the nodes, so they are taken as they are, unless they exceed T: then the whole pass ran slower, and the nodes keep
    their fraction of its calls.
    """
    busy = np.where(node_ns <= latency_ns, node_ns, latency_ns * np.minimum(1.0, node_ns / traced_ns))
    zero = busy * 0.0
    return Pieces(
        latency_ns=latency_ns,
        compute=busy * split.compute,
        memory=busy * split.memory,
        under_filled=busy * split.under_filled,
        unknown=busy * split.unknown,
        exposed_copies=zero,
        host=latency_ns - busy,
        launch_latency=zero,
        sync=zero,
    )


def node_ns_per_call(executions: pd.DataFrame) -> NDArray[np.float64]:
    """Node time of each call of the profiled pass, nested nodes not counted twice: float64[calls]."""
    starts = executions["start_ns"].to_numpy(np.int64)
    own = pd.Series(own_time_ns(starts, starts + executions["duration_ns"].to_numpy(np.int64)), executions.index)
    return own.groupby(executions["call"]).sum().to_numpy(np.float64)
