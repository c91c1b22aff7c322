"""Casts between half and single precision in a half-precision model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from workbench.analysis.work.shapes import parse_shapes
from workbench.diagnosis.findings.finding import Case, Finding

RULE: Final = "fp16-casts"
LEAST_SHARE: Final = 0.02
"""Of T; below, nobody would notice."""
HALVES: Final = frozenset(("float16", "bfloat16"))


def rule(case: Case) -> Iterator[Finding]:
    """Cast nodes from or to float16 or bfloat16 take device time, and host time where the device waits for the host.

    What goes with them is at most their device time, and of the idle time what ONNX Runtime needs for that many nodes.
    """
    found, pieces = case.diagnosis.nodes, case.diagnosis.pieces
    if not case.on_gpu or found is None or pieces is None or not HALVES & set(case.situation.matrix_dtypes or ()):
        return
    ran = found.executions[found.executions["op_type"] == "Cast"]
    ends = ran[["input_shapes", "output_shapes"]].astype(object).itertuples(index=False)
    types = [[each[0].dtype if (each := parse_shapes(text)) else "" for text in pair] for pair in ends]
    half = np.array([bool(HALVES & set(pair)) and "float32" in pair for pair in types], bool)
    casts = ran.assign(source=[a for a, _ in types], target=[b for _, b in types])[half]
    groups = casts.groupby(["name", "source", "target"], observed=True)
    evidence = (groups[["device_ns", "duration_ns"]].sum() / found.calls).reset_index()
    evidence = evidence.rename(columns={"device_ns": "time_ns", "duration_ns": "host_ns"})
    if not len(evidence):
        return
    device_ns = float(evidence["time_ns"].sum())
    overhead_ns = case.manifest.ceilings.node_overhead_ns or 0.0
    issued = float((~casts["replayed"]).sum()) / found.calls
    host_ns = min(issued * overhead_ns, float(pieces.idle))
    if device_ns + host_ns < LEAST_SHARE * case.latency_ns:
        return
    said = (
        f"{len(evidence)} casts between half precision and float32 take {device_ns / 1e3:.3g} µs of the device a call, "
        f"and up to {host_ns / 1e3:.3g} µs of the host while the device waits."
    )
    yield Finding.of(
        RULE, said, "Let neighbours of a cast run in half precision too, and feed and read half precision where the "
        "caller can.", evidence.sort_values("time_ns", ascending=False),
        saves_ns=min(device_ns + host_ns, case.latency_ns),
    )  # fmt: skip
