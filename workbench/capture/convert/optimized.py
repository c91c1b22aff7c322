"""The graph as ONNX Runtime optimised it, saved, so that a later session need not optimise again."""

from __future__ import annotations

from workbench.capture.convert.request import Request
from workbench.capture.session import create_session


def optimized(request: Request) -> list[str]:
    """Write what a session on the run's device and options makes of the model; return notes.

    The file fits that device and version of ONNX Runtime alone, and has to be loaded with optimisation off.
    """
    create_session(request.source, request.config, request.device, optimized_model=request.target)
    level = request.config.session.graph_optimization_level
    return [f"Conversion 'optimized' saved the graph of level {level!r}; it is loaded with optimisation off."]
