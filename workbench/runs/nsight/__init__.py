"""Nsight Systems exports, read exactly: SQLite or Parquet, of every schema version since 2022.

Tables exist only when they have rows, carry no index and differ between versions, so every table and column is probed.
"""

from workbench.runs.nsight.export import read_nsight, sqlite_of_report
from workbench.runs.nsight.file import NsightFile

__all__ = ["NsightFile", "read_nsight", "sqlite_of_report"]
