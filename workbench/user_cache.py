"""The folder where measured ceilings and built models are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    """`$WORKBENCH_CACHE`, else `$XDG_CACHE_HOME/workbench`, else `~/.cache/workbench`; it may not exist yet."""
    own, xdg = os.environ.get("WORKBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    return (Path(xdg) if xdg else Path.home() / ".cache") / "workbench"
