"""Reads ONNX Runtime's profiler JSON into the tables `nodes` and `session_events`.

The profile counts whole microseconds from its start; `InferenceSession.get_profiling_start_time_ns()` places that on
the Unix epoch. Numbers inside `args` are strings, keys come in any order, and an event is written when it ends, so
the `model_run` of a call follows its nodes. The profiler keeps the first 1,000,000 events, drops the others and says
how many in a last event `profile_truncated`.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workbench.errors import SourceError
from workbench.runs.calls import OUTSIDE
from workbench.runs.json_events import EventFile, plain_text
from workbench.runs.ort_calls import calls_of_events

RUN_EVENT: Final = "model_run"
TRUNCATED_EVENT: Final = "profile_truncated"
_INITIALIZED_EVENT: Final = "session_initialization"
_LOADING_PREFIX: Final = "model_loading_"
_NODE_SUFFIX: Final = "_kernel_time"
_MAX_MICROSECONDS: Final = 1 << 50
"""35 years; in nanoseconds, on the epoch and with a duration added it still fits an int64."""
_INT64: Final = 1 << 63
_FILE_TIME: Final = re.compile(r"_(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:_\d{3})?\.json$")
_US: Final = 1000

_NODE_NUMBERS: Final = {
    "node_index": "node_index",
    "activation_bytes": "activation_size",
    "parameter_bytes": "parameter_size",
    "output_bytes": "output_size",
}
_NODE_SHAPES: Final = {"input_shapes": "input_type_shape", "output_shapes": "output_type_shape"}
_NODE_ARGS: Final = {"op_type": "op_name", "provider": "provider", **_NODE_NUMBERS, **_NODE_SHAPES}
"""Column of the table `nodes` and key of `args`."""

_Int64s = NDArray[np.int64]
_Facts = tuple[str | int | None, ...]


def read_ort_profile(path: Path, start_ns: int) -> dict[str, pa.Table]:
    """Tables `nodes` and `session_events` of a whole profile, without `pass`; times are `start_ns` later.

    Raises `SourceError` on a file that is cut or holds a damaged record; `OrtProfile` reads what such a file has left.
    """
    return whole_profile(path).tables(start_ns)


def whole_profile(path: Path) -> OrtProfile:
    """A profile that is neither cut nor damaged, though events may have been dropped; raises `SourceError`."""
    profile = OrtProfile(path)
    if profile.cut or profile.skipped:
        damage = "ends in the middle" if profile.cut else f"holds {profile.skipped} damaged records"
        raise SourceError(f"The ONNX Runtime profile {path.name} {damage}: record it again.")
    return profile


class OrtProfile:
    """A profile as far as its file goes; raises `SourceError` when it holds no event of the profiler at all.

    Events are kept as 32 bytes each, tables are made from them on request. An event belongs to the `model_run` that
    holds its start: on its own thread, or, for a thread that makes no calls of its own (the workers of a parallel
    executor), to the only one at that time; else its `call` is -1. So the nodes of a call that the end of a cut or
    truncated file left without its `model_run` have call -1, and only whole calls are numbered.

    cut: the file ends before its JSON does (a crash, a full disk). skipped: records that are no events of the profiler.
    truncated: the profiler dropped events at its limit. dropped_events: how many, None when it does not say.
    processes: system process ids.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.truncated = False
        self.dropped_events: int | None = None
        self.processes: set[int] = set()
        self._nodes, self._events = _Columns(_freeze_node), _Columns(_freeze_session_event)
        self._sessions = _SessionCounter()
        file = EventFile(path)
        refused = 0
        for batch in file:
            for event in batch:
                refused += not self._take(event)
        self.cut = file.cut
        self.skipped = file.skipped + refused
        if not len(self._events) + len(self._nodes):
            raise SourceError(f"{path.name} holds no events of the ONNX Runtime profiler: record it again.")

    @property
    def sessions(self) -> int:
        """Sessions that were loaded in this file; a file without the beginning of any has one."""
        return self._sessions.current + 1

    @property
    def loss(self) -> str | None:
        """What the profiler dropped, in a sentence; None where it kept everything."""
        if not self.truncated:
            return None
        count = "an unknown number of" if self.dropped_events is None else f"{self.dropped_events:,}"
        return f"{self.path.name}: the profiler dropped {count} events at its limit, so that later calls are missing."

    @property
    def threads(self) -> list[int]:
        """System ids of the threads that made calls or executed nodes, ascending."""
        return sorted({*self._nodes.thread, *self._events.thread})

    @property
    def calls(self) -> int:
        """Whole calls, those with a `model_run`."""
        return len(self._runs)

    @cached_property
    def nodes_outside_calls(self) -> int:
        """Nodes of no whole call, as at the end of a cut or truncated file."""
        return int((self._node_calls == OUTSIDE).sum())

    @property
    def file_time_hint(self) -> datetime | None:
        """When the profile was started as its file's name says: local time of an unknown zone."""
        found = _FILE_TIME.search(self.path.name)
        try:
            return datetime.strptime(found[1], "%Y-%m-%d_%H-%M-%S") if found else None
        except ValueError:
            return None

    def tables(self, start_ns: int = 0) -> dict[str, pa.Table]:
        """Tables `nodes` and `session_events` without `pass`, in the order of the file; times are `start_ns` later."""
        return {name: pa.concat_tables(self.batches(name, start_ns)) for name in ("nodes", "session_events")}

    def batches(self, name: str, start_ns: int = 0, rows: int = 1 << 17) -> Iterator[pa.Table]:
        """The table `name` in parts of at most `rows` rows, at least one; all have the same dictionaries."""
        is_nodes = name == "nodes"
        columns, calls = (self._nodes, self._node_calls) if is_nodes else (self._events, self._event_calls)
        facts = columns.fact_columns(["name", *_NODE_ARGS] if is_nodes else ["name"])
        for first in range(0, max(len(columns), 1), rows):
            part = slice(first, first + rows)
            fact = pa.array(columns.of("fact")[part])
            table = {
                "session": columns.of("session")[part],
                "call": calls[part],
                "thread": columns.of("thread")[part],
                "start_ns": columns.of("ts")[part] * _US + start_ns,
                "duration_ns": columns.of("dur")[part] * _US,
                **{key: values.take(fact) for key, values in facts.items()},
            }
            yield pa.table(table)

    def _take(self, event: dict[str, Any]) -> bool:
        """Keep what the tables need; False when it is no event of the profiler."""
        name, ts, dur, thread = event.get("name"), event.get("ts"), event.get("dur"), event.get("tid")
        if not (type(name) is str and type(ts) is type(dur) is type(thread) is int):
            return False
        if not (0 <= ts < _MAX_MICROSECONDS and 0 <= dur < _MAX_MICROSECONDS and -_INT64 <= thread < _INT64):
            return False
        if type(event.get("pid")) is int:
            self.processes.add(event["pid"])
        category, args = event.get("cat"), event.get("args")
        get = args.get if type(args) is dict else {}.get
        if category == "Node" and name.endswith(_NODE_SUFFIX):
            raw = tuple([get(key) for key in _NODE_ARGS.values()])
            return self._nodes.append(self._sessions.current, thread, ts, dur, name, raw)
        if category == "Session" and name == TRUNCATED_EVENT:
            self.truncated = True
            self.dropped_events = _int64(get("dropped_event_count"))
            return True
        if category == "Session":
            self._sessions.see(name)
            return self._events.append(self._sessions.current, thread, ts, dur, name, ())
        # fences around nodes, in versions before 1.15; device work, in builds that trace with CUPTI
        return category in ("Node", "Kernel", "Api")

    @cached_property
    def _runs(self) -> _Int64s:
        """Rows of the session events that are calls, in order of their start."""
        is_run = np.array([facts[0] == RUN_EVENT for facts in self._events.facts], bool)
        rows = np.flatnonzero(is_run[self._events.of("fact")])
        return rows[np.argsort(self._events.of("ts")[rows], kind="stable")]

    @cached_property
    def _node_calls(self) -> NDArray[np.int32]:
        return self._calls_of(self._nodes)

    @cached_property
    def _event_calls(self) -> NDArray[np.int32]:
        return self._calls_of(self._events)

    def _calls_of(self, events: _Columns) -> NDArray[np.int32]:
        # what starts in the last microsecond of a call still belongs to it
        session, thread, ts, dur = (self._events.of(name)[self._runs] for name in ("session", "thread", "ts", "dur"))
        runs = ts, ts + dur, session, thread
        return calls_of_events(events.of("ts"), events.of("session"), events.of("thread"), runs)


class _SessionCounter:
    """Which session an event of the file belongs to: loading a model begins a new one."""

    def __init__(self) -> None:
        self.current = 0
        self._begun = False
        self._initialized = False

    def see(self, name: str) -> None:
        loading, initialized = name.startswith(_LOADING_PREFIX), name == _INITIALIZED_EVENT
        if (loading and self._begun) or (initialized and self._initialized):
            self.current += 1
            self._initialized = False
        self._begun = True
        self._initialized = self._initialized or initialized


class _Columns:
    """Events as arrays; what repeats with every call of the model is kept once, in `facts`.

    freeze: makes hashable, checked facts of an event's name and `args` as the file holds them, or None.
    """

    def __init__(self, freeze: Callable[[str, tuple[Any, ...]], _Facts | None]) -> None:
        self.session, self.fact = array("i"), array("i")
        self.thread, self.ts, self.dur = array("q"), array("q"), array("q")
        self.facts: dict[_Facts, int] = {}
        self._freeze = freeze
        self._last: dict[str, tuple[tuple[Any, ...], int]] = {}

    def __len__(self) -> int:
        return len(self.ts)

    def append(self, session: int, thread: int, ts: int, dur: int, name: str, raw: tuple[Any, ...]) -> bool:
        """Keep an event; False when its facts are damaged."""
        last = self._last.get(name)
        if last is None or last[0] != raw:  # comparing is much quicker than freezing, and most calls are alike
            facts = self._freeze(name, raw)
            if facts is None:
                return False
            last = self._last[name] = raw, self.facts.setdefault(facts, len(self.facts))
        self.session.append(session)
        self.thread.append(thread)
        self.ts.append(ts)
        self.dur.append(dur)
        self.fact.append(last[1])
        return True

    def of(self, name: str) -> NDArray[Any]:
        """One of the arrays: int32[events] of `session` and `fact`, int64[events] of the others."""
        values: array[int] = getattr(self, name)
        return np.frombuffer(values, np.dtype(values.typecode)) if values else np.zeros(0, values.typecode)

    def fact_columns(self, names: Sequence[str]) -> dict[str, pa.Array]:
        """The facts by column, text dictionary-encoded, int64 numbers as they are."""
        columns = zip(*self.facts, strict=True) if self.facts else ((),) * len(names)
        kinds = (pa.int64() if name in _NODE_NUMBERS else pa.dictionary(pa.int32(), pa.string()) for name in names)
        return {name: pa.array(c, kind) for name, c, kind in zip(names, columns, kinds, strict=True)}


def _freeze_session_event(name: str, raw: tuple[Any, ...]) -> _Facts:
    return (plain_text(name),)


def _freeze_node(name: str, raw: tuple[Any, ...]) -> _Facts | None:
    words, numbers, shapes = raw[:2], raw[2 : -len(_NODE_SHAPES)], raw[-len(_NODE_SHAPES) :]
    if not all(word is None or type(word) is str for word in words) or not all(map(_is_shapes, shapes)):
        return None
    sizes = [_int64(number) for number in numbers]
    if any(size is None and number not in (None, "") for size, number in zip(sizes, numbers, strict=True)):
        return None
    return (
        plain_text(name.removesuffix(_NODE_SUFFIX)),
        *(word if word is None else plain_text(word) for word in words),
        *sizes,
        *(None if shape is None else json.dumps(shape) for shape in shapes),
    )


def _int64(text: Any) -> int | None:
    """A number that the profiler wrote as text; None when it is none, or beyond an int64."""
    try:
        value = int(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if -_INT64 <= value < _INT64 else None


def _is_shapes(value: Any) -> bool:
    """Whether it is absent, or a list of {dtype: dimensions} as the profiler writes it."""
    return value is None or (
        type(value) is list
        and all(type(entry) is dict for entry in value)
        and all(type(dims) is list and all(type(d) is int for d in dims) for e in value for dims in e.values())
    )
