"""A later shape costs far more in its first call than in its second: algorithms are chosen anew for every shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.levers import lever

RULE: Final = "shape-search"
LEAST_CALLS: Final = 10
"""Calls of the same shape that its first one must cost; below, a shape that comes back a few times earns it back."""
CURE: Final = "conv-search-heuristic"


def rule(case: Case) -> Iterator[Finding]:
    """First calls of later shapes against their second calls, in the bare pass."""
    steps = case.cold_start
    later = steps[steps.index.str.startswith("shape ")].dropna(subset=["beyond_usual_ns"])
    dear = later[later["beyond_usual_ns"] >= LEAST_CALLS * later["usual_ns"]]
    if not len(dear):
        return
    dear = dear.sort_values("beyond_usual_ns", ascending=False).reset_index()
    worst = dear.iloc[0]
    said = (
        f"{len(dear)} of {len(later)} later shapes cost {dear['beyond_usual_ns'].median() / 1e6:.0f} ms more in their "
        f"first call than in their second, {worst['step']} even {worst['beyond_usual_ns'] / 1e6:.0f} ms on top of "
        f"{worst['usual_ns'] / 1e6:.3g} ms."
    )
    searches = lever(CURE).why_not(case.situation) is None
    yield Finding.of(
        RULE, said,
        "Pad inputs to a few shapes and call each of them once at the start"
        + (", and let cuDNN's heuristic choose the algorithms (cuda.cudnn_conv_algo_search)." if searches else "."),
        dear, lever=CURE if searches else None,
    )  # fmt: skip
