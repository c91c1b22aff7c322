"""What a window of the timeline holds, in words and numbers: the shares as the verdict counts them, and their times."""

from __future__ import annotations

from workbench.analysis.window import WindowTimes
from workbench.diagnosis.result import Diagnosis
from workbench.diagnosis.shares import SHARES, Pieces
from workbench.figures.units import format_ns, format_percent
from workbench.widgets.base import block, missing_html, shares_html, table_html, text
from workbench.widgets.explore_trace import Traced

_NO_TRACE = "No pass recorded what happened inside the calls: profile again with the passes `nodes` or `activity`."


def gap_scale(shown: Traced, diagnosis: Diagnosis | None) -> float:
    """Idle time of an unprofiled call over that of a call of this pass: tracing stretches gaps and hardly the kernels.

    1 where either is not known.
    """
    if shown.trace is None or diagnosis is None or diagnosis.pieces is None:
        return 1.0
    whole = shown.trace.times(*shown.measured_ns)
    if not whole.idle_ns or not whole.calls:
        return 1.0
    return float(diagnosis.pieces.idle) / (whole.idle_ns / whole.calls)


def window_shares(times: WindowTimes, gaps: float, device_kind: str) -> dict[str, float | None] | None:
    """The shares of a window by the arithmetic of the verdict; None where no call reaches into it.

    gaps: by what idle time is multiplied, as `gap_scale` says.
    """
    if not times.wall_ns:
        return None
    limited = sum(times.limit_ns.values())
    part = {name: times.work_ns * own / limited if limited else 0.0 for name, own in times.limit_ns.items()}
    pieces = Pieces(
        latency_ns=times.work_ns + times.exposed_copy_ns + times.idle_ns * gaps,
        compute=part["compute"],
        memory=part["memory"],
        under_filled=part["under-filled"],
        unknown=part["unknown"] + (0.0 if limited else times.work_ns),
        exposed_copies=times.exposed_copy_ns,
        host=times.host_ns * gaps,
        launch_latency=times.launch_latency_ns * gaps,
        sync=times.sync_ns * gaps,
    )
    if not pieces.latency_ns:
        return None
    shares: dict[str, float | None] = pieces.shares()
    return {name: None if device_kind == "cpu" and name in ("pcie", "sync") else shares[name] for name in SHARES}


def summary_html(shown: Traced, window_ns: tuple[int, int], gaps: float) -> str:
    """The window in view: its shares as a bar, and what it is made of."""
    if shown.trace is None:
        return missing_html(_NO_TRACE)
    kind = shown.run.manifest.device.kind
    times = shown.trace.times(*window_ns)
    shares = window_shares(times, gaps, kind)
    length = window_ns[1] - window_ns[0]
    said = f"{format_ns(length)} in view, of which {format_ns(times.wall_ns)} inside {_calls(times.calls)}"
    if shares is None:
        return block(f'<h4>{text(said)}</h4><p class="quiet">No traced call reaches into this window.</p>')
    note = f"Pass {shown.pass_name}, with gaps × {gaps:.3g}, as long as without tracing. " if gaps != 1.0 else ""
    note = f'<p class="quiet">{text(note + shown.partly)}</p>' if note or shown.partly else ""
    head = ["traced time in calls", *(name for name, _ in _amounts(times, kind))]
    row = [
        format_ns(times.wall_ns),
        *(f"{_time(ns)} ({format_percent(ns / times.wall_ns)})" for _, ns in _amounts(times, kind)),
    ]
    numbers = table_html(head, [row], numbers=range(len(head)))
    return block(f"<h4>{text(said)}</h4>{shares_html(shares, kind)}{note}<div style='overflow-x:auto'>{numbers}</div>")


def _amounts(times: WindowTimes, kind: str) -> list[tuple[str, int]]:
    if kind == "cpu":
        return [("nodes", times.work_ns), ("between nodes", times.host_ns)]
    return [
        ("device work", times.work_ns),
        ("exposed copies", times.exposed_copy_ns),
        ("host came late", times.host_ns),
        ("launch latency", times.launch_latency_ns),
        ("synchronisation", times.sync_ns),
    ]


def _time(ns: int) -> str:
    return format_ns(ns)


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count:,} calls"
