"""The figures of the page, by the id of the place that each is drawn in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from workbench.analysis.kernel_times import kernel_times
from workbench.analysis.node_times import NodeTimes
from workbench.analysis.tables import measured_calls, rows_of
from workbench.diagnosis.passes import detailed_pass, timed_pass
from workbench.diagnosis.result import Diagnosis
from workbench.figures.kernels import top_kernels
from workbench.figures.latency import latency_series
from workbench.figures.marks import timeline_marks
from workbench.figures.nodes import top_nodes
from workbench.figures.roofline import roofline
from workbench.figures.samples import device_samples
from workbench.figures.shares import shares_bar
from workbench.figures.theme import empty
from workbench.figures.timeline import timeline
from workbench.runs.reader import RunFolder

if TYPE_CHECKING:
    import plotly.graph_objects as go

TIMELINE_CALLS: Final = 3
_NODES_MISSING: Final = "No node was recorded: the nodes pass provides this picture."
_NODES_NOT_IMPORTED: Final = "The capture holds no nodes: import ONNX Runtime's profile of the same process with it."


def pictures(run: RunFolder, diagnosis: Diagnosis) -> dict[str, go.Figure]:
    """Every figure, in the order of the page; one without data says what would provide it."""
    manifest = run.manifest
    nodes = diagnosis.nodes
    missing = empty(_NODES_MISSING if manifest.imported is None else _NODES_NOT_IMPORTED)
    found = {"shares": shares_bar(diagnosis.shares, diagnosis.latency.median_ns, manifest.device.kind)}
    found["timeline"] = missing if nodes is None else _timeline(run, nodes)
    executed = nodes is not None and len(nodes.nodes) > 0
    found["nodes"] = top_nodes(nodes.nodes) if nodes is not None and executed else missing
    found["kernels"] = top_kernels(kernel_times(run))
    found["roofline"] = (
        roofline(nodes.nodes, manifest.ceilings, tf32=manifest.uses_tf32) if nodes is not None and executed else missing
    )
    found["latency"] = latency_series(rows_of(run, "latency", timed_pass(manifest) or ""), diagnosis.latency)
    found["samples"] = device_samples(run.samples, run.ranges)
    return found


def _timeline(run: RunFolder, nodes: NodeTimes) -> go.Figure:
    manifest = run.manifest
    pass_name = detailed_pass(manifest) or ""
    marks = timeline_marks(
        measured_calls(run, pass_name).head(TIMELINE_CALLS),
        nodes,
        rows_of(run, "launches", pass_name),
        rows_of(run, "syncs", pass_name),
        rows_of(run, "ranges", pass_name),
        device_kind=manifest.device.kind,
    )
    dilation = manifest.passes[pass_name].dilation if pass_name else None
    longer = f", which tracing made {dilation:.3g} times as long" if dilation is not None and dilation > 1 else ""
    return timeline(marks, device_kind=manifest.device.kind, longer=longer)
