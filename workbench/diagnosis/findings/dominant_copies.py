"""Inputs and outputs that are copied in every call, for a large part of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.findings.host_copies import exposed_ns, host_copies
from workbench.diagnosis.findings.wording import megabytes, milliseconds

RULE: Final = "dominant-copies"
LEAST_SHARE: Final = 0.1
"""Of T. Above it the traced share and the one that device binding takes away agreed within 0.1 on twelve exported
graphs (H200); below, the noise is larger than what is to be told."""
_TO: Final = {"h2d": "device", "d2h": "host"}


def rule(case: Case) -> Iterator[Finding]:
    """Copies at the border of the graph that no kernel covers hold a large share; those of Memcpy nodes do not count.

    Where nodes were not recorded all copies count, since what they carry is not known.
    """
    every = host_copies(case)
    border = every[every["at_border"].fillna(True)]
    saves = exposed_ns(case, float(border["time_ns"].sum()), every)
    if saves is None or saves < LEAST_SHARE * case.latency_ns:
        return
    known = bool(border["at_border"].notna().all())
    first = border.iloc[0]
    first_does = f"carries {first['carries']}" if known else f"goes to the {_TO[first['kind']]}"
    said = (
        f"Copies {'of inputs and outputs' if known else 'between host and device'} hold {milliseconds(saves)} of a "
        f"call, {saves / case.latency_ns:.0%} of it; the largest part {first_does}, "
        f"{megabytes(first['copy_bytes'])} a copy."
    )
    remedy = "Keep on the device what is made or used there (I/O binding), and copy only what has to cross."
    evidence = border.drop(columns="at_border")
    yield Finding.of(RULE, said, remedy, evidence, lever="io-binding-device", saves_ns=saves)
