"""The time of each node, split by what limits it: the table behind shares, roofline and top nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.attribution import NO_NODE, attribute
from workbench.analysis.device_work import Tables, device_work, measured_calls, rows_of
from workbench.analysis.filling import filling
from workbench.analysis.intervals import own_time_ns
from workbench.analysis.roofline import LIMITS, bound_times, classify_kernels
from workbench.analysis.work import AMOUNTS, count_work
from workbench.runs.manifest import Ceilings, DeviceInfo

NODES_PASS = "nodes"
_NODE_KEY = ["node_index", "name", "op_type"]


class RunLike(Tables, Protocol):
    """What the analysis needs to know of a run beside its tables."""

    @property
    def graph(self) -> onnx.ModelProto | None:
        """The optimised graph without weights."""


@dataclass(frozen=True)
class NodeTimes:
    """All of the `nodes` pass, measured calls only.

    executions: rows of table `nodes` with their work, `compute_ns`, `memory_ns` and `device_ns`. device: device work
    with `node` (row position in `executions`), `carries`, `cause`, `own_ns` and `limit`. nodes: one row per graph node
    with times per call. calls: how many calls all this is over.
    """

    executions: pd.DataFrame
    device: pd.DataFrame
    nodes: pd.DataFrame
    calls: int


def node_times(
    run: RunLike,
    device: DeviceInfo,
    ceilings: Ceilings,
    *,
    tf32: bool,
    input_bytes: Mapping[str, int],
    output_names: Sequence[str],
) -> NodeTimes:
    """Attribute and classify the `nodes` pass. tf32: whether float32 matrix work may use TF32 tensor cores."""
    calls = measured_calls(run, NODES_PASS)["call"].to_numpy()
    nodes = rows_of(run, "nodes", NODES_PASS)
    executions = nodes[nodes["call"].isin(calls)].reset_index(drop=True)
    work = count_work(executions, run.graph)
    bounds = bound_times(work, ceilings, tf32=tf32)
    executions = pd.concat([executions, work, bounds], axis=1)
    if device.kind == "cuda":
        done = device_work(run, NODES_PASS)
        done = done[done["call"].isin(calls)].reset_index(drop=True)
        launches = rows_of(run, "launches", NODES_PASS)
        session = rows_of(run, "session_events", NODES_PASS)
        found = attribute(done, launches, executions, session, input_bytes=input_bytes, output_names=output_names)
        done = pd.concat([done, found], axis=1)
        done["own_ns"] = 0
        on_device = ~done["host_copy"].to_numpy(bool)
        done.loc[on_device, "own_ns"] = own_time_ns(done.loc[on_device, "start_ns"], done.loc[on_device, "end_ns"])
        executions["device_ns"] = _sum_by_node(done["own_ns"], done["node"], len(executions))
        done["limit"] = _limits(run, done, executions, device, ceilings)
    else:
        done = device_work(run, NODES_PASS).iloc[:0].assign(node=0, carries=None, cause=None, own_ns=0, limit=None)
        executions["device_ns"] = executions["duration_ns"]
    return NodeTimes(executions, done, _per_node(executions, done, max(len(calls), 1), device.kind), len(calls))


def _sum_by_node(values: pd.Series, node: pd.Series, count: int) -> NDArray[np.int64]:
    chosen = node.to_numpy() != NO_NODE
    sums = np.zeros(count, np.int64)
    np.add.at(sums, node.to_numpy()[chosen], values.to_numpy(np.int64)[chosen])
    return sums


def _limits(
    run: RunLike, done: pd.DataFrame, executions: pd.DataFrame, device: DeviceInfo, ceilings: Ceilings
) -> NDArray[np.object_]:
    """The limit of each piece of device work; memsets and device-side copies move bytes, so they are memory."""
    limits = np.where(done["table"] == "graphs", "unknown", "memory").astype(object)
    limits[done["host_copy"].to_numpy(bool)] = None
    is_kernel = (done["table"] == "kernels").to_numpy()
    kernels = run.table("kernels").loc[done.loc[is_kernel, "row"]]
    bounds = executions[["compute_ns", "memory_ns", "device_ns"]].rename(columns={"device_ns": "kernel_ns"})
    node = done.loc[is_kernel, "node"].to_numpy()
    per_kernel = bounds.reindex(np.where(node == NO_NODE, -1, node))
    limits[is_kernel] = classify_kernels(
        (done["end_ns"] - done["start_ns"]).to_numpy(np.int64)[is_kernel],
        filling(kernels, device.sm_count, device.compute_capability),
        per_kernel,
        ceilings.shortest_kernel_ns,
    )
    return limits


def cpu_limits(executions: pd.DataFrame) -> NDArray[np.object_]:
    """The limit of each node execution on a CPU: the larger bound, `unknown` where work was not counted: object[n]."""
    compute, memory = executions["compute_ns"].to_numpy(), executions["memory_ns"].to_numpy()
    known = ~np.isnan(compute) & ~np.isnan(memory) & (np.fmax(compute, memory) > 0)
    limits: NDArray[np.object_] = np.where(known, np.where(compute > memory, "compute", "memory"), "unknown").astype(
        object
    )
    return limits


def _per_node(executions: pd.DataFrame, done: pd.DataFrame, calls: int, kind: str) -> pd.DataFrame:
    """One row per node, longest first.

    Columns: `node_index`, `name`, `op_type`, `provider`, `executions` (per call), `host_ns` and `time_ns` (per call:
    device time on a GPU, own duration on a CPU), `<limit>_ns` for each limit, the amounts of work per call, `dtype`,
    `how`, `compute_bound_ns`, `memory_bound_ns`, `limit` (the largest part), `efficiency` (larger bound over time),
    `flops_per_s`, `bytes_per_s`.
    """
    split = executions[[]].assign(**dict.fromkeys(LIMITS, 0))
    if kind == "cuda":
        mine = done[(done["node"] != NO_NODE) & (done["own_ns"] > 0)]
        sums = mine.pivot_table(index="node", columns="limit", values="own_ns", aggfunc="sum", fill_value=0)
        split = sums.reindex(executions.index, columns=list(LIMITS), fill_value=0)
    else:
        limits = cpu_limits(executions)
        for limit in LIMITS:
            split[limit] = np.where(limits == limit, executions["duration_ns"], 0)
    split.columns = [f"{limit}_ns" for limit in LIMITS]
    table = executions.rename(columns={"compute_ns": "compute_bound_ns", "memory_ns": "memory_bound_ns"}).join(split)
    summed = [*AMOUNTS, *split.columns, "compute_bound_ns", "memory_bound_ns"]
    groups = table.groupby(_NODE_KEY, dropna=False, sort=False)
    result = groups[["provider", "dtype", "how"]].first()
    result["executions"] = groups.size() / calls
    result["host_ns"] = groups["duration_ns"].sum() / calls
    result["time_ns"] = groups["device_ns"].sum() / calls
    # A sum over a group with an unknown part is unknown, not smaller.
    result[summed] = groups[summed].sum(min_count=1) / calls
    unknown = table[list(AMOUNTS)].isna().groupby([table[key] for key in _NODE_KEY], dropna=False, sort=False).any()
    result[list(AMOUNTS)] = result[list(AMOUNTS)].mask(unknown)
    parts = result[list(split.columns)].rename(columns=lambda name: str(name).removesuffix("_ns"))
    result["limit"] = parts.idxmax(axis=1).where(parts.max(axis=1) > 0, "unknown")
    busy = result["time_ns"].where(result["time_ns"] > 0)
    result["efficiency"] = result[["compute_bound_ns", "memory_bound_ns"]].max(axis=1) / busy
    result["flops_per_s"] = result[["tensor_flops", "fp_flops", "special_flops"]].sum(axis=1, min_count=3) / busy * 1e9
    result["bytes_per_s"] = result[["read_bytes", "written_bytes"]].sum(axis=1, min_count=2) / busy * 1e9
    return result.reset_index().sort_values("time_ns", ascending=False, ignore_index=True)
