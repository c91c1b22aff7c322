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
from workbench.analysis.device_work import device_work
from workbench.analysis.filling import GRID, LAUNCH_CONFIGURATION, filling
from workbench.analysis.intervals import own_time_ns
from workbench.analysis.replays import lead_back
from workbench.analysis.roofline import LIMITS, bound_times, classify_kernels
from workbench.analysis.tables import Tables, measured_calls, rows_of
from workbench.analysis.work import AMOUNTS, count_work
from workbench.runs.manifest import Ceilings, DeviceInfo

NODES_PASS = "nodes"
_NODE_KEY = ["node_index", "name", "op_type"]
_BLOCK_ROWS = 1 << 18  # kernels are classified in blocks, so that the temporary arrays stay small


class RunLike(Tables, Protocol):
    """What the analysis needs to know of a run beside its tables."""

    @property
    def graph(self) -> onnx.ModelProto | None:
        """The optimised graph without weights."""


@dataclass(frozen=True)
class NodeTimes:
    """All of one pass, measured calls only.

    executions: rows of table `nodes` with their work, `compute_ns`, `memory_ns` and `device_ns`, and below them the
    executions in replays of a CUDA graph, `replayed` (`workbench.analysis.replays`). device: device work with `node`
    (row position in `executions`), `carries`, `cause`, `own_ns` and `limit` (null for copies between host and device).
    nodes: one row per graph node with times per call. calls: how many calls all this is over. outside_ns: device time
    per call that leads to no node, by limit.
    """

    executions: pd.DataFrame
    device: pd.DataFrame
    nodes: pd.DataFrame
    calls: int
    outside_ns: dict[str, float]


def node_times(
    run: RunLike,
    device: DeviceInfo,
    ceilings: Ceilings,
    *,
    tf32: bool,
    input_bytes: Mapping[str, int],
    output_names: Sequence[str],
    pass_name: str = NODES_PASS,
) -> NodeTimes:
    """Attribute and classify a pass. tf32: whether float32 matrix work may use TF32 tensor cores.

    A pass that recorded device work and no nodes, such as an imported trace, gives empty `executions`: its work leads
    to no node, and is classified by its own launch configuration.
    """
    calls = measured_calls(run, pass_name)["call"].to_numpy()
    nodes = rows_of(run, "nodes", pass_name)
    executions = nodes[nodes["call"].isin(calls)].assign(replayed=False)
    if device.kind == "cuda":
        done = device_work(run, pass_name)
        if not (inside := done["call"].isin(calls).to_numpy()).all():
            done = done[inside].reset_index(drop=True)
        launches = rows_of(run, "launches", pass_name, ("process", "thread", "start_ns", "end_ns", "correlation"))
        session = rows_of(run, "session_events", pass_name)
        found = attribute(done, launches, executions, session, input_bytes=input_bytes, output_names=output_names)
        graph_nodes = rows_of(run, "graph_nodes", pass_name)
        found, executions = lead_back(done, found, executions, nodes, graph_nodes)
        done = pd.concat([done.drop(columns=["process", "graph_node"]), found], axis=1)
    else:
        done = device_work(run, pass_name).iloc[:0].assign(node=0, carries=None, cause=None, own_ns=0, limit=None)
    executions = executions.reset_index(drop=True)
    work = count_work(executions, run.graph if len(executions) else None)
    executions = pd.concat([executions, work, bound_times(work, ceilings, tf32=tf32)], axis=1)
    if device.kind == "cuda":
        done["own_ns"] = _own_ns(done)
        device_ns = np.zeros(len(executions) + 1, np.int64)  # the last is that of `NO_NODE`
        np.add.at(device_ns, done["node"].to_numpy(), done["own_ns"].to_numpy())
        executions["device_ns"] = device_ns[:-1]
        limits = _limits(run, done, executions, device, ceilings)
        done["limit"] = pd.Categorical.from_codes(limits, pd.Index(LIMITS))
        split = _split_by_limit(done, limits, len(executions))
    else:
        executions["device_ns"] = executions["duration_ns"]
        split = np.append(_cpu_split(executions), np.zeros((1, len(LIMITS)), np.int64), axis=0)
    per = max(len(calls), 1)
    outside_ns = dict(zip(LIMITS, (split[-1] / per).tolist(), strict=True))
    return NodeTimes(executions, done, _per_node(executions, split[:-1], per), len(calls), outside_ns)


def _split_by_limit(done: pd.DataFrame, limits: NDArray[np.int8], count: int) -> NDArray[np.int64]:
    """Device time of each execution by limit, and in the last row that of no execution: int64[count + 1, limits]."""
    rows = np.flatnonzero(limits >= 0)
    split = np.zeros((count + 1, len(LIMITS)), np.int64)
    np.add.at(split, (done["node"].to_numpy()[rows], limits[rows]), done["own_ns"].to_numpy()[rows])
    return split


def _cpu_split(executions: pd.DataFrame) -> NDArray[np.int64]:
    """Duration of each execution under its one limit: int64[count, limits]."""
    chosen = cpu_limits(executions)[:, None] == np.array(LIMITS, object)
    return np.where(chosen, executions["duration_ns"].to_numpy(np.int64)[:, None], 0)


def _own_ns(done: pd.DataFrame) -> NDArray[np.int64]:
    """Time that each piece adds to the device's work; copies between host and device add none."""
    own = np.zeros(len(done), np.int64)
    rows = np.flatnonzero(~done["host_copy"].to_numpy())
    own[rows] = own_time_ns(done["start_ns"].to_numpy()[rows], done["end_ns"].to_numpy()[rows])
    return own


def _limits(
    run: RunLike, done: pd.DataFrame, executions: pd.DataFrame, device: DeviceInfo, ceilings: Ceilings
) -> NDArray[np.int8]:
    """The limit of each piece of device work as a position in `LIMITS`, -1 for copies between host and device: int8[n].

    Memsets and device-side copies move bytes, so they are memory; what a whole graph did is unknown.
    """
    limits = np.full(len(done), LIMITS.index("memory"), np.int8)
    limits[(done["table"] == "graphs").to_numpy()] = LIMITS.index("unknown")
    limits[done["host_copy"].to_numpy()] = -1
    duration_ns = (done["end_ns"] - done["start_ns"]).to_numpy()
    node = done["node"].to_numpy()
    kernel = (done["table"] == "kernels").to_numpy()
    bounds = executions[["compute_ns", "memory_ns", "device_ns"]].rename(columns={"device_ns": "kernel_ns"})
    for owned, columns in ((True, LAUNCH_CONFIGURATION), (False, GRID)):
        chosen = np.flatnonzero(kernel & ((node != NO_NODE) == owned))
        if not len(chosen):
            continue
        kernels = run.table("kernels", columns)
        for start in range(0, len(chosen), _BLOCK_ROWS):
            rows = chosen[start : start + _BLOCK_ROWS]
            limits[rows] = classify_kernels(
                duration_ns[rows],
                filling(kernels.loc[done["row"].to_numpy()[rows]], device.sm_count, device.compute_capability),
                bounds.iloc[node[rows]] if owned else None,
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


def _per_node(executions: pd.DataFrame, limit_ns: NDArray[np.int64], calls: int) -> pd.DataFrame:
    """One row per node, longest first. limit_ns: time of each execution by limit, int64[executions, limits].

    Columns: `node_index`, `name`, `op_type`, `provider`, `executions` (per call), `host_ns` and `time_ns` (per call:
    device time on a GPU, own duration on a CPU), `<limit>_ns` for each limit, the amounts of work per call, `dtype`,
    `how`, `compute_bound_ns`, `memory_bound_ns`, `limit` (the largest part), `efficiency` (larger bound over time),
    `flops_per_s`, `bytes_per_s`.
    """
    columns = [f"{limit}_ns" for limit in LIMITS]
    split = pd.DataFrame(limit_ns, executions.index, columns)
    table = executions.rename(columns={"compute_ns": "compute_bound_ns", "memory_ns": "memory_bound_ns"}).join(split)
    summed = [*AMOUNTS, *columns, "compute_bound_ns", "memory_bound_ns"]
    groups = table.groupby(_NODE_KEY, dropna=False, sort=False)
    result = groups[["provider", "dtype", "how"]].first()
    result["executions"] = groups.size() / calls
    result["host_ns"] = groups["duration_ns"].sum() / calls
    result["time_ns"] = groups["device_ns"].sum() / calls
    # A sum over a group with an unknown part is unknown, not smaller.
    result[summed] = groups[summed].sum(min_count=1) / calls
    unknown = table[list(AMOUNTS)].isna().groupby([table[key] for key in _NODE_KEY], dropna=False, sort=False).any()
    result[list(AMOUNTS)] = result[list(AMOUNTS)].mask(unknown)
    parts = result[columns].to_numpy(np.float64)
    result["limit"] = np.where((parts > 0).any(axis=1), np.array(LIMITS)[parts.argmax(axis=1)], "unknown")
    busy = result["time_ns"].where(result["time_ns"] > 0)
    result["efficiency"] = result[["compute_bound_ns", "memory_bound_ns"]].max(axis=1) / busy
    result["flops_per_s"] = result[["tensor_flops", "fp_flops", "special_flops"]].sum(axis=1, min_count=3) / busy * 1e9
    result["bytes_per_s"] = result[["read_bytes", "written_bytes"]].sum(axis=1, min_count=2) / busy * 1e9
    return result.reset_index().sort_values("time_ns", ascending=False, ignore_index=True)
