"""The tables of the page: rows of text, made from the tables of the run."""

from __future__ import annotations

import datetime
from typing import Any, Final, NamedTuple

import pandas as pd

from workbench.analysis.cold_start import cold_start
from workbench.analysis.kernel_times import KernelTimes
from workbench.analysis.node_times import NodeTimes
from workbench.config import RunConfig
from workbench.diagnosis.result import Diagnosis
from workbench.figures.classes import CLASS_OF_LIMIT, COLOURS
from workbench.figures.kernels import FAMILY_COLOURS, short_name, tensor_cores
from workbench.figures.theme import shorten
from workbench.figures.units import (
    UNKNOWN,
    format_bytes,
    format_bytes_per_s,
    format_flops,
    format_ns,
    format_percent,
)
from workbench.report.imported import import_line, import_rows
from workbench.report.redact import flat, without_folders
from workbench.runs.manifest import Manifest
from workbench.runs.reader import RunFolder

MOST_NODES: Final = 25
MOST_KERNELS: Final = 25
_KERNEL_NAME_LENGTH: Final = 90
_SOURCES: Final = {
    "cupti": "CUPTI",
    "nsys": "Nsight Systems",
    "nvml": "NVML",
    "gpm": "GPM counters",
    "gpu_metrics": "GPU metrics",
    "kineto": "PyTorch profiler",
    "ort_profiler": "ONNX Runtime profiler",
    "wall_clock": "wall clock",
    "activity": "device activity",
    "ceilings": "measured ceilings",
}
_BANDWIDTHS: Final = {
    "memory_bytes_per_s": "memory bandwidth",
    "h2d_pageable_bytes_per_s": "copy to device, pageable",
    "d2h_pageable_bytes_per_s": "copy to host, pageable",
    "h2d_pinned_bytes_per_s": "copy to device, pinned",
    "d2h_pinned_bytes_per_s": "copy to host, pinned",
}
_TIMES: Final = {
    "launch_ns": "one launch on the host",
    "shortest_kernel_ns": "shortest kernel",
    "replay_gap_ns": "gap between kernels of a replayed graph",
    "node_overhead_ns": "ONNX Runtime's cost per node",
}
_BARE_STEP: Final = {"beyond_usual_ns": "beyond a usual call"}
_TRACED_STEP: Final = {
    "traced_ns": "step",
    "loading_ns": "CUDA loads code",
    "allocation_ns": "host allocates",
    "device_ns": "device works",
    "other_ns": "none of these",
    "work_beyond_usual_ns": "device work beyond a usual call",
    "kernels_beyond_usual": "kernels beyond a usual call",
}


class Row(NamedTuple):
    """Cells of a table row, with the colour of its class where it has one."""

    cells: list[str]
    colour: str = ""


class Steps(NamedTuple):
    """The cold start: heads of what the bare and the traced pass give, and whether it was seen when CUDA loaded code.

    rows: step, bare time, that as a fraction of the longest, and a cell for each head.
    """

    bare: list[str]
    traced: list[str]
    loads: bool
    rows: list[tuple[str, str, float, list[str]]]


def run_line(manifest: Manifest) -> list[str]:
    """Binding, batch and the like: what a reader has to know about how it was run."""
    if manifest.imported is not None:
        return import_line(manifest.imported)
    config = manifest.config
    parts = [f"binding {config.get('binding', RunConfig.model_fields['binding'].default)}"]
    if (batch := config.get("batch") or manifest.model.rebatched_to) is not None:
        parts.append(f"batch {batch}")
    if config.get("cuda_graph"):
        parts.append("CUDA graph")
    for name, shape in list(manifest.model.feed_shapes.items())[:2]:
        size = "×".join(map(str, shape)) or "scalar"
        parts.append(f"{name} {size} {manifest.model.feed_dtypes.get(name, '')}".strip())
    if (left := len(manifest.model.feed_shapes) - 2) > 0:
        parts.append(f"{left} more inputs")
    return parts


def utc(created_ns: int) -> str:
    """A moment in UTC, to the minute."""
    return f"{datetime.datetime.fromtimestamp(created_ns / 1e9, datetime.UTC):%Y-%m-%d %H:%M} UTC"


def node_rows(nodes: NodeTimes) -> list[Row]:
    """The longest nodes, and the sum of all others in a last row."""
    table = nodes.nodes
    total = float(table["time_ns"].sum())
    if not total:
        return []
    rows = [
        Row(
            [
                str(node["name"]),
                str(node["op_type"]),
                format_ns(node["time_ns"]),
                format_percent(node["time_ns"] / total),
                str(node["limit"]),
                format_percent(node["efficiency"]),
                format_flops(node["flops_per_s"]),
                format_bytes_per_s(node["bytes_per_s"]),
                UNKNOWN if pd.isna(node["dtype"]) else str(node["dtype"]),
                f"{node['executions']:.3g}",
            ],
            COLOURS[CLASS_OF_LIMIT[node["limit"]]],
        )
        for node in table.head(MOST_NODES).to_dict("records")
    ]
    if len(rest := table.iloc[MOST_NODES:]):
        time_ns = float(rest["time_ns"].sum())
        name = f"{len(rest)} other nodes"
        executions = f"{rest['executions'].sum():,.0f}"
        rows.append(Row([name, "", format_ns(time_ns), format_percent(time_ns / total), *[""] * 5, executions]))
    return rows


def kernel_rows(times: KernelTimes) -> list[Row]:
    """The longest kernels by name, and the sum of all others in a last row."""
    kernels, calls = times.kernels, times.calls
    rows = [
        Row(
            [
                shorten(short_name(kernel["name"]), _KERNEL_NAME_LENGTH),
                str(kernel["family"]),
                tensor_cores(kernel["tensor_cores"]),
                str(kernel["rule"]),
                f"{kernel['count'] / calls:.3g}",
                format_ns(kernel["own_ns"] / calls),
                format_percent(kernel["share"]),
            ],
            FAMILY_COLOURS[kernel["family"]],
        )
        for kernel in kernels.head(MOST_KERNELS).to_dict("records")
    ]
    if len(rest := kernels.iloc[MOST_KERNELS:]):
        count, own_ns, share = rest[["count", "own_ns", "share"]].sum()
        name = f"{len(rest)} other kernels"
        rows.append(Row([name, *[""] * 3, f"{count / calls:.3g}", format_ns(own_ns / calls), format_percent(share)]))
    return rows


def kernels_from(times: KernelTimes) -> str:
    """Which calls the table of kernels is over."""
    calls = "1 measured call" if times.calls == 1 else f"{times.calls} measured calls"
    return f"{calls} of the {times.pass_name} pass"


def copy_rows(run: RunFolder, nodes: NodeTimes) -> list[Row]:
    """Copies between host and device, per call, by what they carry and between which memories."""
    device = nodes.device[nodes.device["host_copy"].astype(bool)]
    if not len(device):
        return []
    memories = run.copies.loc[device["row"], ["source", "target"]].set_index(device.index)
    owner = device["node"].map("node " + nodes.executions["name"].astype(str))  # NO_NODE is no row: it has no name
    cause = device["cause"].astype(object) if len(nodes.executions) else UNKNOWN
    what = device["carries"].astype(object).fillna(owner.astype(object)).fillna(cause)
    table = device[["kind", "bytes"]].join(memories).assign(what=what, ns=device["end_ns"] - device["start_ns"])
    groups = table.groupby(["what", "kind", "source", "target"], dropna=False, sort=False)
    sums = groups[["bytes", "ns"]].sum().assign(count=groups.size()).reset_index().sort_values("ns", ascending=False)
    return [
        Row(
            [
                str(copy["what"]),
                str(copy["kind"]),
                f"{copy['source']} → {copy['target']}",
                f"{copy['count'] / nodes.calls:.3g}",
                format_bytes(copy["bytes"] / nodes.calls),
                format_ns(copy["ns"] / nodes.calls),
                format_bytes_per_s(copy["bytes"] / copy["ns"] * 1e9 if copy["ns"] else None),
            ]
        )
        for copy in sums.to_dict("records")
    ]


def step_rows(run: RunFolder) -> Steps | None:
    """The cold start (`workbench.analysis.cold_start`) without the columns that nothing provides; None if not timed."""
    table = cold_start(run)
    if not len(table):
        return None
    bare, traced = ([name for name in said if table[name].notna().any()] for said in (_BARE_STEP, _TRACED_STEP))
    if len(traced) == 1:  # the traced time of a step alone says nothing
        traced = []
    longest_ns = max(*table["duration_ns"], 1)
    times = [(format_ns(time_ns), time_ns / longest_ns) for time_ns in table["duration_ns"]]
    cells = [[_step_cell(column, step[column]) for column in bare + traced] for step in table.to_dict("records")]
    rows = [(str(name), *time, row) for name, time, row in zip(table.index, times, cells, strict=True)]
    return Steps(
        [_BARE_STEP[name] for name in bare], [_TRACED_STEP[name] for name in traced], "loading_ns" in traced, rows
    )


def _step_cell(column: str, value: Any) -> str:
    if pd.isna(value):
        return UNKNOWN
    return format_ns(value) if column.endswith("_ns") else f"{value:,}"


def counter_rows(diagnosis: Diagnosis) -> list[Row]:
    """Hardware counters against predictions."""
    said = {True: "agrees", False: "disagrees", None: "too small to tell"}
    return [
        Row([c.counter, format_percent(c.predicted), format_percent(c.measured), said[c.agrees]], COLOURS[c.supports])
        for c in diagnosis.corroboration
    ]


def pass_rows(manifest: Manifest) -> list[Row]:
    """Each pass: what came of it and how much it stretched the calls."""
    return [
        Row(
            [
                name,
                info.state,
                f"{info.measured_calls:,}" if info.state == "complete" else "",
                format_ns(info.median_ns),
                UNKNOWN if info.dilation is None else f"{info.dilation:.3g} ×",
                format_ns(info.wall_ns) if info.wall_ns else UNKNOWN,
                without_folders(info.reason),
            ]
        )
        for name, info in manifest.passes.items()
    ]


def source_rows(manifest: Manifest) -> list[Row]:
    """Each source: present, absent or failed, and why."""
    return [
        Row([_SOURCES.get(name, name), source.state, without_folders(source.reason)])
        for name, source in manifest.sources.items()
    ]


def config_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """What was asked for, or where an imported run comes from."""
    if manifest.imported is not None:
        return import_rows(manifest.imported)
    return list(flat(manifest.config).items())


def provider_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """What ONNX Runtime says it used, read back from the session."""
    return [("providers", ", ".join(manifest.providers)), *flat(dict(manifest.provider_options)).items()]


def device_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """The device and the software; nothing that is unknown."""
    device = manifest.device
    given: dict[str, Any] = {
        "device": device.name,
        "compute capability": device.compute_capability,
        "multiprocessors": device.sm_count,
        "cores": device.cores,
        "memory": format_bytes(device.memory_bytes) if device.memory_bytes else None,
        "largest SM clock": f"{device.max_sm_clock_mhz:,} MHz" if device.max_sm_clock_mhz else None,
        "PCIe": f"generation {device.pcie_generation}, ×{device.pcie_width}" if device.pcie_generation else None,
        "driver": device.driver,
        "CUDA of the driver": device.cuda_driver_version,
    }
    return [(name, str(value)) for name, value in (given | manifest.software).items() if value is not None]


def ceiling_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """The measured limits of the device."""
    ceilings = manifest.ceilings
    rows = [(name.replace(":", " "), format_flops(value)) for name, value in ceilings.flops_per_s.items()]
    rows += [(text, format_bytes_per_s(getattr(ceilings, name))) for name, text in _BANDWIDTHS.items()]
    rows += [(text, format_ns(getattr(ceilings, name))) for name, text in _TIMES.items()]
    return [(name, value) for name, value in rows if value != UNKNOWN]
