"""Finds out why ONNX Runtime inference on a GPU is slow, proves it, and shows what helps."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workbench.version import __version__

if TYPE_CHECKING:
    from workbench import zoo
    from workbench.api import Run, import_run, load, profile, samples
    from workbench.config import RunConfig

__all__ = ["Run", "RunConfig", "__version__", "import_run", "load", "profile", "samples", "zoo"]

_HOMES = {
    "Run": "workbench.api",
    "import_run": "workbench.api",
    "load": "workbench.api",
    "profile": "workbench.api",
    "samples": "workbench.api",
    "RunConfig": "workbench.config",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import workbench` stays quick."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "zoo":
        return import_module("workbench.zoo")
    raise AttributeError(f"module 'workbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
