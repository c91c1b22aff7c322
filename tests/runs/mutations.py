"""Captures damaged at random: each number gives one case, always the same, from real captures that were cut small."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from runs.mutated_exports import MARK, mutate_parquet, mutate_sqlite

from workbench.runs.imports import Selection

_NAMES = ("compute", "compute:measure", "run", "", "no such", "\0", MARK, "x" * 5000, "'; DROP TABLE ranges; --")
_NUMBERS = (0, 0, 0, 1, -1, 111, 654, 1661, 1 << 24, 1 << 40)


@dataclass(frozen=True)
class Case:
    """Files to import together, and the part that is wanted of them."""

    files: list[Path]
    selection: Selection


def make_case(number: int, seed: int, corpus: Path, folder: Path) -> Case:
    """Write the files of a case into `folder`, which is empty."""
    rng = Random(f"{seed}:{number}")
    kind = rng.choices(("sql", "nsight", "parquet", "json", "both", "strange"), (50, 14, 8, 20, 4, 4))[0]
    if kind == "strange":
        files = [_strange(folder / "strange", rng)]
    elif kind == "json":
        files = [_mutated_json(corpus, folder, rng)]
    elif kind == "parquet":
        files = [_mutated_folder(corpus, folder, rng)]
    else:
        seeds = sorted((corpus / "nsight").iterdir())
        source = rng.choice(seeds)
        export = folder / source.name
        shutil.copy(source, export)
        if kind == "nsight":
            export.write_bytes(damaged(export.read_bytes(), rng))
        elif kind == "sql" or rng.random() < 0.5:
            mutate_sqlite(export, rng)
        files = [export]
        if kind == "both":
            files.append(_profile_of(source.stem, corpus, folder, rng))
    return Case(files, _selection(rng))


def _profile_of(export: str, corpus: Path, folder: Path, rng: Random) -> Path:
    """A profile beside an export, whole or damaged; of the same process where there is one."""
    own = corpus / "profile" / f"{export.replace('nsight', 'ort_profile')}_0.json"
    if not own.exists() or rng.random() < 0.4:
        return _mutated_json(corpus, folder, rng)
    return Path(shutil.copy(own, folder))


def _selection(rng: Random) -> Selection:
    if rng.random() < 0.7:
        return Selection()
    first = rng.choice((0, 1, 3, 500, 999_999_999))
    options = {
        "range": rng.choice(_NAMES),
        "calls": (first, first + rng.choice((0, 2, 10**9))),
        "call_range": rng.choice(_NAMES),
        "process": rng.choice(_NUMBERS),
        "device": rng.choice(_NUMBERS),
    }
    chosen = rng.sample(sorted(options), rng.choice((1, 1, 1, 2, 5)))
    return Selection(**{name: options[name] for name in chosen})


def damaged(data: bytes, rng: Random) -> bytes:
    """Bytes flipped, cut off, put in, blanked or moved; often in the header, where a few bytes decide everything."""
    changed = bytearray(data)
    near = rng.choice((100, 4096, len(data), len(data))) or 1
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, length = rng.randrange(min(near, len(changed) + 1)), rng.choice((1, 4, 100, 4096))
        what = rng.choice(("flip", "flip", "flip", "cut", "put", "blank", "move", "wal"))
        if what == "flip":
            for _ in range(rng.choice((1, 1, 8, 200))):
                place = rng.randrange(min(near, len(changed)) or 1)
                changed[place : place + 1] = bytes([rng.randrange(256)])
        elif what == "cut":
            del changed[rng.choice((0, at, len(changed) // 2, len(changed) - 1)) :]
        elif what == "put":
            changed[at:at] = rng.randbytes(length)
        elif what == "blank":
            changed[at : at + length] = bytes(length)
        elif what == "move":
            other = rng.randrange(len(changed) + 1)
            changed[at : at + length] = changed[other : other + length]
        else:
            changed[18:20] = b"\2\2"  # the header of a database in WAL mode
    return bytes(changed)


def _mutated_folder(corpus: Path, folder: Path, rng: Random) -> Path:
    source = rng.choice(sorted((corpus / "parquet").iterdir()))
    export = folder / source.name
    shutil.copytree(source, export)
    if rng.random() < 0.6:
        mutate_parquet(export, rng)
    else:
        file = rng.choice(sorted(export.iterdir()))
        file.write_bytes(damaged(file.read_bytes(), rng))
    return export


def _strange(file: Path, rng: Random) -> Path:
    """What is no capture at all."""
    what = rng.choice(("missing", "empty", "folder", "bytes", "report", "other", "brackets", "encoded", "link", "pipe"))
    if what == "folder":
        file.mkdir()
        (file / rng.choice(("a.parquet", "b.txt"))).write_bytes(rng.randbytes(rng.choice((0, 8, 5000))))
    elif what == "report":
        file = file.with_suffix(".nsys-rep")
        file.write_bytes(rng.randbytes(500))
    elif what in ("other", "encoded"):
        with closing(sqlite3.connect(file)) as database:
            if what == "encoded":
                database.execute("PRAGMA encoding = 'UTF-16le'")
            name = rng.choice(("songs", "NVTX_EVENTS", "StringIds", "TARGET_INFO_GPU", "CUPTI_ACTIVITY_KIND_KERNEL"))
            database.execute(f'CREATE TABLE {name} (id, value, start, "end", text, eventType, globalTid)')
            database.executemany(f"INSERT INTO {name} VALUES (?, ?, 1, 2, 'é', 59, 9)", [(1, "é"), (2, None)])
            database.commit()
    elif what == "brackets":
        file.write_text(rng.choice("[{") * 100_000)
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "link":
        file.symlink_to(file)
    elif what in ("empty", "bytes"):
        file.write_bytes(rng.randbytes(0 if what == "empty" else 4000))
    return file


# JSON: ONNX Runtime profiles, PyTorch traces, rows of CUPTI

_JSON_VALUES: tuple[Any, ...] = (
    None, True, "", "12", "x", [], {}, [[]], -1, 0, 1.5, -1e300, 1 << 52, 1 << 53, 1 << 63, -(1 << 63), 1 << 200,
    float("nan"), float("inf"), "\ud800", "\0", MARK, "é" * 1000, [{"float": [1, -5]}], [{"float": "x"}], {"a": {}},
    "9" * 30, "-9223372036854775808",
)  # fmt: skip


def _mutated_json(corpus: Path, folder: Path, rng: Random) -> Path:
    source = rng.choice(sorted((corpus / rng.choice(("profile", "profile", "kineto", "cupti"))).iterdir()))
    if rng.random() < 0.5:
        data = rng.choice(_TEXT_CHANGES)(source.read_bytes(), rng)
    else:
        data = _mutated_records(json.loads(source.read_bytes()), rng)
    if rng.random() < 0.15:
        data = gzip.compress(data, 1)
        if rng.random() < 0.7:
            data = damaged(data, rng)
    file = folder / source.name
    file.write_bytes(data)
    return file


def _mutated_records(trace: Any, rng: Random) -> bytes:
    """The trace with fields of some events replaced, left out, or swapped."""
    events = trace["traceEvents"] if isinstance(trace, dict) else trace
    if isinstance(trace, dict) and rng.random() < 0.2:
        trace[rng.choice([key for key in trace if key != "traceEvents"])] = rng.choice(_JSON_VALUES)
    everywhere, value = rng.random() < 0.3, rng.choice(_JSON_VALUES)
    key = rng.choice(("ts", "dur", "args", "name", "cat", "ph", "pid", "tid", "args."))
    for event in events if everywhere else rng.sample(events, min(len(events), rng.choice((1, 5, 30)))):
        if isinstance(event, list):
            event[rng.randrange(len(event))] = value
            continue
        args = event.get("args")
        if key != "args.":
            event[key] = value
        elif isinstance(args, dict) and args:
            args[rng.choice(sorted(args))] = value
    change = rng.choice(("none", "none", "reversed", "doubled", "shuffled", "foreign"))
    if change == "reversed":
        events.reverse()
    elif change == "doubled":
        events += events
    elif change == "shuffled":
        rng.shuffle(events)
    elif change == "foreign":
        events.insert(rng.randrange(len(events) + 1), rng.choice(_JSON_VALUES))
    return json.dumps(trace).encode()


def _nested(data: bytes, rng: Random) -> bytes:
    at = data.find(b'"args"', rng.randrange(len(data))) + len(b'"args": ')
    return data[:at] + rng.choice((b"[", b'{"a":')) * 100_000 + data[at:]


def _many(data: bytes, rng: Random) -> bytes:
    event = b'{"cat":"Node","pid":1,"tid":1,"dur":1,"ts":1,"ph":"X","name":"a_kernel_time","args":{}},'
    runs = b'{"cat":"Session","pid":1,"tid":1,"dur":1,"ts":1,"ph":"X","name":"model_run","args":{}}]'
    return b"[" + event * rng.choice((1_000, 20_000)) + runs


_TEXT_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    damaged,
    damaged,
    damaged,
    lambda data, rng: data[: rng.randrange(len(data))],
    lambda data, rng: data[: rng.randrange(len(data))],
    _nested,
    _many,
    lambda data, rng: data.replace(b'"ts": ', b'"ts": ' + rng.choice((b"-", b"1e", b'NaN, "x": ', b"9" * 400)), 3),
    lambda data, rng: data.replace(b'"dur": ', b'"dur": ' + rng.choice((b"-", b"0.", b'null, "x": ')), 30),
    lambda data, rng: data.replace(b'"pid"', b'"ts"', 40),  # keys twice
    lambda data, rng: data.decode().encode(rng.choice(("utf-16", "utf-32", "utf-8-sig"))),
    lambda data, rng: data.replace(b"_kernel_time", b"\xe9\xff_kernel_time", 9),
    lambda data, rng: data.replace(b"model_run", rng.choice((b"", b"\\ud800", b"model_\\u0000run")), 5),
    lambda data, rng: data.replace(b"{", b'{"x": "' + b"y" * rng.choice((9, 100_000, 18 << 20)) + b'", ', 1),
)
