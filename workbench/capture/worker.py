"""One pass in a process of its own: ``python -m workbench.capture.worker SPEC FOLDER``.

SPEC is a JSON file (`WorkerSpec`). Tables are written into FOLDER; progress, the result and errors are events
(`protocol.say`).
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from workbench.capture.feeds import load_feeds, save_feeds
from workbench.capture.protocol import WorkerSpec, say
from workbench.capture.trace_log import RangeLog
from workbench.errors import OutOfMemoryError, WorkbenchError
from workbench.runs.calls import assign_calls
from workbench.runs.schema import AGAIN, TABLES
from workbench.runs.writer import GRAPH, full_disk_is_said, full_disk_is_suspected, write_table

if TYPE_CHECKING:
    import onnxruntime as ort

    from workbench.capture.binding import Bound, Call
    from workbench.capture.latency import Series

FAILED: Final = 3  # exit status when an error was reported as an event
STEPS: Final = ("import", "libraries", "session", "binding", "first call")
OUTPUTS: Final = "outputs.npz"
_RSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024  # getrusage(2) of each system


@contextmanager
def _explained() -> Iterator[None]:
    """What ONNX Runtime raises, as one sentence."""
    from workbench.capture.session import explain

    try:
        yield
    except Exception as error:
        raise explain(error) from None


class Worker:
    """Runs one pass and writes its tables."""

    def __init__(self, spec: WorkerSpec, folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.log = RangeLog()
        self.steps = list(STEPS)

    def run(self) -> None:
        """The whole pass; raises subclasses of `WorkbenchError`."""
        spec = self.spec
        with ExitStack() as stack:
            trace = None
            if spec.trace_here:
                from workbench.capture.cupti import CuptiTrace

                trace = stack.enter_context(CuptiTrace(graph_nodes=spec.graph_nodes))
            session, bound, first_ns = self._start()
            say("session", providers=session.get_providers(), options=session.get_provider_options())
            calls = [each.call for each in bound]
            with _explained():
                measure = self._latency if spec.pass_name == "latency" else self._fixed_calls
                call_starts, call_ends = measure(calls, first_ns)
                if spec.keep_outputs:
                    outputs = bound[0].outputs()
                    with full_disk_is_said(self.folder):
                        save_feeds(self.folder / OUTPUTS, outputs)
            say("memory", peak_host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES)
        self._write_log()
        losses: dict[str, str | None] = {}
        if spec.pass_name == "nodes":
            losses["ort_profiler"] = self._write_profile(session, call_starts, call_ends)
        if trace is not None:
            write_device_tables(self.folder, trace.tables(), spec.pass_name, call_starts, call_ends)
            losses["cupti"] = trace.loss
        self._write_losses({source: text for source, text in losses.items() if text is not None})

    def _start(self) -> tuple[ort.InferenceSession, list[Bound], tuple[int, int]]:
        """First session, one bound call for each caller, and (start, duration) of the first call; steps are ranges."""
        spec, log, config = self.spec, self.log, self.spec.config
        say("phase", name="session", process=os.getpid())
        from workbench.capture.binding import bind
        from workbench.capture.libraries import preload_cuda_libraries
        from workbench.capture.session import create_session, run_options

        with log.range("import"):
            import onnxruntime  # noqa: F401  (timed: part of the cold start)
        with log.range("libraries"):
            if spec.device == "cuda":
                preload_cuda_libraries()
        profiled = spec.pass_name == "nodes"
        with log.range("session"), full_disk_is_suspected(self.folder):
            sessions = [
                create_session(
                    spec.model,
                    config,
                    spec.device,
                    profile_prefix=self.folder / "ort" if profiled else None,
                    optimized_model=self.folder / "optimized.onnx" if profiled else None,
                )
                for _ in range(config.sessions)
            ]
        feeds = load_feeds(spec.feeds)
        with _explained():
            with log.range("binding"):
                bound = [
                    bind(session, feeds, config, spec.device, run_options(config))
                    for session in sessions
                    for _ in range(config.concurrency)
                ]
            say("phase", name="first call")
            with log.range("first call"):
                before = time.perf_counter_ns()
                bound[0].call()
                duration = time.perf_counter_ns() - before
            for at, path in enumerate(spec.later_feeds, start=2):
                later = bind(sessions[0], load_feeds(path), config, spec.device, run_options(config))
                self._meet_shape(f"shape {at}", later.call)
        return sessions[0], bound, (before + log.epoch_offset_ns, duration)

    def _meet_shape(self, name: str, call: Call) -> None:
        """The first call of a further shape, and the next one, which shows what the first cost beyond a usual call."""
        for step in (name, f"{name}{AGAIN}"):
            with self.log.range(step):
                call()
            self.steps.append(step)

    def _latency(self, calls: list[Call], first_ns: tuple[int, int]) -> tuple[Series, Series]:
        """Measure until the time is known well enough; gives starts and ends of all calls, like `_fixed_calls`."""
        from workbench.capture.callers import measure_together
        from workbench.capture.latency import measure

        budget, offset = self.spec.config.budget, self.log.epoch_offset_ns
        say("phase", name="measure")

        def progress(share: float) -> None:
            say("progress", share=share)

        with self.log.range("measure"):
            if len(calls) == 1:
                measured = measure(calls[0], budget, epoch_offset_ns=offset, first_ns=first_ns, progress=progress)
            else:
                measured = measure_together(calls, budget, epoch_offset_ns=offset, progress=progress).after(first_ns)
        made = self._write_calls(measured.starts_ns, measured.durations_ns, measured.warmup)
        steps = self.log.steps(tuple(self.steps))
        write_table(self.folder, "steps", steps.append_column("pass", [["latency"] * len(steps)]))
        say(
            "latency",
            median_ns=measured.interval.median,
            ci_low_ns=measured.interval.low,
            ci_high_ns=measured.interval.high,
            measured_calls=len(measured.durations_ns) - measured.warmup,
            warmup_calls=measured.warmup,
            stopped_by=measured.stopped_by,
            callers=len(calls),
            notes=measured.notes,
        )
        return made

    def _fixed_calls(self, calls: list[Call], first_ns: tuple[int, int]) -> tuple[Series, Series]:
        """Warm up, then make a fixed number of calls; the counters pass goes on until its time is full."""
        spec, offset = self.spec, self.log.epoch_offset_ns
        seconds = spec.config.budget.counters_seconds if spec.pass_name == "counters" else None
        if len(calls) > 1:
            later_starts, later_durations = self._calls_together(calls, seconds)
            return self._write_calls(
                np.insert(later_starts, 0, first_ns[0]), np.insert(later_durations, 0, first_ns[1]), 1
            )
        from workbench.capture.latency import timed_calls

        starts, durations = [first_ns[0]], [first_ns[1]]
        never = 2**63
        say("phase", name="warm-up")
        with self.log.range("warm-up"):
            timed_calls(calls[0], spec.warmup_calls, starts, durations, offset, never)
        say("phase", name="measure")
        with self.log.range("measure"):
            if seconds is not None:
                timed_calls(calls[0], never, starts, durations, offset, time.perf_counter_ns() + int(seconds * 1e9))
            else:
                timed_calls(calls[0], spec.calls, starts, durations, offset, never)
        return self._write_calls(np.array(starts, np.int64), np.array(durations, np.int64), spec.warmup_calls + 1)

    def _calls_together(self, calls: list[Call], seconds: float | None) -> tuple[Series, Series]:
        from workbench.capture.callers import Callers

        callers = Callers(calls, self.log.epoch_offset_ns)
        each = None if seconds is not None else max(3, -(-self.spec.calls // len(calls)))
        say("phase", name="measure")
        with self.log.range("measure"), callers.running(each):
            if seconds is not None:
                time.sleep(seconds)
        return callers.timed()

    def _write_calls(self, starts: Series, durations: Series, warmup: int) -> tuple[Series, Series]:
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
        if self.spec.pass_name in ("activity", "nodes"):  # thousands of calls stand in `latency` already
            self.log.add_calls(starts.tolist(), durations.tolist())
        return starts, starts + durations

    def _write_log(self) -> None:
        ranges = self.log.table()
        write_table(self.folder, "ranges", ranges.append_column("pass", [[self.spec.pass_name] * len(ranges)]))

    def _write_losses(self, losses: dict[str, str]) -> None:
        """What profilers say that they did not keep, as they warn of it in a trace by Nsight Systems."""
        if losses:
            count = len(losses)
            write_table(
                self.folder,
                "diagnostics",
                {
                    "pass": [self.spec.pass_name] * count,
                    "process": [os.getpid()] * count,
                    "time_ns": [time.time_ns()] * count,
                    "severity": ["warning"] * count,
                    "source": list(losses),
                    "text": list(losses.values()),
                },
            )

    def _write_profile(self, session: Any, call_starts: Series, call_ends: Series) -> str | None:
        """Write what the profiler recorded; returns what it dropped, if anything."""
        import onnx

        from workbench.capture.skeleton import write_skeleton
        from workbench.runs.ort_profile import whole_profile

        start_ns = int(session.get_profiling_start_time_ns())
        with full_disk_is_suspected(self.folder):
            profile = whole_profile(Path(session.end_profiling()))
        for name, table in profile.tables(start_ns).items():
            # The worker's clock decides which call an event belongs to; ORT may run once more to learn shapes.
            calls = assign_calls(table["start_ns"].to_numpy(), call_starts - 1000, call_ends)
            at = table.column_names.index("call")
            placed = table.set_column(at, "call", pa.array(calls))
            write_table(self.folder, name, placed.append_column("pass", [["nodes"] * len(table)]))
        optimized = self.folder / "optimized.onnx"
        write_skeleton(onnx.load_model(optimized, load_external_data=False), self.folder / GRAPH)
        optimized.unlink()
        optimized.with_name("weights.bin").unlink(missing_ok=True)
        return profile.loss


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
