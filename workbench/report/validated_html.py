"""How often the verdict is right as one HTML file: the two figures, and all that the terminal shows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workbench.diagnosis.interventional import TOLERANCE
from workbench.figures.validation import reliability, share_scatter
from workbench.report.page import rendered, write_page
from workbench.report.validated import validation_summary
from workbench.validation.ablation import EVERYTHING, LATENCY_AND_NVML
from workbench.validation.evaluate import Validation
from workbench.validation.score import BINS
from workbench.version import __version__

if TYPE_CHECKING:
    import plotly.graph_objects as go


def validation_figures(found: Validation) -> dict[str, go.Figure]:
    """Traced against interventional shares, and confidence against the fraction right."""
    return {
        "shares": share_scatter(found.shares, TOLERANCE),
        "reliability": reliability(found.judged, (EVERYTHING, LATENCY_AND_NVML), BINS),
    }


def write_validation_page(found: Validation, path: Path) -> Path:
    """Write the page beside `path` and rename it; raises `DiskFullError` and `ConfigError` as `write_page` does."""
    return write_page(
        rendered(
            "validation.html.j2",
            validation_figures(found),
            headline="How often is the verdict right?",
            summary=validation_summary(found),
            workbench_version=__version__,
        ),
        path,
    )
