"""The profiler did not keep all that happened: dropped events, or a file that ends too early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from workbench.diagnosis.findings.finding import Case, Finding

RULE: Final = "truncated-profile"
_LOST: Final = r"(?i)\b(?:dropped|lost|truncated|overflow\w*|ends in the middle|not all \w+ events|no complete call)\b"
"""In the words of this package's importers and of Nsight Systems ("Not all CUDA events might have been collected")."""
_SERIOUS: Final = ("warning", "error", "fatal")


def rule(case: Case) -> Iterator[Finding]:
    """What the import had to leave out of a file that is not whole, and what the profiler warned of."""
    imported = case.manifest.imported
    own = pd.DataFrame({"source": "import", "text": [] if imported is None else imported.skipped}, dtype=object)
    table = case.run.diagnostics
    warned = table[table["severity"].astype(object).isin(_SERIOUS)][["source", "text"]].astype(object)
    said = pd.concat([own, warned], ignore_index=True).dropna(subset=["text"])
    lost = said[said["text"].astype(str).str.contains(_LOST)]
    if not len(lost):
        return
    first = " ".join(str(lost["text"].iloc[0]).split()).removesuffix(".")
    yield Finding.of(
        RULE,
        f"The profile is not whole, so that times and counts of what is missing are not in any share: {first}.",
        "Record fewer calls or fewer kinds of events, and end the session (or the capture range) before the limit.",
        lost,
    )  # fmt: skip
