"""Host calls that return only when the device has come as far."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from workbench.analysis.tables import measured_calls, rows_of
from workbench.diagnosis.findings.finding import Case

_WAITS: Final = r"^cu(?:da)?(?:\w*Synchronize|Memcpy|MemcpyDtoH)(?:_v\d+)?$"
"""Calls of the CUDA runtime and driver; the copies without Async return when they are done."""


def waiting_calls(case: Case, pass_name: str) -> pd.DataFrame:
    """Rows of `launches` in the measured calls of a pass that wait for the device, by start: `call`, `thread`,
    `start_ns`, `end_ns`, `name`.
    """
    made = rows_of(case.run, "launches", pass_name, ("call", "thread", "start_ns", "end_ns", "name"))
    words = made["name"].astype("category").cat
    waits = np.append(words.categories.astype(str).str.contains(_WAITS), False)[words.codes]  # -1: no name
    inside = made["call"].isin(measured_calls(case.run, pass_name)["call"]).to_numpy()
    return made[waits & inside].sort_values("start_ns")
