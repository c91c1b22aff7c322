"""The figures that a notebook has beside those of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from workbench.analysis.idle_gaps import idle_gaps
from workbench.analysis.tables import measured_calls
from workbench.diagnosis.passes import ACTIVITY_PASS, detailed_pass
from workbench.figures.counters import hardware_counters
from workbench.figures.gaps import gap_histogram
from workbench.figures.theme import empty
from workbench.runs.reader import RunFolder

if TYPE_CHECKING:
    import plotly.graph_objects as go

_NO_TRACE: Final = "No gap is known: the activity and nodes passes record what the device did."


def notebook_pictures(run: RunFolder) -> dict[str, go.Figure]:
    """`gaps`, from the pass that disturbed the calls least, and `counters`; without data they say what is missing."""
    passes = run.manifest.passes
    info = passes.get(ACTIVITY_PASS)
    name = ACTIVITY_PASS if info is not None and info.state == "complete" else detailed_pass(run.manifest)
    gaps = empty(_NO_TRACE) if name is None else gap_histogram(idle_gaps(run, name), len(measured_calls(run, name)))
    return {"gaps": gaps, "counters": hardware_counters(run.counters, run.ranges)}
