"""Large outputs that every call copies to the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.findings.host_copies import exposed_ns, host_copies
from workbench.diagnosis.findings.wording import megabytes, milliseconds

RULE: Final = "outputs-copied"
LEAST_SHARE: Final = 0.05
"""Of T in copies of outputs. A pageable copy of 268 MB took 15.6 ms in one process and 17.8 ms in another (H200), so
that a few hundredths of T come and go by themselves."""


def rule(case: Case) -> Iterator[Finding]:
    """Outputs hold a part of the call on their way to the host; whether anybody reads them the data do not say."""
    every = host_copies(case)
    outputs = every[(every["kind"] == "d2h") & every["at_border"].fillna(False)]
    saves = exposed_ns(case, float(outputs["time_ns"].sum()), every)
    if saves is None or saves < LEAST_SHARE * case.latency_ns:
        return
    said = (
        f"Every call copies {megabytes(outputs['bytes'].sum())} of outputs to the host (the longest "
        f"{outputs.iloc[0]['carries']}), which holds {milliseconds(saves)}; whether anybody needs them there "
        "only you know."
    )
    remedy = (
        "Ask only for the outputs that are read, reduce them in the model (a top-k, a mean, a smaller type), or leave "
        "them on the device for what comes next."
    )
    evidence = outputs.drop(columns="at_border")
    yield Finding.of(RULE, said, remedy, evidence, lever="io-binding-device", saves_ns=saves)
