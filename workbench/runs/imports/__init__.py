"""Captures that other tools made, as run folders: Nsight Systems exports, ONNX Runtime profiles, PyTorch traces."""

from workbench.runs.imports.draft import Selection
from workbench.runs.imports.run import import_files

__all__ = ["Selection", "import_files"]
