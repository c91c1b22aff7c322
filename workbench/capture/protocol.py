"""What a worker is told, and how it answers: a spec in a file, events as lines ``@workbench {json}``.

Lines on standard output survive a wrapper such as `nsys profile`, and a full disk.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel

from workbench.config import RunConfig

EVENT_MARK: Final = "@workbench "


class WorkerSpec(BaseModel):
    """What one worker does. `trace_here` turns CUPTI on in this process; nsys, if any, is around it.

    `graph_nodes`: replayed CUDA graphs are traced node by node.
    `warmup_calls` and `calls` hold for the passes that do not find them out themselves.
    `later_feeds`: inputs of other shapes that the session meets after its first call. `keep_outputs` writes the outputs
    of one call to `outputs.npz`.
    """

    config: RunConfig
    pass_name: Literal["latency", "counters", "activity", "nodes"]
    model: Path
    feeds: Path
    device: Literal["cuda", "cpu"]
    trace_here: bool = False
    graph_nodes: bool = False
    warmup_calls: int = 0
    calls: int = 0
    later_feeds: list[Path] = []
    keep_outputs: bool = False


def say(event: str, **values: Any) -> None:
    """Send one event to the parent process."""
    sys.stdout.write(f"{EVENT_MARK}{json.dumps({'event': event, **values})}\n")
    sys.stdout.flush()
