"""The Python interface: runs, and what helps them."""

from workbench.api.run import RESNET50, Run, import_run, load, profile, resolve_model, samples

__all__ = ["RESNET50", "Run", "import_run", "load", "profile", "resolve_model", "samples"]
