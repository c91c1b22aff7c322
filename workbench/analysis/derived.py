"""Small tables that were worked out from large ones, kept beside a run so that opening it again is quick.

They lie in the run folder under `derived/`, named by the version of the code that made them; the folder may be removed
at any time. A run that is read only, or no folder at all, is worked out anew each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.analysis.tables import Tables
from workbench.version import __version__

DERIVED: Final = "derived"
"""Folder inside a run folder for what is worked out from its tables."""


def kept_table(run: Tables, name: str, version: int, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table `name` from the run's folder, or made and written there.

    version: raised with every change of what `make` gives. A file that cannot be read is made anew; one that cannot be
    written is not.
    """
    folder = getattr(run, "folder", None)
    if not isinstance(folder, Path):
        return make()
    file = folder / DERIVED / f"{name}-{version}-{__version__}.parquet"
    try:
        kept: pd.DataFrame = pq.read_table(file).to_pandas()
        return kept
    except (OSError, pa.ArrowException):
        table = make()
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pandas(table), partial)
        partial.replace(file)
    except (OSError, pa.ArrowException):
        partial.unlink(missing_ok=True)
    return table
