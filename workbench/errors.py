"""One class per cause; each message is one sentence with the cause and the remedy.

Errors travel from the worker process to its parent as ``{"kind": class name, "message": text}``,
so every class can be rebuilt from its message alone (`from_kind`).
"""

from __future__ import annotations


class WorkbenchError(Exception):
    """Base of every error that a user can cause; the command line prints it without a traceback."""


class ConfigError(WorkbenchError):
    """An option is misspelt, has an impossible value, or contradicts another one."""


class ModelError(WorkbenchError):
    """The model file cannot be used: missing, not ONNX, truncated, or with external data missing."""


class UnsupportedModelError(ModelError):
    """ONNX Runtime cannot run the model here: an operator, type or opset that it lacks."""


class FeedError(WorkbenchError):
    """The inputs do not fit the model's signature."""


class CpuFallbackError(WorkbenchError):
    """A GPU was asked for, and ONNX Runtime would silently have used the CPU."""


class NoDriverError(WorkbenchError):
    """A GPU was asked for, and no NVIDIA driver answers."""


class OutOfMemoryError(WorkbenchError):
    """The device or the host ran out of memory in the worker."""


class OutputsChangedError(WorkbenchError):
    """A configuration computes something else than the base, beyond the tolerance."""


class WorkerError(WorkbenchError):
    """The worker process ended without a result, for a reason it could not name."""


class WorkerTimeoutError(WorkerError):
    """The worker process reached its time limit and was ended."""


class DiskFullError(WorkbenchError):
    """A file could not be written because the disk is full."""


class SourceError(WorkbenchError):
    """A profiling source (CUPTI, Nsight Systems, NVML, GPM) refused to work."""


class RunFolderError(WorkbenchError):
    """A run folder cannot be opened: missing, damaged, or of a newer major version."""


def _subclasses(cls: type[WorkbenchError]) -> list[type[WorkbenchError]]:
    return [cls, *(each for sub in cls.__subclasses__() for each in _subclasses(sub))]


def from_kind(kind: str, message: str) -> WorkbenchError:
    """Rebuild the error that a worker reported; an unknown kind becomes a `WorkerError`."""
    known = {cls.__name__: cls for cls in _subclasses(WorkbenchError)}
    return known.get(kind, WorkerError)(message)
