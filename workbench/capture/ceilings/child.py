"""Ceilings from a child process, so that a crash, or a CUDA context, stays out of the caller's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from workbench.capture.ceilings.ort_chains import Kind
from workbench.errors import WorkbenchError, WorkerError, WorkerTimeoutError, from_kind
from workbench.runs.manifest import Ceilings

_PACKAGE_PARENT: Final = Path(__file__).resolve().parents[3]


def measure_in_process(
    kind: Kind,
    *,
    device_id: int = 0,
    threads: int | None = None,
    refresh: bool = False,
    timeout_s: float | None = None,
) -> Ceilings:
    """`load_or_measure` in a fresh process, which is killed after `timeout_s` seconds.

    Raises what `load_or_measure` raises, `WorkerTimeoutError` at the time limit, and `WorkerError` if
    the process ends for a reason it cannot name.
    """
    with tempfile.TemporaryDirectory(prefix="ceilings-") as folder:
        out = Path(folder) / "ceilings.json"
        command = [sys.executable, "-m", "workbench.capture.ceilings", "--kind", kind, "--device-id", str(device_id)]
        command += ["--out", str(out), *(["--refresh"] if refresh else [])]
        command += [] if threads is None else ["--threads", str(threads)]
        paths = [str(_PACKAGE_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            ended = subprocess.run(
                command,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise WorkerTimeoutError(
                f"The ceilings were not measured within {timeout_s:g} s: allow more time, or free the device."
            ) from error
        if ended.returncode != 0:
            raise _reported(ended)
        return Ceilings.model_validate_json(out.read_bytes())


def _reported(ended: subprocess.CompletedProcess[str]) -> WorkbenchError:
    lines = ended.stderr.strip().splitlines() or ["no message"]
    try:
        report = json.loads(lines[-1])
        return from_kind(report["kind"], report["message"])
    except (ValueError, TypeError, KeyError):
        return WorkerError(
            f"Measuring the ceilings ended with status {ended.returncode} ({lines[-1]}): "
            "run `python -m workbench.capture.ceilings` to see all that it says."
        )
