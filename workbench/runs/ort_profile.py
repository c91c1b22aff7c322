"""Reads ONNX Runtime's profiler JSON into the tables `nodes` and `session_events`.

The profile counts whole microseconds from its start; `start_ns` places that on the Unix epoch
(`InferenceSession.get_profiling_start_time_ns()`). Numbers inside `args` are strings, keys come in any order.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from workbench.errors import SourceError
from workbench.runs.calls import assign_calls

_NODE_SUFFIX = "_kernel_time"
RUN_EVENT = "model_run"


def read_ort_profile(path: Path, start_ns: int) -> dict[str, pa.Table]:
    """Tables `nodes` and `session_events`, without their `pass` column; raises `SourceError` on a damaged file.

    `call` counts the `model_run` events in order of time, starting at 0.
    """
    try:
        return _tables(json.loads(path.read_text(encoding="utf-8")), start_ns)
    except (OSError, ValueError) as error:
        raise SourceError(f"The ONNX Runtime profile {path.name} cannot be read ({error}): record it again.") from None
    except (AttributeError, KeyError, TypeError):
        raise SourceError(f"{path.name} is no list of ONNX Runtime profiler events: record it again.") from None


def _tables(events: list[dict[str, Any]], start_ns: int) -> dict[str, pa.Table]:
    if not isinstance(events, list):
        raise TypeError
    complete = [event for event in events if event.get("ph") == "X"]
    nodes = [e for e in complete if e.get("cat") == "Node" and e["name"].endswith(_NODE_SUFFIX)]
    session = [e for e in complete if e.get("cat") == "Session"]
    starts, durations = _times(session, start_ns)
    is_run = np.fromiter((e["name"] == RUN_EVENT for e in session), bool, len(session))
    order = np.argsort(starts[is_run])
    run_starts = starts[is_run][order]
    # An event that closes a run within the same microsecond still belongs to it.
    run_ends = run_starts + durations[is_run][order] + 999
    return {
        "nodes": _nodes(nodes, start_ns, run_starts, run_ends),
        "session_events": pa.table(
            {
                "call": assign_calls(starts, run_starts, run_ends),
                "name": [e["name"] for e in session],
                "thread": [int(e.get("tid", -1)) for e in session],
                "start_ns": starts,
                "duration_ns": durations,
            }
        ),
    }


def _times(events: list[dict[str, Any]], start_ns: int) -> tuple[Any, Any]:
    micros = np.fromiter((e["ts"] for e in events), np.int64, len(events))
    durations = np.fromiter((e["dur"] for e in events), np.int64, len(events))
    return micros * 1000 + start_ns, durations * 1000


def _nodes(nodes: list[dict[str, Any]], start_ns: int, run_starts: Any, run_ends: Any) -> pa.Table:
    starts, durations = _times(nodes, start_ns)
    args = [e.get("args", {}) for e in nodes]

    def integers(key: str) -> pa.Array:
        return pa.array([None if a.get(key) in (None, "") else int(a[key]) for a in args], pa.int64())

    return pa.table(
        {
            "call": assign_calls(starts, run_starts, run_ends),
            "node_index": integers("node_index"),
            "name": [e["name"].removesuffix(_NODE_SUFFIX) for e in nodes],
            "op_type": [a.get("op_name") for a in args],
            "provider": [a.get("provider") for a in args],
            "thread": [int(e.get("tid", -1)) for e in nodes],
            "start_ns": starts,
            "duration_ns": durations,
            "input_shapes": [json.dumps(a.get("input_type_shape", [])) for a in args],
            "output_shapes": [json.dumps(a.get("output_type_shape", [])) for a in args],
            "activation_bytes": integers("activation_size"),
            "parameter_bytes": integers("parameter_size"),
            "output_bytes": integers("output_size"),
        }
    )
