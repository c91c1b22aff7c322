"""A batch so small that most kernel time is under-filled, where a larger one is predicted to take less time an item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from workbench.diagnosis.findings.finding import Case, Finding
from workbench.diagnosis.levers import lever
from workbench.diagnosis.prediction import predict

RULE: Final = "small-batch"
UNDER_FILLED: Final = 0.5
"""Of the device work: from here on the GPU has room for most of a second item beside the first."""
FEW: Final = 16
"""Items; with twice as many, an image model filled an H200 for nine tenths of T, so that other causes come first."""
LEAST_GAIN: Final = 0.2
"""Of the time of an item, and surely so: the caller has to collect items and to wait for them."""
ENOUGH: Final = 0.8
"""Of the largest predicted gain: the smallest batch that gets this far is advised, because latency grows with it."""
FACTORS: Final = (2, 4, 8, 16)


def rule(case: Case) -> Iterator[Finding]:
    """Most device work is under-filled, and a batch several times as large is predicted to take less time an item.

    What is saved is time of an item: a call with more of them takes longer.
    """
    pieces, batch = case.diagnosis.pieces, case.situation.batch
    if not case.on_gpu or pieces is None or batch is None or batch > FEW:
        return
    if pieces.under_filled <= UNDER_FILLED * (pieces.compute + pieces.memory + pieces.under_filled + pieces.unknown):
        return
    predicted = [(factor, predict(lever(f"batch-x{factor}"), case.situation)) for factor in FACTORS]
    rows = [
        (f"batch-x{factor}", batch * factor, each.ratio, each.high)
        for factor, each in predicted
        if each.ratio is not None
    ]
    larger = pd.DataFrame(rows, columns=["lever", "batch", "predicted_ratio", "predicted_ratio_high"])
    if not len(larger) or 1 - larger["predicted_ratio_high"].min() < LEAST_GAIN:
        return
    enough = 1 - larger["predicted_ratio"] >= ENOUGH * (1 - larger["predicted_ratio"].min())
    chosen = larger[enough].iloc[0]
    evidence = larger.assign(predicted_item_ns=larger["predicted_ratio"] * case.latency_ns / batch)
    said = (
        f"Batch {batch} leaves the GPU under-filled for {pieces.under_filled / 1e6:.3g} ms of a call; with batch "
        f"{chosen['batch']} an item should take {chosen['predicted_ratio']:.2f} times as long."
    )
    yield Finding.of(
        RULE, said, "Collect several items into one call, where the caller can wait for them.",
        evidence.sort_values("predicted_ratio", ascending=False, ignore_index=True), lever=str(chosen["lever"]),
        saves_ns=(1 - float(chosen["predicted_ratio"])) * case.latency_ns,
    )  # fmt: skip
