"""The verdict and its arithmetic in words and numbers: what the page and the terminal both say."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from workbench.analysis.thresholds import CONFIDENCE_DRAWS
from workbench.diagnosis.result import Diagnosis
from workbench.diagnosis.shares import SHARES, Pieces
from workbench.diagnosis.verdict import INCONCLUSIVE
from workbench.figures.classes import COLOURS, label
from workbench.figures.units import UNKNOWN, format_ns, format_percent
from workbench.report.redact import without_folders
from workbench.runs.manifest import WHOLE_WINDOW, Manifest

NOT_APPLICABLE: Final = "not applicable"
NOT_KNOWN: Final = "not known"
_SUB_CAUSES: Final = {
    "host": "mostly the host: launches come after the previous work has ended",
    "launch latency": "mostly launch latency: work is launched in time and starts late",
    "under-filled": "mostly under-filled kernels: too small or too short to fill the GPU",
}


class Card(NamedTuple):
    """The verdict: its name and colour, the sub-cause, the reason and the confidence as sentences."""

    name: str
    colour: str
    sub_cause: str
    reason: str
    confidence: str


class Share(NamedTuple):
    """One class: colour, name, fraction (None: not applicable or not known), per cent and nanoseconds as text."""

    colour: str
    name: str
    fraction: float | None
    percent: str
    time_ns: str


class Line(NamedTuple):
    """One line of the arithmetic; depth 1 lines add up to the line of depth 0 above them. Times as text."""

    depth: int
    name: str
    used: str
    percent: str
    traced: str
    counts_as: str
    colour: str


def card(diagnosis: Diagnosis, manifest: Manifest) -> Card:
    """The verdict for people."""
    verdict, kind = diagnosis.verdict, manifest.device.kind
    if verdict.pair is not None:
        first, second = (label(name, kind) for name in verdict.pair)
        name, colour = f"{first} and {second} together", COLOURS[verdict.pair[0]]
    elif verdict.name in COLOURS:
        name, colour = label(verdict.name, kind), COLOURS[verdict.name]
    else:
        name, colour = verdict.name, COLOURS["other"]
    if diagnosis.pieces is not None:
        confidence = (
            f"The verdict holds in {format_percent(diagnosis.confidence)} of {CONFIDENCE_DRAWS:,} perturbed "
            "recomputations (not yet calibrated on labelled runs)."
        )
    elif diagnosis.confidence:
        confidence = f"Confidence {format_percent(diagnosis.confidence)}: an estimate, of which no trace says more."
    else:
        confidence = "No confidence can be given: there is nothing to recompute from."
    return Card(
        name=name,
        colour=colour,
        sub_cause=_SUB_CAUSES.get(diagnosis.sub_cause or "", ""),
        reason=_named(without_folders(verdict.reason), kind),
        confidence=confidence,
    )


def shares(diagnosis: Diagnosis, device_kind: str) -> list[Share]:
    """Every class with its share; on a CPU those that need a GPU are not applicable."""

    def unmeasured(name: str) -> str:
        return NOT_APPLICABLE if name in diagnosis.not_applicable else NOT_KNOWN

    return [
        Share(
            colour=COLOURS[name],
            name=label(name, device_kind),
            fraction=(fraction := diagnosis.shares[name]),
            percent=unmeasured(name) if fraction is None else format_percent(fraction),
            time_ns="" if fraction is None else f"{fraction * diagnosis.latency.median_ns:,.0f}",
        )
        for name in SHARES
    ]


def arithmetic(diagnosis: Diagnosis, device_kind: str) -> list[Line]:
    """T and what it is made of, in nanoseconds per call; empty when no pass recorded what a call did."""
    pieces, traced = diagnosis.pieces, diagnosis.traced
    if pieces is None:
        return []
    maker = _Lines(pieces.latency_ns, device_kind)
    work = pieces.compute + pieces.memory + pieces.under_filled + pieces.unknown
    limits = (
        ("limited by compute", pieces.compute, "compute"),
        ("limited by memory bandwidth", pieces.memory, "memory"),
        ("under-filled", pieces.under_filled, "launch"),
        ("limit unknown", pieces.unknown, "other"),
    )
    lines = [maker.line(0, f"T, the {_attached(diagnosis)} median", pieces.latency_ns, traced.get("wall_ns"))]
    if device_kind == "cpu":
        lines.append(maker.line(0, "Nodes", work, traced.get("node_ns")))
        lines += [maker.line(1, name, value, None, owner) for name, value, owner in limits if owner != "launch"]
        lines.append(maker.line(0, "Between the nodes: T − nodes", pieces.host, None, "launch"))
        return lines
    causes = ("host_ns", "launch_latency_ns", "sync_ns")
    idle = pieces.host + pieces.launch_latency + pieces.sync
    traced_idle = sum(traced[cause] for cause in causes)
    lines.append(maker.line(0, "Device work |K|", work, traced["work_ns"]))
    lines += [maker.line(1, name, value, None, owner) for name, value, owner in limits]
    exposed = "Exposed copies |X| = |C \\ K|"
    lines.append(maker.line(0, exposed, pieces.exposed_copies, traced["exposed_copy_ns"], "pcie"))
    lines.append(maker.line(0, "Idle T − |K ∪ C|", idle, traced_idle))
    lines.append(maker.line(1, "the host came late", pieces.host, traced["host_ns"], "launch"))
    lines.append(maker.line(1, "launch latency", pieces.launch_latency, traced["launch_latency_ns"], "launch"))
    lines.append(maker.line(1, "waiting in a synchronisation", pieces.sync, traced["sync_ns"], "sync"))
    return lines


def launch_sum(pieces: Pieces) -> str:
    """How the share `launch` of a GPU run adds up."""
    causes = pieces.launch_causes().values()
    parts = " + ".join(f"{cause:,.0f}" for cause in causes)
    return f"launch = the host came late + launch latency + under-filled = {parts} = {sum(causes):,.0f} ns"


def headline(diagnosis: Diagnosis, manifest: Manifest) -> str:
    """Verdict, latency and what was run, in one line."""
    name = card(diagnosis, manifest).name
    held = name if name == INCONCLUSIVE else f"held back by {name}"
    whole = manifest.imported is not None and manifest.imported.calls_marked_by == WHOLE_WINDOW
    callers = diagnosis.latency.callers
    time = f"{format_ns(diagnosis.latency.median_ns)} {'in all' if whole else 'a call'}"
    time += f" with {callers} in flight" if callers > 1 else ""
    return f"{manifest.model.name} on {manifest.device.name}: {held}, {time}"


def notes(diagnosis: Diagnosis) -> list[str]:
    """Everything that was noted about the run, each once."""
    return list(dict.fromkeys(without_folders(note) for note in diagnosis.notes))


class _Lines:
    def __init__(self, latency_ns: float, device_kind: str) -> None:
        self._latency_ns, self._kind = latency_ns, device_kind

    def line(
        self, depth: int, name: str, used_ns: float, traced_ns: float | None, counts_as: str | None = None
    ) -> Line:
        return Line(
            depth,
            name,
            used=f"{used_ns:,.0f}",
            percent=format_percent(used_ns / self._latency_ns),
            traced="" if traced_ns is None else f"{traced_ns:,.0f}",
            counts_as=label(counts_as, self._kind) if counts_as else "",
            colour=COLOURS[counts_as] if counts_as else "",
        )


def _named(reason: str, device_kind: str) -> str:
    """A reason with the class `launch` under the name that it has on this device."""
    return re.sub(r"\blaunch\b", label("launch", device_kind), reason)


def _attached(diagnosis: Diagnosis) -> str:
    """Whether T was measured with nothing attached."""
    return "traced" if diagnosis.latency.traced else "bare"


def interval(diagnosis: Diagnosis) -> str:
    """T with its interval and how it was measured."""
    bare = diagnosis.latency
    stopped_by = "the interval being narrow enough" if bare.stopped_by == "precise" else bare.stopped_by or UNKNOWN
    of = f"{bare.measured_calls:,} {_attached(diagnosis)} calls"
    together = f"the window of {of} with {bare.callers} in flight, per call,"
    measured = f"the median of {of}" if bare.callers == 1 else together
    return (
        f"T = {bare.median_ns:,.0f} ns, {measured} after "
        f"{bare.warmup_calls:,} for warm-up; 95 % interval {bare.ci_low_ns:,.0f} to {bare.ci_high_ns:,.0f} ns; "
        f"stopped by {stopped_by}."
    )
