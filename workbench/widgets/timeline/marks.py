"""The marks of a window of the timeline as columns of numbers, with their classes and what is picked among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.intervals import Intervals, Nanoseconds, union
from workbench.analysis.level_lane import MERGED
from workbench.analysis.levels import Levels
from workbench.analysis.roofline import LIMITS
from workbench.analysis.window import PassTrace
from workbench.figures.classes import CLASS_OF_LIMIT, COLOURS, ON_COLOUR, label

KINDS: Final = (None, *COLOURS)
"""The classes by the code that marks carry; the first is that of marks without a class."""
_NO_CLASS: Final = {"label": "", "colour": "#8A8F98", "on": "#000000"}
_KIND_OF_LIMIT: Final = np.array([KINDS.index(CLASS_OF_LIMIT[limit]) for limit in LIMITS])
_LIT, _SINGLE = 1, 2
_SAME_START: Final = 4  # streams that are looked at for a kernel that begins at the same nanosecond
NODE_LANES: Final = "nodes"
DEVICE_LANES: Final = ("kernels", "copies", "memsets", "graph replays")

Flags = NDArray[np.bool_]


class Lit(NamedTuple):
    """What is picked or found: on the host, on the device, and which names elsewhere.

    The starts, ascending, tell a single mark from another one that only runs at the same time.
    """

    host: Intervals
    host_starts: Nanoseconds
    device: Intervals
    device_starts: Nanoseconds
    named: Callable[[str], bool]

    @classmethod
    def of(cls, trace: PassTrace, nodes: Flags, kernels: Flags, named: Callable[[str], bool]) -> Lit:
        """The work of nodes and kernels. nodes: bool[rows of `trace.nodes`], kernels: bool[rows of its rules]."""
        host, device, launched = trace.executions, trace.pieces, trace.kernels
        ran, worked = np.append(nodes, False)[host.node], np.append(nodes, False)[device.node]
        chosen = kernels[launched.name]
        starts = np.concatenate((device.starts[worked], launched.starts[chosen]))
        ends = np.concatenate((device.ends[worked], launched.ends[chosen]))
        executed = union(host.starts[ran], np.maximum(host.ends, host.starts + 1)[ran])
        return cls(executed, np.sort(host.starts[ran]), union(starts, ends), np.sort(starts), named)


class Cover(NamedTuple):
    """Disjoint ascending intervals with the length of all before each."""

    starts: Nanoseconds
    ends: Nanoseconds
    before: Nanoseconds

    @classmethod
    def of(cls, starts: Nanoseconds, ends: Nanoseconds) -> Cover:
        """From int64[n] edges."""
        return cls(starts, ends, np.concatenate(([0], np.cumsum(ends - starts))))

    def until(self, times: Nanoseconds) -> Nanoseconds:
        """How much of it lies before each moment."""
        at = np.searchsorted(self.starts, times, side="right")
        if not len(self.ends):
            return np.zeros_like(times)
        beyond = np.where(at > 0, np.maximum(self.ends[at - 1] - times, 0), 0)
        return self.before[at] - beyond


@dataclass(frozen=True)
class Columns:
    """Marks by lane, then by start, as the JavaScript reads them. names: the distinct ones."""

    names: list[str]
    buffers: list[bytes]


class MarkSource:
    """The marks of one pass: its levels of detail, and the classes that need its analysis where there is one."""

    def __init__(self, levels: Levels, trace: PassTrace | None, device_kind: str) -> None:
        self.levels, self.trace, self.device_kind = levels, trace, device_kind
        labels = [lane.label for lane in levels.lanes]
        self._of_nodes = np.array([name.startswith(NODE_LANES) for name in labels], np.bool_)
        self._of_kernels = np.array([name.startswith("kernels") for name in labels], np.bool_)
        self._of_device = np.array([name.startswith(DEVICE_LANES) for name in labels], np.bool_)
        self._covers = [] if trace is None else [_own_of_limit(trace, limit) for limit in range(len(LIMITS))]

    def kinds(self) -> list[dict[str, str]]:
        """Label, colour and the colour of text on it, of each class."""
        known = [
            {"label": label(name, self.device_kind), "colour": colour, "on": ON_COLOUR.get(name, "#000000")}
            for name, colour in COLOURS.items()
        ]
        return [_NO_CLASS, *known]

    def columns(self, start_ns: int, end_ns: int, pixels: int, lit: Lit | None) -> Columns:
        """The marks of [start_ns, end_ns). Times are counted from `levels.origin_ns`, which a float holds exactly."""
        marks = self.levels.window(start_ns, end_ns, pixels)
        codes, names = pd.factorize(marks["name"])
        lane = marks["lane"].to_numpy(np.int64)
        starts, ends = (marks[edge].to_numpy(np.int64) for edge in ("start_ns", "end_ns"))
        single = (marks["row"] != MERGED).to_numpy()
        inside = np.maximum(np.minimum(ends, end_ns) - np.maximum(starts, start_ns), 1)
        flags = np.where(single, _SINGLE, 0)
        if lit is not None:
            flags |= np.where(self._lit(lit, lane, starts, ends, single, codes, names), _LIT, 0)
        kind = self._kinds_of(marks, lane, starts, ends, single)
        columns: list[tuple[NDArray[Any], str]] = [
            (starts - self.levels.origin_ns, "<f8"),
            (ends - self.levels.origin_ns, "<f8"),
            (lane, "<u2"),
            (codes, "<i4"),
            (kind, "<u1"),
            (marks["count"].to_numpy(), "<i4"),
            (np.minimum(marks["busy_ns"].to_numpy() / inside, 1.0), "<f4"),
            (flags, "<u1"),
        ]
        return Columns([str(name) for name in names], [column.astype(kind).tobytes() for column, kind in columns])

    def _kinds_of(
        self, marks: pd.DataFrame, lane: NDArray[np.int64], starts: Nanoseconds, ends: Nanoseconds, single: Flags
    ) -> NDArray[np.int64]:
        kind = pd.Categorical(marks["class"], KINDS[1:]).codes.astype(np.int64) + 1
        if self.trace is None:
            return kind
        at = np.flatnonzero(self._of_nodes[lane])
        limits = dict(zip(self.trace.nodes["name"], self.trace.nodes["limit"], strict=True))
        found = marks["name"].iloc[at].map(limits).map({limit: code for code, limit in enumerate(LIMITS)})
        kind[at] = np.append(_KIND_OF_LIMIT, 0)[found.fillna(-1).to_numpy(np.int64)]
        at = np.flatnonzero(self._of_kernels[lane])
        held = np.stack([cover.until(ends[at]) - cover.until(starts[at]) for cover in self._covers])
        kind[at] = np.where(held.any(axis=0), _KIND_OF_LIMIT[held.argmax(axis=0)], kind[at])
        alone = at[single[at]]
        kind[alone] = self._kinds_of_kernels(starts[alone], ends[alone], kind[alone])
        return kind

    def _kinds_of_kernels(
        self, starts: Nanoseconds, ends: Nanoseconds, otherwise: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The class of single kernels, found by their times: another one may cover such a kernel whole."""
        assert self.trace is not None
        pieces, kind = self.trace.pieces, otherwise.copy()
        first = np.searchsorted(pieces.starts, starts)
        for step in range(_SAME_START):
            at = np.minimum(first + step, len(pieces.starts) - 1)
            same = (pieces.starts[at] == starts) & (pieces.ends[at] == ends) & (pieces.limit[at] >= 0)
            kind[same] = _KIND_OF_LIMIT[pieces.limit[at[same]]]
        return kind

    def _lit(
        self,
        lit: Lit,
        lane: NDArray[np.int64],
        starts: Nanoseconds,
        ends: Nanoseconds,
        single: Flags,
        codes: NDArray[np.int64],
        names: pd.Index,
    ) -> Flags:
        found = np.array([lit.named(str(name)) for name in names], np.bool_)[codes]
        sides = (self._of_nodes, lit.host, lit.host_starts), (self._of_device, lit.device, lit.device_starts)
        for lanes, cover, exact in sides:
            at = np.flatnonzero(lanes[lane])
            found[at] = np.where(single[at], _among(starts[at], exact), _reach(starts[at], ends[at], cover))
        return found


def _own_of_limit(trace: PassTrace, limit: int) -> Cover:
    mine = (trace.pieces.limit == limit) & (trace.pieces.ends > trace.pieces.own_starts)
    return Cover.of(trace.pieces.own_starts[mine], trace.pieces.ends[mine])


def _reach(starts: Nanoseconds, ends: Nanoseconds, cover: Intervals) -> Flags:
    """Whether each mark overlaps any of the intervals."""
    first = np.searchsorted(cover.ends, starts, side="right")
    after = np.searchsorted(cover.starts, np.maximum(ends, starts + 1), side="left")
    reached: Flags = first < after
    return reached


def _among(times: Nanoseconds, ascending: Nanoseconds) -> Flags:
    found: Flags = np.searchsorted(ascending, times, side="left") < np.searchsorted(ascending, times, side="right")
    return found
