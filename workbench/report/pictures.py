"""The figures of the page, by the id of the place that each is drawn in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from workbench.analysis.device_work import measured_calls, rows_of
from workbench.analysis.node_times import NODES_PASS
from workbench.diagnosis.diagnosis import Diagnosis
from workbench.figures.latency import latency_series
from workbench.figures.marks import timeline_marks
from workbench.figures.nodes import top_nodes
from workbench.figures.roofline import roofline
from workbench.figures.samples import device_samples
from workbench.figures.shares import shares_bar
from workbench.figures.theme import empty
from workbench.figures.timeline import timeline
from workbench.runs.manifest import Manifest
from workbench.runs.reader import RunFolder

if TYPE_CHECKING:
    import plotly.graph_objects as go

TIMELINE_CALLS: Final = 3
_NODES_MISSING: Final = "No node was recorded: the nodes pass provides this picture."


def pictures(run: RunFolder, diagnosis: Diagnosis) -> dict[str, go.Figure]:
    """Every figure, in the order of the page; one without data says what would provide it."""
    manifest = run.manifest
    nodes = diagnosis.nodes
    found = {"shares": shares_bar(diagnosis.shares, diagnosis.latency.median_ns, manifest.device.kind)}
    if nodes is None:
        found |= {name: empty(_NODES_MISSING) for name in ("timeline", "nodes", "roofline")}
    else:
        marks = timeline_marks(
            measured_calls(run, NODES_PASS).head(TIMELINE_CALLS),
            nodes,
            rows_of(run, "launches", NODES_PASS),
            rows_of(run, "syncs", NODES_PASS),
            device_kind=manifest.device.kind,
        )
        found["timeline"] = timeline(marks, device_kind=manifest.device.kind, longer=_longer(manifest))
        found["nodes"] = top_nodes(nodes.nodes)
        found["roofline"] = roofline(nodes.nodes, manifest.ceilings, tf32=manifest.uses_tf32)
    found["latency"] = latency_series(rows_of(run, "latency", "latency"), diagnosis.latency)
    found["samples"] = device_samples(run.samples, run.ranges)
    return found


def _longer(manifest: Manifest) -> str:
    """How the nodes pass changed the calls; ONNX Runtime reports no nodes of a replayed graph, so it runs without."""
    dilation = manifest.passes[NODES_PASS].dilation
    if dilation is None or dilation <= 1:
        return ""
    without = ", without the CUDA graph," if manifest.config.get("cuda_graph") else ""
    return f", which tracing{without} made {dilation:.3g} times as long"
