"""Several calls in flight, and the device idles all the same, or they mostly wait for one another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from workbench.analysis.call_windows import connected
from workbench.analysis.tables import measured_calls
from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.passes import detailed_pass, timed_pass

RULE: Final = "concurrency-no-scaling"
IN_FLIGHT: Final = 1.5
"""Mean calls in flight from which on calls count as concurrent."""
LEAST_IDLE: Final = 0.25
"""Of T; a device that works three quarters of the time leaves little for more callers to fill."""
LEAST_WAITING: Final = 0.20
"""Of a call that it waits for the others, at least; below, the last caller adds much of what it could."""


def rule(case: Case) -> Iterator[Finding]:
    """T is the time per call at that concurrency, so that idle time is what the callers left unused."""
    callers, call_ns = in_flight(case, timed_pass(case.manifest))
    pieces = case.diagnosis.pieces
    if not case.on_gpu or callers < IN_FLIGHT or pieces is None:
        return
    config = case.config
    if pieces.idle >= LEAST_IDLE * case.latency_ns:
        causes = {"host": pieces.host, "launch latency": pieces.launch_latency, "sync": pieces.sync}
        said = (
            f"With {callers:.1f} calls in flight the device still idles {pieces.idle / 1e6:.3g} of "
            f"{case.latency_ns / 1e6:.3g} ms per call, most by {max(causes, key=causes.__getitem__)}."
        )
        yield Finding.of(
            RULE, said,
            "Give each caller a session of its own, which shares no lock of ONNX Runtime, or a process of its own.",
            pd.DataFrame({"cause": causes.keys(), "idle_ns": causes.values()}).sort_values("idle_ns", ascending=False),
            lever=f"sessions-{config.concurrency}" if config.concurrency > 1 and config.sessions == 1 else None,
            saves_ns=min(float(pieces.idle), case.latency_ns),
        )  # fmt: skip
        return
    alone, alone_ns = in_flight(case, detailed_pass(case.manifest))
    if not 0 < alone < IN_FLIGHT or alone_ns > (1.0 - LEAST_WAITING) * call_ns:
        return
    enough = math.ceil(alone_ns / case.latency_ns)
    said = (
        f"With {callers:.1f} calls in flight each takes {call_ns / 1e6:.3g} ms, and alone {alone_ns / 1e6:.3g} ms even "
        f"with a profiler attached: calls wait at least {100 * (1 - alone_ns / call_ns):.0f} % of their time for the "
        f"others, while the device works {100 * (1 - pieces.idle / case.latency_ns):.0f} % of it."
    )
    yield Finding.of(
        RULE, said,
        f"Take {enough} callers at most: more only make each call longer; for more throughput the device needs less "
        "work per item.",
        pd.DataFrame({"calls_in_flight": [callers, alone], "call_ns": [call_ns, alone_ns]}),
        lever=f"concurrency-{enough}" if 1 < enough < config.concurrency and config.sessions == 1 else None,
    )  # fmt: skip


def in_flight(case: Case, pass_name: str | None) -> tuple[float, float]:
    """Mean number of measured calls in flight while any was, and the median time of a call in ns; zeros for none."""
    calls = measured_calls(case.run, pass_name or "").sort_values("start_ns")
    if not len(calls):
        return 0.0, 0.0
    starts, durations = (calls[name].to_numpy(np.int64) for name in ("start_ns", "duration_ns"))
    windows, _ = connected(starts, starts + durations)
    return float(durations.sum() / max(windows.length_ns, 1)), float(np.median(durations))
