"""What to run and how: one validated, serialisable `RunConfig`."""

from workbench.config.cuda import CudaOptions
from workbench.config.run_config import Budget, RunConfig
from workbench.config.session import RunOptions, SessionOptions

__all__ = ["Budget", "CudaOptions", "RunConfig", "RunOptions", "SessionOptions"]
