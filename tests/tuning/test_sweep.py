"""The sweep keeps what each cell gave, failures included; the knee and the best cell are read from the table alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.config import RunConfig
from workbench.errors import ConfigError, OutOfMemoryError
from workbench.tuning.blocks import Block
from workbench.tuning.objective import Constraint
from workbench.tuning.sweep import KNEE_SHARE, Cell, CellError, knee, sweep

BASE = RunConfig(model="m.onnx")
OUT_OF_MEMORY = ("OutOfMemoryError", "The device ran out of memory: take a smaller batch.")
Measure = Callable[[RunConfig, int, int], Block | CellError]


def block(batch: int, concurrency: int, call_ns: int, calls: int = 1000) -> Block:
    """Calls that all take as long, from callers that never pause."""
    durations = np.full(calls, call_ns, np.int64)
    return Block(
        "cell", 0, 0, durations_ns=durations, starts_ns=durations, calls_per_s=concurrency / call_ns * 1e9, batch=batch,
        peak_device_bytes=1000 * batch, peak_host_bytes=5,
    )  # fmt: skip


def device(per_call_ns: int, per_item_ns: int, fits: int = 10**9) -> Measure:
    """A device that works on one item at a time; what a call costs beside, callers do at once."""

    def measure(config: RunConfig, batch: int, concurrency: int) -> Block:
        if batch * concurrency > fits:
            return Block("cell", 0, 0, error=OUT_OF_MEMORY)
        return block(batch, concurrency, max(per_call_ns + batch * per_item_ns, concurrency * batch * per_item_ns))

    return measure


def table(rates: dict[tuple[int, int], float]) -> pd.DataFrame:
    rows = [
        (*cell, rate, None if math.isnan(rate) else int(1e9 * cell[0] * cell[1] / rate)) for cell, rate in rates.items()
    ]
    return pd.DataFrame(rows, columns=["batch", "concurrency", "items_per_s", "p50_ns"]).astype({"p50_ns": "Int64"})


def test_cells_run_by_load_with_their_own_configuration_and_are_listed_by_batch() -> None:
    seen: list[tuple[int | None, int]] = []

    def measure(config: RunConfig, batch: int, concurrency: int) -> Block:
        seen.append((config.batch, config.concurrency))
        return block(batch, concurrency, 1_000_000)

    cells = sweep(BASE, [8, 1, 2], [4, 1], measure).cells
    assert seen == [(1, 1), (2, 1), (1, 4), (2, 4), (8, 1), (8, 4)]
    assert list(zip(cells["batch"], cells["concurrency"], strict=True)) == sorted(seen)
    assert cells["items_per_s"].to_list() == pytest.approx([1e3, 4e3, 2e3, 8e3, 8e3, 32e3])
    assert cells["peak_device_bytes"].to_list() == [1000, 1000, 2000, 2000, 8000, 8000]
    assert cells["error"].isna().all()


def test_a_cell_without_memory_is_a_result_and_larger_cells_are_tried() -> None:
    def measure(config: RunConfig, batch: int, concurrency: int) -> Block | CellError:
        if batch == 2:
            return Block("cell", 0, 0, error=OUT_OF_MEMORY)
        if batch == 4:
            raise OutOfMemoryError("The host is full: close something.")
        return block(batch, concurrency, 1_000_000)

    found = sweep(BASE, [1, 2, 4, 8], [1], measure)
    cells = found.cells.set_index("batch")
    assert cells["error_kind"].dropna().to_dict() == dict.fromkeys((2, 4), "OutOfMemoryError")
    assert cells.loc[2, "error"] == OUT_OF_MEMORY[1]
    assert "host is full" in cells.loc[4, "error"]
    assert cells["items_per_s"].dropna().to_dict() == pytest.approx({1: 1e3, 8: 8e3})
    assert cells.loc[2, ["p50_ns", "p99_ns", "peak_device_bytes", "items_per_s"]].isna().all()
    assert list(found.blocks) == [(1, 1), (8, 1)]


def test_what_cannot_fit_rules_out_only_what_is_no_smaller_in_both() -> None:
    tried = []

    def measure(config: RunConfig, batch: int, concurrency: int) -> Block | CellError:
        tried.append((batch, concurrency))
        if (batch, concurrency) == (4, 2):
            return CellError("OutOfMemoryError", "200 GB were asked for at once.", impossible=True)
        return block(batch, concurrency, 1_000_000)

    cells = sweep(BASE, [1, 4, 8], [1, 2, 4], measure).cells.set_index(["batch", "concurrency"])
    assert (8, 1) in tried
    assert (1, 4) in tried
    assert not {(4, 4), (8, 2), (8, 4)} & set(tried)
    assert cells.loc[(8, 4), "error_kind"] == "OutOfMemoryError"
    assert cells.loc[(8, 4), "error"].startswith("Not tried, because batch 4 with concurrency 2 cannot fit: 200 GB")


@pytest.mark.parametrize(("calls", "unknown"), [(100, ""), (99, "P99"), (9, "P90, P99"), (1, "P50, P90, P99")])
def test_a_percentile_of_too_few_calls_is_unknown_and_the_note_says_so(calls: int, unknown: str) -> None:
    row = sweep(BASE, [1], [1], lambda *_: block(1, 1, 7_000_001, calls)).cells.iloc[0]
    names = [name.strip() for name in unknown.split(",") if name]
    for percentile in (50, 90, 99):
        value = row[f"p{percentile}_ns"]
        assert pd.isna(value) if f"P{percentile}" in names else value == 7_000_001
    assert pd.isna(row["note"]) if not names else row["note"].startswith(f"{unknown} not measured")
    assert row["calls"] == calls


def test_an_impossible_configuration_is_a_cell_and_not_the_end() -> None:
    base = RunConfig(model="m.onnx", binding="device", cuda_graph=True)
    cells = sweep(base, [1], [1, 2], device(1000, 1000)).cells.set_index("concurrency")
    assert pd.isna(cells.loc[1, "error"])
    assert cells.loc[2, "error_kind"] == "ConfigError"
    assert "cuda_graph" in cells.loc[2, "error"]


def test_a_sweep_without_one_possible_cell_is_refused() -> None:
    with pytest.raises(ConfigError, match="feeds"):
        sweep(RunConfig(model="m.onnx", feeds="f.npz"), [1, 2], [1], device(1, 1))
    with pytest.raises(ConfigError, match="batches"):
        sweep(BASE, [], [1], device(1, 1))
    with pytest.raises(ConfigError, match="concurrencies"):
        sweep(BASE, [1], [0, 1], device(1, 1))


def test_a_cancelled_sweep_keeps_what_it_has() -> None:
    seen: list[tuple[int, int]] = []
    found = sweep(
        BASE, [1, 2, 4], [1], device(1000, 10), cancelled=lambda: len(seen) == 2, progress=lambda *at: seen.append(at)
    )
    assert found.cells["batch"].to_list() == [1, 2]
    assert seen == [(0, 3), (1, 3), (2, 3)]


def test_a_class_that_cannot_be_found_takes_no_numbers_away() -> None:
    def classify(config: RunConfig, batch: int, concurrency: int) -> str:
        if batch == 2:
            raise OutOfMemoryError("tracing ran out of memory.")
        return "launch"

    cells = sweep(BASE, [1, 2, 4], [1], device(1000, 10, fits=2), classify=classify).cells.set_index("batch")
    assert cells["klass"].dropna().to_dict() == {1: "launch"}
    assert "tracing ran out" in cells.loc[2, "note"]
    assert cells.loc[2, "items_per_s"] > 0


def test_the_knee_of_a_device_is_where_it_is_nine_tenths_busy() -> None:
    # one caller with batch b keeps the device busy b / (b + 9) of the time: 9 tenths need 81 items
    cells = sweep(BASE, [1, 9, 27, 81, 243, 100_000], [1], device(9_000, 1_000)).cells
    assert knee(cells) == (81, 1)


def test_larger_loads_that_buy_nothing_do_not_move_the_knee() -> None:
    rates = {(1, 1): 100.0, (2, 1): 190.0, (4, 1): 300.0, (8, 1): 310.0}
    assert knee(table(rates)) == (4, 1)
    more = {**rates, (16, 1): 311.0, (32, 1): 300.0, (64, 1): 280.0, (128, 1): float("nan")}
    assert knee(table(more)) == (4, 1)


def test_there_is_no_knee_while_throughput_grows_to_the_end() -> None:
    assert knee(table({(1, 1): 100.0, (2, 1): 200.0, (4, 1): 400.0, (8, 1): float("nan")})) is None
    assert knee(table({(1, 1): 100.0})) is None
    assert knee(table({(1, 1): float("nan")})) is None


@given(st.dictionaries(st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 3])), st.integers(1, 50)))
def test_the_knee_agrees_with_looking_at_every_cell(rates: dict[tuple[int, int], int]) -> None:
    found = knee(table({cell: float(rate) for cell, rate in rates.items()}))
    enough = [cell for cell, rate in rates.items() if rate >= KNEE_SHARE * max(rates.values())]
    least = min((batch * concurrency for batch, concurrency in enough), default=None)
    if least is None or least == max(batch * concurrency for batch, concurrency in rates):
        assert found is None
    else:
        quickest = max(rates[cell] for cell in enough if cell[0] * cell[1] == least)
        assert found in enough
        assert found[0] * found[1] == least
        assert rates[found] == quickest


def test_the_best_cell_keeps_the_constraint_or_comes_closest() -> None:
    found = sweep(BASE, [1, 4, 16, 64], [1, 2], device(1_000_000, 100_000, fits=64))
    fastest = found.cells.loc[found.cells["items_per_s"].idxmax()]
    anything = found.best()
    assert anything is not None
    assert anything.feasible
    assert found.cells.set_index(["batch", "concurrency"]).loc[anything.cell, "items_per_s"] == fastest["items_per_s"]
    within = found.best([Constraint.parse("p99<3ms")])
    assert within is not None
    assert within.feasible
    slow = found.cells.set_index(["batch", "concurrency"])["p99_ns"]
    kept = found.cells[found.cells["p99_ns"] < 3_000_000]
    assert slow[within.cell] < 3_000_000
    assert found.cells.set_index(["batch", "concurrency"]).loc[within.cell, "items_per_s"] == kept["items_per_s"].max()
    closest = found.best([Constraint.parse("p99<500us")])
    assert closest is not None
    assert not closest.feasible
    assert slow[closest.cell] == slow.min()


def test_of_equal_cells_the_smaller_load_is_best() -> None:
    found = sweep(BASE, [4], [1, 2, 4], device(0, 1000)).best()
    assert found is not None
    assert found.cell == Cell(4, 1)


def test_nothing_measured_has_no_best() -> None:
    assert sweep(BASE, [1, 2], [1], device(1, 1, fits=0)).best() is None
