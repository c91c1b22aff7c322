"""Starts the worker of one pass, listens to it, and ends it: on a time limit, on Ctrl-C, on any error."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from workbench.capture.protocol import EVENT_MARK, WorkerSpec
from workbench.errors import WorkerError, WorkerTimeoutError, from_kind

Progress = Callable[[str, float], None]
_PACKAGE_PARENT: Final = Path(__file__).resolve().parents[2]
_LOG_LINES: Final = 30
_KILL_WAIT_SECONDS: Final = 5.0


@dataclass
class Outcome:
    """What the worker said: its process id, and every event by name (the last one of each)."""

    process: int
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=_LOG_LINES))


def run_worker(
    spec: WorkerSpec,
    folder: Path,
    *,
    timeout_s: float | None,
    on_event: Callable[[dict[str, Any]], None],
    wrapper: Sequence[str] = (),
) -> Outcome:
    """Run one pass to its end in a fresh process, whose tables are then in `folder`.

    wrapper: command that runs the worker, such as `nsys profile …`. Raises the worker's own error, or
    `WorkerTimeoutError`, or `WorkerError` when it died without a word.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec_file = folder / "spec.json"
    spec_file.write_text(spec.model_dump_json(), encoding="utf-8")
    command = [*wrapper, sys.executable, "-m", "workbench.capture.worker", str(spec_file), str(folder)]
    loading = spec.config.cuda_module_loading
    environment: dict[str, str] = {} if loading is None else {"CUDA_MODULE_LOADING": loading}
    with _child(command, timeout_s, spec.pass_name, environment) as process:
        outcome = Outcome(process.pid)
        assert process.stdout is not None
        for line in process.stdout:
            _hear(line, outcome, on_event)
        status = process.wait()
    spec_file.unlink(missing_ok=True)
    if "error" in outcome.events:
        raise from_kind(outcome.events["error"]["kind"], outcome.events["error"]["message"])
    if "done" not in outcome.events:
        raise _death(spec.pass_name, status, outcome.log)
    return outcome


@contextlib.contextmanager
def _child(
    command: Sequence[str], timeout_s: float | None, pass_name: str, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """A child process group that never outlives the block: not on an error, an interrupt or the time limit."""
    paths = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the whole group
    )
    timed_out = threading.Event()

    def expire() -> None:
        timed_out.set()
        _kill(process)

    timer = threading.Timer(min(timeout_s, threading.TIMEOUT_MAX), expire) if timeout_s else None
    try:
        if timer:
            timer.start()
        yield process
    except BaseException:
        _kill(process)
        raise
    finally:
        if timer:
            timer.cancel()
    if timed_out.is_set():
        raise WorkerTimeoutError(
            f"The {pass_name} pass reached its limit of {timeout_s:g} s: raise --timeout, or lower the budget."
        )


def _hear(line: str, outcome: Outcome, on_event: Callable[[dict[str, Any]], None]) -> None:
    at = line.find(EVENT_MARK)
    if at < 0:
        outcome.log.append(line.rstrip())
        return
    try:
        event = json.loads(line[at + len(EVENT_MARK) :])
    except ValueError:  # two writers in one line: keep it for the log
        outcome.log.append(line.rstrip())
        return
    if "process" in event:
        outcome.process = int(event["process"])
    outcome.events[event["event"]] = event
    on_event(event)


def _kill(process: subprocess.Popen[str]) -> None:
    """End the worker's whole process group at once; a worker holds nothing that needs a goodbye.

    The group may outlive its first process, such as nsys, and then still holds the standard output that is read here.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # a driver can hold a process that is dead
        process.wait(_KILL_WAIT_SECONDS)


def _death(pass_name: str, status: int, log: deque[str]) -> WorkerError:
    said = " ".join(line for line in log if line.strip())[-300:]
    tail = f" Its last words: {said}" if said else ""
    if status == -signal.SIGKILL:
        return WorkerError(
            f"The worker of the {pass_name} pass was killed (SIGKILL), often by the system when memory runs out: "
            f"use a smaller batch or free memory.{tail}"
        )
    if status < 0:
        name = signal.Signals(-status).name
        return WorkerError(f"The worker of the {pass_name} pass died of {name}: update the driver and ORT.{tail}")
    return WorkerError(f"The worker of the {pass_name} pass ended with status {status} and no result.{tail}")
