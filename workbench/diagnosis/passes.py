"""Which pass of a run says what."""

from __future__ import annotations

from typing import Final

from workbench.analysis.node_times import NODES_PASS
from workbench.runs.manifest import Manifest

ACTIVITY_PASS: Final = "activity"


def detailed_pass(manifest: Manifest) -> str | None:
    """The pass that recorded most about nodes and device work, None when none did."""
    complete = [name for name, info in manifest.passes.items() if info.state == "complete"]
    return next((name for name in (NODES_PASS, ACTIVITY_PASS) if name in complete), None)


def timed_pass(manifest: Manifest) -> str | None:
    """The pass whose calls T was measured on: the bare one, or of an imported capture the only one."""
    return "latency" if manifest.imported is None else detailed_pass(manifest)
