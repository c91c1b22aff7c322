"""Finds where an ONNX Runtime profile lies on the clock of a trace of the same process.

A profile counts microseconds from an instant it does not tell; a trace (Nsight Systems) has the host calls that
launched kernels, on the epoch. Kernels are launched from inside of the nodes, so the true offset puts every launch of
a call into a node, and a launch into every node that launches. Calls repeat, so an offset that is wrong by whole calls
fits nearly as well: it is told by the jitter between calls alone, and where that is too small the join is refused.

Accuracy: the profile truncates starts and durations to whole microseconds, so no join can be better than 1 µs; what
the launches leave open beyond that is `residual_ns`. One offset serves the whole trace, so clocks that drift against
each other by more than the slack of a node are refused, not corrected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

GPU_PROVIDERS: Final = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")
MIN_LAUNCHES: Final = 50
"""Fewer nodes or launches than this fit a wrong offset by chance too easily."""
MIN_FIT: Final = 0.95
"""What the true offset reaches: 1.0 in recorded runs, less where a cold call launches otherwise than the others."""
MIN_RUNNER_UP_MISSES: Final = 0.02
MISSES_RATIO: Final = 4
"""What every other offset must miss, in all and for each miss of the best one; a shift by one node of 300 alike, in the
most regular runs recorded, misses 0.04 where the true offset misses none."""
MIN_EVIDENCE: Final = 0.1
"""Share of the nodes held at the best offset that another one must hold to be compared: few fit anywhere by chance."""

_TRUNCATED_NS: Final = 2000
"""The true end of a node lies up to this behind start + duration, both of which are rounded down to 1 µs."""
_MAX_BINS: Final = 1 << 20
_MIN_BIN_NS: Final = 2000
_MAX_SPAN_NS: Final = 86_400 * 10**9
_CANDIDATES: Final = 64
_SAMPLE: Final = 20_000
"""Launches, evenly spread, that candidates are compared by; a share of so many is known to better than 0.01."""
_AS_WELL: Final = 0.995
"""Offsets fit equally well from this part of the most launches in nodes: one from outside of the profile may lie in a
node by chance and would tip the balance."""

_INT64_MAX: Final = np.iinfo(np.int64).max
_Int64s = NDArray[np.int64]


@dataclass(frozen=True)
class ClockJoin:
    """Where the profile begins on the trace's clock, or why that cannot be told.

    offset_ns: to be added to the profile's times, None when refused. residual_ns: how far it could move to either side
    and fit as well. inside: share of the launches made during calls that lie in a node. held: share of the launching
    nodes, between the first and the last launch, that hold one. runner_up: the product of both at the best other
    offset, None when there is none. reason: of a refusal, one sentence.
    """

    offset_ns: int | None
    residual_ns: int | None = None
    inside: float | None = None
    held: float | None = None
    runner_up: float | None = None
    reason: str = ""


def join_clocks(nodes: pa.Table, runs: pa.Table, launches: pa.Table) -> ClockJoin:
    """The offset from the profile's clock to the clock of the launches.

    nodes: start_ns, duration_ns, thread, name, provider. runs: start_ns, duration_ns of the calls (`model_run`).
    launches: start_ns, end_ns, thread, name of the host calls into CUDA of the same process. Threads are told apart
    where both sides know the same ones: both give the system's thread id on Linux, but a profile may be from elsewhere.
    """
    nodes = nodes.filter(pc.is_in(pc.cast(nodes["provider"], pa.string()), pa.array(GPU_PROVIDERS)))
    names = pc.cast(launches["name"], pa.string())
    of_kernel = pc.and_(pc.match_substring(names, "Launch"), pc.invert(pc.match_substring(names, "Graph")))
    launches = launches.filter(of_kernel)
    if min(len(nodes), len(launches)) < MIN_LAUNCHES or not len(runs):
        counted = f"{len(nodes)} GPU nodes in {len(runs)} calls and {len(launches)} kernel launches"
        return ClockJoin(
            None, reason=f"The clocks are not joined, because {counted} are too few (at least {MIN_LAUNCHES} of each)."
        )
    fit = _Fit(nodes, runs, launches)
    if fit.span_ns > _MAX_SPAN_NS:
        return ClockJoin(None, reason="The clocks are not joined, because the files span more than a day.")
    tried = [fit.refined(offset, 2 * fit.bin_ns) for offset in fit.coarse_offsets()]
    best = max(tried, key=lambda t: t.nodes_held)
    for _ in range(2):  # the first may only touch the range, the second then has all of it around its middle
        best = fit.refined(best.offset, 2 * (fit.bin_ns + fit.node_ns))
    return _judged(fit, best, tried)


def _judged(fit: _Fit, best: _Tried, tried: list[_Tried]) -> ClockJoin:
    launching = fit.launching_nodes(best.offset)
    inside, held = fit.shares(best.offset, launching)
    misses = 1 - inside * held
    others = [
        float(np.prod(fit.shares(other.offset, launching)))
        for other in tried
        if other.nodes_held >= MIN_EVIDENCE * best.nodes_held and not fit.agrees(other.offset, best.offset)
    ]
    runner_up = max(others, default=None)
    reason = ""
    if min(inside, held) < MIN_FIT:
        reason = (
            f"The clocks are not joined, because at the best offset {inside:.0%} of the launches lie in a node and "
            f"{held:.0%} of the launching nodes hold one: the files may be of different runs."
        )
    elif runner_up is not None and 1 - runner_up < max(MIN_RUNNER_UP_MISSES, MISSES_RATIO * misses):
        reason = (
            "The clocks are not joined, because the calls repeat so regularly that another offset fits nearly as well "
            f"({runner_up:.1%}, the best {1 - misses:.1%})."
        )
    if reason:
        return ClockJoin(None, None, inside, held, runner_up, reason)
    return ClockJoin(fit.base_ns + best.offset, best.slack - best.slack // 2, inside, held, runner_up)


@dataclass(frozen=True)
class _Tried:
    """An offset in the middle of the range `slack` over which as many launches lie in nodes."""

    offset: int
    slack: int
    nodes_held: int


class _Fit:
    """Nodes and launches as disjoint intervals on one axis: every thread is a stretch of it, one search serves all."""

    def __init__(self, nodes: pa.Table, runs: pa.Table, launches: pa.Table) -> None:
        node_lanes, launch_lanes = _lanes(
            *(pc.fill_null(table["thread"], -1).to_numpy() for table in (nodes, launches))
        )
        starts, calls = nodes["start_ns"].to_numpy(), launches["start_ns"].to_numpy()
        durations = nodes["duration_ns"].to_numpy()
        returns = np.maximum(launches["end_ns"].to_numpy(), calls)
        self.base_ns = int(calls.min() - starts.min())
        runs_at = runs["start_ns"].to_numpy() - starts.min()
        starts, calls, returns = starts - starts.min(), calls - calls.min(), returns - calls.min()
        self.span_ns = int(max((starts + durations).max(), returns.max())) + 1
        self.node_ns = int(np.median(durations))
        self.bin_ns = max(_MIN_BIN_NS, -(-self.span_ns // _MAX_BINS))
        self._launch_times = calls
        self._sample = slice(None, None, -(-len(calls) // _SAMPLE))
        lane_ns = 4 * self.span_ns  # no offset at which the two overlap leads from one lane into the next
        order = np.lexsort((starts, node_lanes))
        starts, ends, names = (a[order] for a in (starts, starts + durations, _codes(nodes["name"])))
        lane = node_lanes[order] * lane_ns
        # control flow nodes hold the nodes of their branches, which are the ones that launch
        leaf = np.append(starts[1:] + lane[1:] >= (ends + lane)[:-1], True)
        self._node_times, self._node_lengths, self._names = starts[leaf], (ends - starts)[leaf], names[leaf]
        self._starts = (starts + lane)[leaf]
        next_starts = np.append(self._starts[1:] + _TRUNCATED_NS // 2, _INT64_MAX)
        self._ends = np.minimum((ends + lane)[leaf] + _TRUNCATED_NS, next_starts)
        self._calls, self._returns = calls + launch_lanes * lane_ns, returns + launch_lanes * lane_ns
        self._run_starts, self._run_ends = _merged(runs_at, runs_at + runs["duration_ns"].to_numpy() + _TRUNCATED_NS)

    def coarse_offsets(self) -> list[int]:
        """The best offsets by the cross-correlation of binned launches with binned nodes, a bin apart or more.

        Every node weighs the same however long it is: a cold call has nodes that could swallow a whole trace.
        """
        bins = self.span_ns // self.bin_ns + 2
        launches, nodes = np.zeros(bins), np.zeros(bins + 1)
        launches[self._launch_times // self.bin_ns] = 1
        first, last = self._node_times // self.bin_ns, (self._node_times + self._node_lengths) // self.bin_ns + 1
        weight = 1 / (last - first)
        np.add.at(nodes, first, weight)
        np.add.at(nodes, last, -weight)
        size = 1 << int(2 * bins - 1).bit_length()
        spectrum = np.fft.rfft(launches, size) * np.conj(np.fft.rfft(np.cumsum(nodes)[:bins], size))
        score = np.fft.irfft(spectrum, size)
        apart = max(2, self.node_ns // self.bin_ns)
        offsets = []
        for _ in range(_CANDIDATES):
            peak = int(score.argmax())
            offsets.append((peak if peak < size // 2 else peak - size) * self.bin_ns)
            score[np.arange(peak - apart, peak + apart + 1) % size] = -np.inf
        return offsets

    def refined(self, near_ns: int, reach_ns: int) -> _Tried:
        """The widest range of offsets within reach at which most launches lie in a node, and its middle."""
        low, high = near_ns - reach_ns, near_ns + reach_ns
        calls, returns = self._calls[self._sample], self._returns[self._sample]
        first = np.searchsorted(self._ends, returns - high)
        counts = np.maximum(np.searchsorted(self._starts, calls - low, side="right") - first, 0)
        launch = np.repeat(np.arange(len(counts)), counts)
        node = np.arange(len(launch)) + np.repeat(first - np.cumsum(counts) + counts, counts)
        # a launch lies in a node from the offset at which it returns in it to the offset at which it is called in it
        since = np.maximum(returns[launch] - self._ends[node], low)
        until = np.minimum(calls[launch] - self._starts[node], high)
        fits = since <= until
        moments = np.concatenate([since[fits], until[fits] + 1])
        steps = np.repeat([1, -1], fits.sum())
        order = np.argsort(moments, kind="stable")
        moments, inside = moments[order], np.cumsum(steps[order])
        last = np.append(moments[1:] != moments[:-1], True)[: len(moments)]
        moments, inside = moments[last], inside[last]
        if not len(moments):
            return _Tried(near_ns, 0, 0)
        well = np.concatenate([[False], inside >= _AS_WELL * inside.max(), [False]])
        begins, ends = np.flatnonzero(well[1:] & ~well[:-1]), np.flatnonzero(well[:-1] & ~well[1:])
        widths = moments[ends] - 1 - moments[begins]
        at = int(widths.argmax())
        offset = int(moments[begins[at]] + widths[at] // 2)
        return _Tried(offset, int(widths[at]), len(np.unique(self._node_of_launch(offset)[self._sample])))

    def agrees(self, offset_ns: int, best_ns: int) -> bool:
        """Whether an offset leaves most of the launches in the nodes that the best one puts them into."""
        best = self._node_of_launch(best_ns)
        stay = (self._node_of_launch(offset_ns) == best)[best >= 0]
        return 2 * int(stay.sum()) > len(stay)

    def launching_nodes(self, offset_ns: int) -> NDArray[np.bool_]:
        """Whether each node is one of those that launch, told by its name: most executions hold a launch."""
        held, within = self._held(offset_ns)
        launching = 2 * np.bincount(self._names, held & within) > np.bincount(self._names, within)
        of_node: NDArray[np.bool_] = launching[self._names]
        return of_node

    def shares(self, offset_ns: int, launching: NDArray[np.bool_]) -> tuple[float, float]:
        """Of the launches made during calls those in a node; of the launching nodes those that hold a launch."""
        times = self._launch_times - offset_ns
        at = np.searchsorted(self._run_starts, times, side="right") - 1
        during = (at >= 0) & (times <= self._run_ends[np.maximum(at, 0)])
        in_node = int((self._node_of_launch(offset_ns) >= 0).sum())
        held, within = self._held(offset_ns)
        expected = int((launching & within).sum())
        return in_node / max(int(during.sum()), in_node, 1), int((launching & held & within).sum()) / max(expected, 1)

    def _node_of_launch(self, offset_ns: int) -> _Int64s:
        """The node that each launch lies in, -1 outside: int64[launches]."""
        node = np.searchsorted(self._starts, self._calls - offset_ns, side="right") - 1
        return np.where((node >= 0) & (self._returns - offset_ns <= self._ends[node]), node, -1)

    def _held(self, offset_ns: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether each node holds a launch, and whether it lies between the first launch and the last."""
        held = np.zeros(len(self._starts), bool)
        node = self._node_of_launch(offset_ns)
        held[node[node >= 0]] = True
        first, last = self._launch_times.min() - offset_ns, self._launch_times.max() - offset_ns
        within = (self._node_times + self._node_lengths >= first) & (self._node_times <= last)
        return held, within


def _lanes(node_threads: _Int64s, launch_threads: _Int64s) -> tuple[_Int64s, _Int64s]:
    """A small number for each thread; 0 for all where the two sides do not know the same threads."""
    threads = np.unique(node_threads)
    if not np.isin(threads, launch_threads).all():
        return np.zeros(len(node_threads), np.int64), np.zeros(len(launch_threads), np.int64)
    # launches of threads that execute no nodes get a lane behind the others
    launch_lanes = np.where(np.isin(launch_threads, threads), np.searchsorted(threads, launch_threads), len(threads))
    return np.searchsorted(threads, node_threads), launch_lanes


def _codes(names: pa.ChunkedArray) -> _Int64s:
    codes: _Int64s = np.unique(names.to_numpy(zero_copy_only=False).astype(str), return_inverse=True)[1]
    return codes


def _merged(starts: _Int64s, ends: _Int64s) -> tuple[_Int64s, _Int64s]:
    """Disjoint intervals that cover the same time, ascending."""
    order = np.argsort(starts)
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    new = np.append(True, starts[1:] > ends[:-1])
    return starts[new], ends[np.append(np.flatnonzero(new)[1:] - 1, len(ends) - 1)]
