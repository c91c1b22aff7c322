"""Work beside the notebook: one thread, so that the kernel stays free, and two ways to end it."""

from __future__ import annotations

import atexit
import ctypes
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from workbench.errors import WorkbenchError

Progress = Callable[[str, float], None]
Result = TypeVar("Result")

STOPPED: Final = "Stopped: what was running is gone, and nothing of it was kept."
_GOODBYE_S: Final = 3.0
"""For the measuring processes of a kernel that shuts down, which Jupyter kills after 5 s."""


class Stopped(BaseException):
    """Raised in a job's thread to end it at once. No `Exception`, so that only what cleans up meets it."""


class Job(Generic[Result]):
    """A function that runs in a thread of its own, started by `start`.

    work: gets a progress function and an event that asks it to end soon. on_end: called in that thread when all is
    over, with the result or with a sentence that says why there is none.
    """

    def __init__(
        self,
        work: Callable[[Progress, threading.Event], Result],
        *,
        on_progress: Progress,
        on_end: Callable[[Result | None, str], None],
    ) -> None:
        self._work, self._on_progress, self._on_end = work, on_progress, on_end
        self._cancelled, self._over, self._changing = threading.Event(), threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="workbench-lab", daemon=True)

    def start(self) -> None:
        """Begin."""
        _jobs.add(self)
        self._thread.start()

    @property
    def cancelling(self) -> bool:
        """Whether it was asked to end."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ask it to end after the running step, and to keep what was measured until then."""
        self._cancelled.set()

    def stop(self) -> None:
        """End it now, and with it the process that measures, as Ctrl-C would.

        The exception reaches the thread at its next line of Python, at the latest when the process says something.
        """
        self.cancel()
        with self._changing:
            if self._thread.is_alive() and not self._over.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread.ident or 0), ctypes.py_object(Stopped)
                )

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it is over, `on_end` included; False when the time ran out first."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        result, problem = None, ""
        try:
            result = self._work(self._on_progress, self._cancelled)
            with self._changing:
                self._over.set()
        except Stopped:
            problem = STOPPED
        except WorkbenchError as error:
            problem = str(error)
        except Exception as error:
            problem = f"This is a defect of the workbench: {type(error).__name__}: {error}"
        self._over.set()
        self._on_end(result, problem)


_jobs: weakref.WeakSet[Job[Any]] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """Leave no process that measures behind a kernel that ends."""
    for job in list(_jobs):
        job.stop()
    for job in list(_jobs):
        job.wait(_GOODBYE_S)
