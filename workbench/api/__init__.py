"""The Python interface: runs, and what helps them."""

from workbench.api.confirming import Confirmation, confirm
from workbench.api.display import register
from workbench.api.run import RESNET50, Run, import_run, load, profile, resolve_model, samples
from workbench.api.searching import Search, search
from workbench.api.sweeping import Sweep, sweep
from workbench.api.tuning import BEST_FILE, Tuning, experiment, recorded, tune
from workbench.api.validating import Validation, validate

__all__ = [
    "BEST_FILE", "RESNET50", "Confirmation", "Run", "Search", "Sweep", "Tuning", "Validation", "confirm", "experiment",
    "import_run", "load", "profile", "recorded", "resolve_model", "samples", "search", "sweep", "tune", "validate",
]  # fmt: skip

register()
