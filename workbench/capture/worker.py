"""One pass in a process of its own: ``python -m workbench.capture.worker SPEC FOLDER``.

SPEC is a JSON file (`WorkerSpec`). Tables are written into FOLDER. Progress, the result and errors go to standard
output as lines ``@workbench {json}``, so that they survive a wrapper such as `nsys profile` and a full disk.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from workbench.capture.trace_log import RangeLog
from workbench.config import RunConfig
from workbench.errors import DiskFullError, OutOfMemoryError, WorkbenchError
from workbench.runs.calls import assign_calls
from workbench.runs.schema import TABLES
from workbench.runs.writer import full_disk_is_suspected, write_table

EVENT_MARK: Final = "@workbench "
FAILED: Final = 3  # exit status when an error was reported as an event
STEPS: Final = ("import", "libraries", "session", "binding", "first call")


class WorkerSpec(BaseModel):
    """What one worker does. `trace_here` turns CUPTI on in this process; nsys, if any, is around it.

    `graph_nodes`: replayed CUDA graphs are traced node by node.
    `warmup_calls` and `calls` hold for the passes that do not find them out themselves.
    """

    config: RunConfig
    pass_name: Literal["latency", "counters", "activity", "nodes"]
    model: Path
    feeds: Path
    device: Literal["cuda", "cpu"]
    trace_here: bool = False
    graph_nodes: bool = False
    warmup_calls: int = 0
    calls: int = 0


def say(event: str, **values: Any) -> None:
    """Send one event to the parent process."""
    sys.stdout.write(f"{EVENT_MARK}{json.dumps({'event': event, **values})}\n")
    sys.stdout.flush()


class Worker:
    """Runs one pass and writes its tables."""

    def __init__(self, spec: WorkerSpec, folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.log = RangeLog()

    def run(self) -> None:
        """The whole pass; raises subclasses of `WorkbenchError`."""
        spec = self.spec
        with ExitStack() as stack:
            trace = None
            if spec.trace_here:
                from workbench.capture.cupti import CuptiTrace

                trace = stack.enter_context(CuptiTrace(graph_nodes=spec.graph_nodes))
            session, call, first_ns = self._start()
            say("session", providers=session.get_providers(), options=session.get_provider_options())
            if spec.pass_name == "latency":
                self._latency(call, first_ns)
            else:
                self._fixed_calls(call, first_ns)
        call_starts, call_ends = self._write_log()
        if spec.pass_name == "nodes":
            self._write_profile(session, call_starts, call_ends)
        if trace is not None:
            write_device_tables(self.folder, trace.tables(), spec.pass_name, call_starts, call_ends)

    def _start(self) -> tuple[Any, Any, tuple[int, int]]:
        """Session, callable and (start, duration) of the first call, each step in its own range."""
        spec, log = self.spec, self.log
        say("phase", name="session", process=os.getpid())
        from workbench.capture.binding import bind
        from workbench.capture.feeds import load_feeds
        from workbench.capture.libraries import preload_cuda_libraries
        from workbench.capture.session import create_session, explain, run_options

        with log.range("import"):
            import onnxruntime  # noqa: F401  (timed: part of the cold start)
        with log.range("libraries"):
            if spec.device == "cuda":
                preload_cuda_libraries()
        profiled = spec.pass_name == "nodes"
        with log.range("session"), full_disk_is_suspected(self.folder):
            session = create_session(
                spec.model,
                spec.config,
                spec.device,
                profile_prefix=self.folder / "ort" if profiled else None,
                optimized_model=self.folder / "optimized.onnx" if profiled else None,
            )
        feeds = load_feeds(spec.feeds)
        try:
            with log.range("binding"):
                call = bind(session, feeds, spec.config, spec.device, run_options(spec.config))
            say("phase", name="first call")
            with log.range("first call"):
                before = time.perf_counter_ns()
                call()
                duration = time.perf_counter_ns() - before
        except Exception as error:
            raise explain(error) from None
        return session, call, (before + log.epoch_offset_ns, duration)

    def _latency(self, call: Any, first_ns: tuple[int, int]) -> None:
        from workbench.capture.latency import measure

        say("phase", name="measure")
        with self.log.range("measure"):
            measured = measure(
                call,
                self.spec.config.budget,
                epoch_offset_ns=self.log.epoch_offset_ns,
                first_ns=first_ns,
                progress=lambda share: say("progress", share=share),
            )
        self._write_calls(measured.starts_ns, measured.durations_ns, measured.warmup)
        write_table(
            self.folder,
            "steps",
            self.log.steps(STEPS).append_column("pass", [["latency"] * len(STEPS)]),
        )
        say(
            "latency",
            median_ns=measured.interval.median,
            ci_low_ns=measured.interval.low,
            ci_high_ns=measured.interval.high,
            measured_calls=len(measured.durations_ns) - measured.warmup,
            warmup_calls=measured.warmup,
            stopped_by=measured.stopped_by,
            notes=measured.notes,
        )

    def _fixed_calls(self, call: Any, first_ns: tuple[int, int]) -> None:
        """Warm up, then make a fixed number of calls; the counters pass goes on until its time is full."""
        from workbench.capture.latency import timed_calls

        spec, offset = self.spec, self.log.epoch_offset_ns
        starts, durations = [first_ns[0]], [first_ns[1]]
        never = 2**63
        say("phase", name="warm-up")
        with self.log.range("warm-up"):
            timed_calls(call, spec.warmup_calls, starts, durations, offset, never)
        say("phase", name="measure")
        with self.log.range("measure"):
            if spec.pass_name == "counters":
                seconds_ns = int(spec.config.budget.counters_seconds * 1e9)
                timed_calls(call, never, starts, durations, offset, time.perf_counter_ns() + seconds_ns)
            else:
                timed_calls(call, spec.calls, starts, durations, offset, never)
        self._write_calls(np.array(starts, np.int64), np.array(durations, np.int64), spec.warmup_calls + 1)

    def _write_calls(self, starts: Any, durations: Any, warmup: int) -> None:
        count = len(starts)
        phases = ["cold", *["warm-up"] * (warmup - 1), *["measured"] * (count - warmup)]
        write_table(
            self.folder,
            "latency",
            {
                "pass": [self.spec.pass_name] * count,
                "process": [os.getpid()] * count,
                "call": range(count),
                "phase": phases,
                "start_ns": starts,
                "duration_ns": durations,
            },
        )
        self._calls = (starts, starts + durations)
        if self.spec.pass_name in ("activity", "nodes"):  # thousands of calls stand in `latency` already
            self.log.add_calls(starts.tolist(), durations.tolist())

    def _write_log(self) -> tuple[Any, Any]:
        ranges = self.log.table()
        write_table(self.folder, "ranges", ranges.append_column("pass", [[self.spec.pass_name] * len(ranges)]))
        return self._calls

    def _write_profile(self, session: Any, call_starts: Any, call_ends: Any) -> None:
        from workbench.capture.skeleton import write_skeleton
        from workbench.runs.ort_profile import read_ort_profile

        start_ns = int(session.get_profiling_start_time_ns())
        with full_disk_is_suspected(self.folder):
            tables = read_ort_profile(Path(session.end_profiling()), start_ns)
        for name, table in tables.items():
            # The worker's clock decides which call an event belongs to; ORT may run once more to learn shapes.
            calls = assign_calls(table["start_ns"].to_numpy(), call_starts - 1000, call_ends)
            at = table.column_names.index("call")
            placed = table.set_column(at, "call", pa.array(calls))
            write_table(self.folder, name, placed.append_column("pass", [["nodes"] * len(table)]))
        write_skeleton(self.folder / "optimized.onnx", self.folder / "graph.onnx")


def write_device_tables(
    folder: Path, tables: dict[str, pa.Table], pass_name: str, call_starts: Any, call_ends: Any
) -> None:
    """Write CUPTI or Nsight tables with their `pass` and the `call` that each row starts in."""
    for name, table in tables.items():
        placed = table.append_column("pass", [[pass_name] * len(table)])
        if "call" in TABLES[name].names:
            calls = assign_calls(table["start_ns"].to_numpy(), call_starts, call_ends)
            placed = placed.append_column("call", pa.array(calls))
        write_table(folder, name, placed)


def main(spec_path: str, folder: str) -> int:
    """Run the pass; returns the exit status."""
    try:
        spec = WorkerSpec.model_validate_json(Path(spec_path).read_text(encoding="utf-8"))
        Worker(spec, Path(folder)).run()
    except DiskFullError as error:
        say("error", kind=type(error).__name__, message=str(error))
        return FAILED
    except MemoryError:
        say("error", kind=OutOfMemoryError.__name__, message="The host's memory is full: use a smaller batch.")
        return FAILED
    except WorkbenchError as error:
        say("error", kind=type(error).__name__, message=str(error))
        return FAILED
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
