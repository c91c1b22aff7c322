"""What a synthetic export must show, worked out from its timeline by a sweep over moments, not by the package.

The sweep cuts time at every moment where anything begins or ends. Between two such moments nothing changes, so each
piece of time is work, an exposed copy, or idle for one cause, and the pieces are summed per call.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from benchmarks.synthetic_tables import EPOCH_NS, LAYER_NAMES, OP_NAMES, PROCESS
from benchmarks.synthetic_timeline import D2H, H2D, KERNEL, MEMSET, Int64, Timeline
from numpy.typing import NDArray

CALL_COLUMNS = (
    "wall_ns", "work_ns", "copy_ns", "exposed_copy_ns", "host_ns", "launch_latency_ns", "sync_ns", "queue_ns",
)  # fmt: skip


@dataclass
class Truth:
    """Counts, sums of nanoseconds per call, and what was launched in each range; times are on the session's clock.

    pairs: pieces of device work, each with the host call that launched it. calls: the columns of
    `workbench.analysis.device_work.call_times`, and queue_ns, the sum over kernels of their start less the start of
    their launch; one number for each call. ranges: by name, how many there are (`count`), how many kernels were
    launched directly in them (`kernels`), the sum of their durations (`kernel_ns`), and of the time that no kernel
    before them covers (`own_ns`).
    """

    epoch_ns: int = EPOCH_NS
    process: int = PROCESS
    kernels: int = 0
    memsets: int = 0
    copies: int = 0
    pairs: int = 0
    host_calls: int = 0
    nvtx_ranges: int = 1
    call_starts_ns: list[int] = field(default_factory=list)
    calls: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in CALL_COLUMNS})
    ranges: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def total(self) -> dict[str, int]:
        """The sums over all calls."""
        return {name: sum(values) for name, values in self.calls.items()}

    def add(self, part: Timeline) -> None:
        """Take in more calls."""
        count = len(part.kind)
        self.kernels += int((part.kind == KERNEL).sum())
        self.memsets += int((part.kind == MEMSET).sum())
        self.copies += int(((part.kind == H2D) | (part.kind == D2H)).sum())
        self.pairs += count
        self.host_calls += count + len(part.syncs.start)
        self.nvtx_ranges += sum(len(spans.start) for spans in (part.calls, part.layers, part.ops))
        self.call_starts_ns += part.calls.start.tolist()
        for name, values in sweep(part).items():
            self.calls[name] += values.tolist()
        self._attribute(part)

    def _attribute(self, part: Timeline) -> None:
        kernels = part.kind == KERNEL
        start, end, op = part.start[kernels], part.end[kernels], part.op[kernels]
        reached = np.concatenate((start[:1], np.maximum.accumulate(end)[:-1]))
        sums = {"kernels": np.ones_like(op), "kernel_ns": end - start}
        sums["own_ns"] = np.maximum(end - np.maximum(start, reached), 0)
        for names, spans in ((["run"], part.calls), (LAYER_NAMES, part.layers), (OP_NAMES, part.ops)):
            for row, count in zip(*np.unique(spans.id, return_counts=True), strict=True):
                self._add_to(names[row], {"count": int(count), **dict.fromkeys(sums, 0)})
        for row in np.unique(op):
            self._add_to(OP_NAMES[row], {name: int(values[op == row].sum()) for name, values in sums.items()})

    def _add_to(self, name: str, more: dict[str, int]) -> None:
        entry = self.ranges.setdefault(name, {})
        for key, value in more.items():
            entry[key] = entry.get(key, 0) + value

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps({**asdict(self), "total": self.total}, indent=1))

    @classmethod
    def read(cls, path: Path) -> Truth:
        """The truth that `write` left."""
        stored = json.loads(path.read_text())
        stored.pop("total")
        return cls(**stored)


def truth_path(export: Path) -> Path:
    """Where the truth of an export lies: beside it."""
    return export.with_suffix(".truth.json")


def sweep(part: Timeline) -> dict[str, Int64]:
    """The columns of `CALL_COLUMNS`: int64[calls] each."""
    calls, syncs = part.calls, part.syncs
    times = np.unique(
        np.concatenate((part.start, part.end, part.launch_start, syncs.start, syncs.end, calls.start, calls.end))
    )

    def covered(starts: Int64, ends: Int64) -> NDArray[np.bool_]:
        """Whether any of the intervals covers the time from each moment to the next."""
        changes = np.zeros(len(times), np.int64)
        np.add.at(changes, np.searchsorted(times, starts), 1)
        np.add.at(changes, np.searchsorted(times, ends), -1)
        return np.cumsum(changes) > 0

    on_device = part.kind <= MEMSET
    work = covered(part.start[on_device], part.end[on_device])
    copy = covered(part.start[~on_device], part.end[~on_device])
    blocked = covered(syncs.start, syncs.end)
    idle = ~work & ~copy & covered(calls.start, calls.end)

    # an idle moment belongs to the piece of work that begins next in its call, to the earliest launched of several
    order = np.lexsort((part.launch_start, part.start))
    following = np.searchsorted(part.start[order], times, side="right")
    call = np.searchsorted(calls.start, times, side="right") - 1
    exists = (following < len(order)) & (call >= 0)
    following = order[np.minimum(following, len(order) - 1)]
    exists &= part.call[following] == call
    launch = part.launch_start[following]
    begins_gap = idle & (np.append([True], ~idle[:-1]) | np.isin(times, calls.start))
    gap_begin = np.maximum.accumulate(np.where(begins_gap, times, times[0]))
    in_time = exists & (launch <= gap_begin)
    waits = blocked & (~exists | (times < launch))

    length = np.append(np.diff(times), 0)
    pieces = {
        "wall_ns": covered(calls.start, calls.end),
        "work_ns": work,
        "copy_ns": copy,
        "exposed_copy_ns": copy & ~work,
        "host_ns": idle & ~in_time & ~waits,
        "launch_latency_ns": idle & in_time,
        "sync_ns": idle & ~in_time & waits,
    }
    first = np.searchsorted(times, calls.start)
    columns = {name: np.add.reduceat(np.where(chosen, length, 0), first) for name, chosen in pieces.items()}
    kernels = part.kind == KERNEL
    queue = np.zeros(len(calls.start), np.int64)
    np.add.at(queue, part.call[kernels], (part.start - part.launch_start)[kernels])
    return {**columns, "queue_ns": queue}
