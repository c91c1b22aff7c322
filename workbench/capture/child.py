"""One piece of work in a child process, because a library can take all memory, run for ever or crash the process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from workbench.errors import OutOfMemoryError, WorkbenchError, WorkerError, WorkerTimeoutError, from_kind

FAILED: Final = 3
"""Exit status of a child that said what failed."""

_PACKAGE_PARENT: Final = Path(__file__).resolve().parents[2]
_MARK: Final = "@failed "  # whatever else the libraries print
_LAST_WORDS: Final = 200


def run_child(
    module: str, arguments: Sequence[str] = (), *, given: str = "", what: str, otherwise: str, timeout_s: float | None
) -> None:
    """Run ``python -m module arguments`` with `given` on its standard input, to its end or for `timeout_s` seconds.

    what: the work, as the subject of a sentence. otherwise: how to do without it, as its end. Raises the error that the
    child says (`say_failed`), `WorkerTimeoutError`, `OutOfMemoryError` when the system killed it, or `WorkerError`.
    """
    paths = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        ended = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            input=given,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WorkerTimeoutError(
            f"{what} reached its limit of {timeout_s:g} s: raise --timeout, or {otherwise}."
        ) from None
    if ended.returncode:
        raise _reported(ended, what, otherwise)


def say_failed(error: WorkbenchError) -> int:
    """Say in the child what `run_child` raises in the parent; gives the exit status."""
    print(f"\n{_MARK}{json.dumps({'kind': type(error).__name__, 'message': str(error)})}", flush=True)
    return FAILED


def _reported(ended: subprocess.CompletedProcess[str], what: str, otherwise: str) -> WorkbenchError:
    said = [line for line in ended.stdout.splitlines() if line.startswith(_MARK)]
    if ended.returncode == FAILED and said:
        report = json.loads(said[-1].removeprefix(_MARK))
        return from_kind(report["kind"], report["message"])
    if ended.returncode == -signal.SIGKILL:
        return OutOfMemoryError(
            f"{what} was killed, as the system does when memory runs out: use a smaller batch, free memory, or "
            f"{otherwise}."
        )
    how = signal.Signals(-ended.returncode).name if ended.returncode < 0 else f"status {ended.returncode}"
    words = " ".join(ended.stderr.split())[-_LAST_WORDS:] or "no message"
    return WorkerError(f"{what} ended with {how} and no result ({words}): {otherwise}.")
