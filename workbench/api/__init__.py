"""The Python interface: runs, and what helps them."""

from workbench.api.run import RESNET50, Run, import_run, load, profile, resolve_model, samples
from workbench.api.searching import Search, search
from workbench.api.sweeping import Sweep, sweep
from workbench.api.tuning import BEST_FILE, Tuning, experiment, tune

__all__ = [
    "BEST_FILE", "RESNET50", "Run", "Search", "Sweep", "Tuning", "experiment", "import_run", "load", "profile",
    "resolve_model", "samples", "search", "sweep", "tune",
]  # fmt: skip
