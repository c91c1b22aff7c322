"""Which call of the model each event of an ONNX Runtime profile belongs to, several threads calling at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from workbench.runs.calls import OUTSIDE, assign_calls

_Int64s = NDArray[np.int64]


def calls_of_events(
    times: _Int64s,
    sessions: NDArray[np.int32],
    threads: _Int64s,
    runs: tuple[_Int64s, _Int64s, NDArray[np.int32], _Int64s],
) -> NDArray[np.int32]:
    """Index of the run that holds each event's start, or `OUTSIDE`: int32[events].

    times, sessions, threads: of the events. runs: starts (ascending), ends, sessions and threads of the runs; an
    interval is closed at both ends. An event belongs to the run on its own thread; on a thread without runs of its own
    (the workers of a parallel executor), to the only run of its session at that time. The runs of one thread follow one
    another.
    """
    starts, ends, run_sessions, run_threads = runs
    calls = np.full(len(times), OUTSIDE, np.int32)
    for session in np.unique(run_sessions):
        rows, of_session = np.flatnonzero(sessions == session), np.flatnonzero(run_sessions == session)
        callers = np.unique(run_threads[of_session])
        for caller in callers:
            mine, own = rows[threads[rows] == caller], of_session[run_threads[of_session] == caller]
            inside = assign_calls(times[mine], starts[own], ends[own])
            calls[mine] = np.where(inside == OUTSIDE, OUTSIDE, own[inside])
        workers = rows[~np.isin(threads[rows], callers)]
        calls[workers] = _only_holder(times[workers], starts[of_session], ends[of_session], of_session)
    return calls


def _only_holder(times: _Int64s, starts: _Int64s, ends: _Int64s, ids: _Int64s) -> _Int64s:
    """The id of the closed interval that holds each moment, `OUTSIDE` when none or several do. starts ascend.

    Of the intervals begun by a moment, those ended before it are taken off, in number and in the sum of their ids: of
    one interval left, the sum is its id.
    """
    by_end = np.argsort(ends, kind="stable")
    begun = np.searchsorted(starts, times, side="right")
    ended = np.searchsorted(ends[by_end], times, side="left")
    begun_ids, ended_ids = (np.concatenate([[0], np.cumsum(order)]) for order in (ids, ids[by_end]))
    return np.where(begun - ended == 1, begun_ids[begun] - ended_ids[ended], OUTSIDE)
