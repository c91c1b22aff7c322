"""Where rounds are run: one small interface, local processes behind it.

What is submitted is a function of this package and plain data, and what has to be compared with one another goes into
one submission. So an engine that spreads work over machines only has to submit elsewhere: callers wait for futures.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, ParamSpec, Protocol, Self, TypeVar

import filelock

from workbench import user_cache
from workbench.capture.machine import device_key
from workbench.capture.resolve import Device
from workbench.errors import ConfigError

Given = ParamSpec("Given")
Result = TypeVar("Result")

_LOCKS: Final = "locks"


class Executor(Protocol):
    """Runs submissions, each on one device from its begin to its end; `concurrent.futures.Executor` has this shape."""

    def submit(self, function: Callable[Given, Result], /, *args: Given.args, **kwargs: Given.kwargs) -> Future[Result]:
        """Queue a call; its exception, if any, is raised by the future."""


class LocalExecutor:
    """Submissions one after the other on this machine, one at a time per GPU, whoever else tunes here.

    Others wait for a lock file in the user's cache that is named after the GPU; the system frees it when its holder
    dies. Raises `ConfigError` where that cache cannot be made.
    """

    def __init__(self, device: Device, device_id: int = 0) -> None:
        folder: Path = user_cache.root() / _LOCKS
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"The folder {folder} cannot be made ({error.strerror}): set WORKBENCH_CACHE to one that can."
            ) from None
        self._lock = filelock.FileLock(folder / f"{device_key(device, device_id)}.lock", thread_local=False)
        self._pool = ThreadPoolExecutor(1, "workbench-executor")

    def submit(self, function: Callable[Given, Result], /, *args: Given.args, **kwargs: Given.kwargs) -> Future[Result]:
        """Queue a call; it begins when the device is free."""

        def alone() -> Result:
            with self._lock:
                return function(*args, **kwargs)

        return self._pool.submit(alone)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)
