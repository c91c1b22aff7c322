"""Finds out why ONNX Runtime inference on a GPU is slow, proves it, and shows what helps."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workbench.version import __version__

if TYPE_CHECKING:
    from workbench import zoo
    from workbench.api import (
        Confirmation,
        Run,
        Search,
        Sweep,
        Tuning,
        Validation,
        confirm,
        experiment,
        import_run,
        load,
        profile,
        recorded,
        samples,
        search,
        sweep,
        tune,
        validate,
    )
    from workbench.api.widgets import explore, lab, monitor, quiz
    from workbench.config import RunConfig
    from workbench.diagnosis.levers import levers
    from workbench.tuning.experiment import OutputCheck

__all__ = [
    "Confirmation", "OutputCheck", "Run", "RunConfig", "Search", "Sweep", "Tuning", "Validation", "__version__",
    "confirm", "experiment", "explore", "import_run", "lab", "levers", "load", "monitor", "profile", "quiz", "recorded",
    "samples", "search", "sweep", "tune", "validate", "zoo",
]  # fmt: skip

_HOMES = {
    **dict.fromkeys(("Run", "import_run", "load", "profile", "samples"), "workbench.api.run"),
    **dict.fromkeys(("Tuning", "experiment", "recorded", "tune"), "workbench.api.tuning"),
    **dict.fromkeys(("Confirmation", "confirm"), "workbench.api.confirming"),
    **dict.fromkeys(("Search", "search"), "workbench.api.searching"),
    **dict.fromkeys(("Sweep", "sweep"), "workbench.api.sweeping"),
    **dict.fromkeys(("Validation", "validate"), "workbench.api.validating"),
    **dict.fromkeys(("explore", "lab", "monitor", "quiz"), "workbench.api.widgets"),
    "OutputCheck": "workbench.tuning.experiment",
    "RunConfig": "workbench.config",
    "levers": "workbench.diagnosis.levers",
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
