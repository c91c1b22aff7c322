"""What the import benchmark measures, each subject in a process of its own.

    cd tests; python -m benchmarks.import_subjects SUBJECT FILE FOLDER SMALL_FILE SMALL_FOLDER

The subject runs once on a small input, which imports the modules that it needs, and then on FILE, which is measured.
Prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = {
    "CUPTI_ACTIVITY_KIND_KERNEL": """start end deviceId streamId correlationId globalPid graphNodeId demangledName gridX
        gridY gridZ blockX blockY blockZ registersPerThread staticSharedMemory dynamicSharedMemory""".split(),
    "CUPTI_ACTIVITY_KIND_MEMCPY": """start end deviceId streamId correlationId globalPid graphNodeId bytes copyKind
        srcKind dstKind""".split(),
    "CUPTI_ACTIVITY_KIND_MEMSET": "start end deviceId streamId correlationId globalPid graphNodeId bytes".split(),
    "CUPTI_ACTIVITY_KIND_RUNTIME": "start end globalTid correlationId nameId".split(),
    "CUPTI_ACTIVITY_KIND_SYNCHRONIZATION": "start end streamId correlationId globalPid syncType".split(),
    "NVTX_EVENTS": "start end eventType globalTid text textId domainId int64Value".split(),
    "StringIds": "id value".split(),
}
_NO_VALUE = -(2**63)
_PASS = "activity"


def peak_bytes() -> int:
    """The most memory that this process has held.

    Linux counts the memory of the process that started this one in `ru_maxrss`, but not in `VmHWM`.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def floor(path: Path, folder: Path) -> dict[str, Any]:
    """One scan of every column with SQLite alone: the least that any reader of the file must do.

    The condition holds for no row, so every comparison of every row is made, which decodes every column; it costs half
    as much as an aggregate function over each column, and no row is handed over.
    """
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        for table, columns in COLUMNS.items():
            never = " OR ".join(f"{column} = {_NO_VALUE}" for column in columns)
            assert database.execute(f"SELECT count(*) FROM {table} WHERE {never}").fetchone() == (0,)
    return {}


def baseline(path: Path, folder: Path) -> dict[str, Any]:
    """The same columns by `pandas.read_sql`, pairs by merge, ranges by searchsorted, idle by NumPy; nothing is stored.

    It does less than an import: idle time is not split by cause, no text is decoded but the names of ranges, no limit
    of a kernel is found and no table written.
    """
    import pandas as pd

    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        tables = {
            name: pd.read_sql(f"SELECT {', '.join(columns)} FROM {name}", database) for name, columns in COLUMNS.items()
        }
    kernels, copies, memsets, launches, _, ranges, strings = tables.values()
    for table, owner in ((kernels, "globalPid"), (launches, "globalTid")):
        table["pid"] = table[owner] // 2**24 % 2**24
    ranges["name"] = ranges["textId"].map(strings.set_index("id")["value"])
    paired = kernels.merge(launches, on=["pid", "correlationId"], suffixes=("", "_launch"))
    at = np.searchsorted(ranges["start"], paired["start_launch"], side="right") - 1
    paired["range"] = ranges["name"].to_numpy()[at]
    paired["duration"] = paired["end"] - paired["start"]
    in_ranges = paired.groupby("range")["duration"].agg(["size", "sum"])
    work = _union_ns(pd.concat([kernels, memsets]))
    busy = _union_ns(pd.concat([kernels, memsets, copies]))
    calls = ranges[ranges["name"] == "run"]
    return {
        "idle_ns": int((calls["end"] - calls["start"]).sum()) - busy,
        "exposed_copy_ns": busy - work,
        "queue_ns": int((paired["start"] - paired["start_launch"]).sum()),
        "ranges": {name: [int(count), int(total)] for name, count, total in in_ranges.itertuples()},
    }


def _union_ns(table: Any) -> int:
    rows = table[["start", "end"]].sort_values("start").to_numpy()
    reached = np.maximum.accumulate(rows[:, 1])
    before = np.concatenate((rows[:1, 0], reached[:-1]))
    return int(np.maximum(rows[:, 1] - np.maximum(rows[:, 0], before), 0).sum())


def import_run(path: Path, folder: Path) -> Callable[[], dict[str, Any]]:
    """The package: import into a run folder, pair, attribute to ranges, and work out the shares.

    The phase is chosen, so that no call is set aside as warm-up.
    """
    import workbench as wb

    return _shares(wb.import_run(path, out=folder, range="measure"))


def open_again(path: Path, folder: Path) -> Callable[[], dict[str, Any]]:
    """The package: the shares of a run that was imported before."""
    import workbench as wb

    return _shares(wb.load(folder))


def _shares(run: Any) -> Callable[[], dict[str, Any]]:
    """Work out the shares; what the truth is compared with is gathered only after the clock has stopped."""
    from workbench.analysis.range_times import range_times

    assert run.diagnosis.shares["other"] is not None
    ranges = range_times(run, _PASS)
    return lambda: _found(run, ranges)


def _found(run: Any, ranges: Any) -> dict[str, Any]:
    from workbench.analysis.device_work import call_times
    from workbench.analysis.pairing import launch_rows

    launches = run.table("launches", ["process", "correlation", "start_ns"])
    rows = [launch_rows(run.table(name, [*launches]), launches) for name in ("kernels", "copies", "memsets")]
    kernels = run.table("kernels", ["call", "start_ns"])
    queue = np.zeros(kernels["call"].max() + 1, np.int64)
    waited = kernels["start_ns"].to_numpy() - launches["start_ns"].to_numpy()[rows[0]]
    np.add.at(queue, kernels["call"].to_numpy(), waited)
    calls = call_times(run, _PASS).drop(columns="replay_ns")
    return {
        "pairs": int(sum((each >= 0).sum() for each in rows)),
        "shares": run.diagnosis.shares,
        "calls": {**{name: calls[name].tolist() for name in calls}, "queue_ns": queue.tolist()},
        "ranges": {
            name: [int(count), int(own)]
            for name, count, own in ranges[["name", "kernels", "device_ns"]].itertuples(index=False)
        },
    }


SUBJECTS = {"floor": floor, "baseline": baseline, "import": import_run, "open": open_again}


def main(subject: str, *paths: str) -> None:
    """Measure one subject and print it."""
    work = SUBJECTS[subject]
    path, folder, small_path, small_folder = map(Path, paths)
    begun = time.perf_counter()
    work(small_path, small_folder)
    ready = time.perf_counter()
    found = work(path, folder)
    seconds, peak = time.perf_counter() - ready, peak_bytes()
    result = {"seconds": seconds, "modules_seconds": ready - begun, "peak_bytes": peak}
    print(json.dumps({**result, "found": found() if callable(found) else found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
