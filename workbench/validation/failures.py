"""Every cell that misses something, and why, in sentences."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from workbench.validation.ablation import EVERYTHING
from workbench.validation.evaluate import Validation
from workbench.validation.limits import TESTED, confirmable


class Failure(NamedTuple):
    """One thing that a cell misses. what: `verdict`, `verdict without sources`, `confirmation` or `share`."""

    cell: str
    what: str
    why: str


def failures(found: Validation) -> list[Failure]:
    """In the order of the set, and for each cell the verdict first."""
    every = [*_of_verdicts(found.judged), *_of_confirmations(found.confirmed), *_of_shares(found.shares)]
    place = {name: at for at, name in enumerate(found.cells["cell"])}
    return sorted(every, key=lambda each: place[each.cell])


def _of_verdicts(judged: pd.DataFrame) -> list[Failure]:
    wrong = judged[~judged["right"].astype(bool)]
    whole = wrong["sources"] == EVERYTHING
    said = [Failure(row["cell"], "verdict", _said(row)) for row in wrong[whole].to_dict("records")]
    for cell, rows in wrong[~whole].groupby("cell", sort=False):
        why = "; ".join(f"{row['sources']}: {_said(row)}" for row in rows.to_dict("records"))
        said.append(Failure(str(cell), "verdict without sources", why))
    return said


def _said(row: dict[Any, Any]) -> str:
    return f"{row['verdict']} ({row['confidence']:.2f}) where the label is {row['label']}"


def _of_confirmations(confirmed: pd.DataFrame) -> list[Failure]:
    tested = confirmable(confirmed)
    rows = tested[~tested["agrees"].astype(bool)].to_dict("records")
    return [Failure(row["cell"], "confirmation", f"{row['outcome']}: {row['why']}") for row in rows]


def _of_shares(shares: pd.DataFrame) -> list[Failure]:
    tested = pd.Series([pair in TESTED for pair in zip(shares["share"], shares["lever"], strict=True)], shares.index)
    rows = shares[tested & ~shares["within"].astype(bool)].to_dict("records")
    return [
        Failure(
            row["cell"],
            "share",
            f"{row['share']} is {row['traced']:.2f} of T in the trace, and {row['interventional']:.2f} "
            f"({row['low']:.2f} to {row['high']:.2f}, {row['rounds']} round{'s' * (row['rounds'] != 1)}) by "
            f"{row['lever']}" + (", which that interval allows" if row["consistent"] else ""),
        )
        for row in rows
    ]
