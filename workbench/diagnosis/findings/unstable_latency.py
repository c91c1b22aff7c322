"""Calls of the same work that take different times: a long tail, a drift, or two groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workbench.analysis.tables import measured_calls
from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.passes import timed_pass

RULE: Final = "unstable-latency"
FEWEST_CALLS: Final = 100
"""So that one call in a hundred is at least one."""
TAIL: Final = 1.5
"""P99 over the median; quiet runs of graphs that launch many kernels reach 1.4 by the host alone."""
DRIFT: Final = 0.05
"""Between the medians of the halves; clocks that warm up move them by less."""
TWO_GROUPS: Final = 0.85
"""Variance that the best cut into two explains (N. Otsu, 1979, IEEE Trans. SMC 9(1)): 0.64 for a normal and 0.75 for a
uniform distribution, which are one group."""
APART: Final = 0.10
"""By which the groups must differ, of the faster one's time, and the least fraction of the calls in each."""


def rule(case: Case) -> Iterator[Finding]:
    """The measured calls that T comes from."""
    calls = measured_calls(case.run, timed_pass(case.manifest) or "latency").sort_values("start_ns")
    durations = calls["duration_ns"].to_numpy(np.int64)
    if len(durations) < FEWEST_CALLS:
        return
    median, p99 = np.quantile(durations, (0.5, 0.99))
    early, late = (float(np.median(half)) for half in np.array_split(durations, 2))
    said, faster_ns = [], []
    if p99 >= TAIL * median:
        said.append(f"one call in a hundred takes over {p99 / 1e6:.3g} ms, {p99 / median:.1f} medians")
    if abs(late - early) >= DRIFT * median:
        said.append(f"the second half of the calls takes {100 * (late - early) / early:+.0f} % against the first")
        faster_ns.append(min(early, late))
    groups = two_groups(durations)
    if groups is not None:
        fast, slow, fraction = groups
        said.append(f"the calls are of two kinds, of {fast / 1e6:.3g} and {slow / 1e6:.3g} ms ({100 * fraction:.0f} %)")
        faster_ns.append(fast)
    if not said:
        return
    gained = max((float(median) - each for each in faster_ns), default=0.0)
    at = (calls["start_ns"] - calls["start_ns"].iloc[0]).rename("since_first_ns")
    yield Finding.of(
        RULE, f"The latency is unstable: {'; '.join(said)}.",
        "Look for what shares the host and the GPU (other processes, clocks, threads without cores of their own), and "
        "compare only with runs made in turn with this one.",
        calls[["call", "duration_ns"]].join(at).sort_values("duration_ns", ascending=False),
        saves_ns=min(gained, case.latency_ns) if gained > 0 else None,
    )  # fmt: skip


def two_groups(durations_ns: NDArray[np.int64]) -> tuple[float, float, float] | None:
    """Medians of the faster and the slower group, and the fraction of the slower one; None where it is one group.

    The cut is the one that explains most of the variance. Calls beyond P99 are left out, for these are the tail.
    """
    values = np.sort(durations_ns)[: int(np.ceil(0.99 * len(durations_ns)))].astype(np.float64)
    below = np.arange(1, len(values))
    sums = np.cumsum(values)
    means_below, means_above = sums[:-1] / below, (sums[-1] - sums[:-1]) / (len(values) - below)
    between = below * (len(values) - below) * (means_above - means_below) ** 2 / len(values) ** 2
    cut = int(between.argmax()) + 1
    fast, slow = float(np.median(values[:cut])), float(np.median(values[cut:]))
    variance = values.var()
    fraction = 1.0 - cut / len(values)
    if not variance or between.max() < TWO_GROUPS * variance or slow < (1.0 + APART) * fast:
        return None
    return (fast, slow, fraction) if APART <= fraction <= 1.0 - APART else None
