"""What to run and how: one validated, serialisable `RunConfig`."""

from workbench.config.cuda import CudaOptions, TensorrtOptions
from workbench.config.model import Conversion, Part
from workbench.config.run_config import Budget, RunConfig
from workbench.config.session import RunOptions, SessionOptions

__all__ = [
    "Budget", "Conversion", "CudaOptions", "Part", "RunConfig", "RunOptions", "SessionOptions", "TensorrtOptions",
]  # fmt: skip
