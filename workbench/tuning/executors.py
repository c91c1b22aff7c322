"""Where rounds are run: one small interface, local processes behind it.

What is submitted is a function of this package and plain data, and what has to be compared with one another goes into
one submission. So an engine that spreads work over machines only has to submit elsewhere: callers wait for futures.
"""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Final, ParamSpec, Protocol, TypeVar

import filelock

from workbench import user_cache
from workbench.capture.machine import device_key
from workbench.capture.resolve import Device
from workbench.errors import ConfigError

Given = ParamSpec("Given")
Result = TypeVar("Result")

_LOCKS: Final = "locks"
_LOG: Final = logging.getLogger(__name__)


class Executor(Protocol):
    """Runs submissions, each on one device from its begin to its end; `concurrent.futures.Executor` has this shape."""

    def submit(self, function: Callable[Given, Result], /, *args: Given.args, **kwargs: Given.kwargs) -> Future[Result]:
        """Queue a call; its exception, if any, is raised by the future."""


class LocalExecutor(concurrent.futures.Executor):
    """Submissions one after the other on this machine, one at a time per GPU, whoever else tunes here.

    A submission runs in the thread that makes it, so that an interrupt ends the measuring process: a pool's thread
    would measure on, into folders that its caller removes. Others wait for a lock file in the user's cache that is
    named after the GPU; the system frees it when its holder dies. Raises `ConfigError` where it cannot be made.
    """

    def __init__(self, device: Device, device_id: int = 0) -> None:
        folder: Path = user_cache.root() / _LOCKS
        with _refusal_is_said(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._said = False
        self._lock = filelock.FileLock(folder / f"{device_key(device, device_id)}.lock")

    def submit(self, function: Callable[Given, Result], /, *args: Given.args, **kwargs: Given.kwargs) -> Future[Result]:
        """Wait until the device is free, and make the call; the future is done when it is returned."""
        future: Future[Result] = Future()
        with _refusal_is_said(Path(self._lock.lock_file)):
            self._acquire()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        finally:
            self._lock.release()
        return future

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            if not self._said:  # two that take turns would say it in every round
                self._said = True
                _LOG.warning("Another measurement has this device: waiting until %s is free.", self._lock.lock_file)
            self._lock.acquire()


@contextmanager
def _refusal_is_said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be made ({error.strerror}): set WORKBENCH_CACHE to a folder that can be written."
        ) from None
