"""Kernel times equal a count by hand, and tensor-core use agrees with what the hardware counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median_low

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.analysis.intervals import union
from workbench.analysis.kernel_times import kernel_times
from workbench.api import Run
from workbench.runs.schema import TABLES

NAMES = ("ampere_sgemm_128x64_nn", "triton_poi_fused_relu_0", "unheard_of", None)

kernel = st.fixed_dictionaries(
    {
        "pass": st.sampled_from(["activity", "nodes"]),
        "call": st.integers(-1, 3),
        "device": st.sampled_from([0, 1, None]),
        "start_ns": st.integers(0, 60).map(lambda start: 2**60 + start),  # beyond what a float64 can tell apart
        "duration_ns": st.integers(0, 20),
        "name": st.sampled_from(NAMES),
    }
)


class Memory:
    """A run of rows in memory: calls 0 is a warm-up, calls 1 and 2 are measured."""

    def __init__(self, kernels: list[dict[str, object]]) -> None:
        calls = [
            {"pass": name, "call": call, "phase": "measured" if call else "warm-up"}
            for name in ("activity", "nodes")
            for call in range(3)
        ]
        self.rows = {"kernels": kernels, "latency": calls}

    def table(self, name: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        schema = TABLES[name]
        arrays = [pa.array([row.get(field.name) for row in self.rows[name]], field.type) for field in schema]
        return pa.Table.from_arrays(arrays, schema=schema).to_pandas()[list(columns or schema.names)]


def row(name: str | None, start_ns: int, end_ns: int, *, device: int = 0, call: int = 1) -> dict[str, object]:
    return {
        "pass": "activity", "call": call, "device": device, "start_ns": start_ns, "end_ns": end_ns, "name": name,
    }  # fmt: skip


@given(st.lists(kernel, max_size=30))
def test_equals_a_count_by_hand(drawn: list[dict[str, object]]) -> None:
    rows = [each | {"end_ns": each["start_ns"] + each["duration_ns"]} for each in drawn]
    found = kernel_times(Memory(rows))
    measured = [each for each in rows if each["call"] in (1, 2)]
    passes = [name for name in ("activity", "nodes") if any(each["pass"] == name for each in measured)]
    if not passes:
        assert found is None
        return
    assert found is not None
    assert (found.pass_name, found.calls) == (passes[0], 2)
    mine = [each for each in measured if each["pass"] == passes[0]]
    by_name: dict[object, list[int]] = {}
    for each in mine:
        by_name.setdefault(each["name"], []).append(each["duration_ns"])
    assert {
        None if pd.isna(each.name) else each.name: (each.count, each.median_ns, each.min_ns, each.max_ns)
        for each in found.kernels.itertuples()
    } == {name: (len(each), median_low(each), min(each), max(each)) for name, each in by_name.items()}
    covered = 0
    for device in (0, 1, None):
        here = [each for each in mine if each["device"] == device]
        covered += union([each["start_ns"] for each in here], [each["end_ns"] for each in here]).length_ns
    assert found.kernels["own_ns"].sum() == covered
    assert found.kernels["own_ns"].is_monotonic_decreasing
    assert found.kernels["share"].sum() == pytest.approx(1 if covered else 0)
    whole = ["count", "own_ns", "median_ns", "min_ns", "max_ns"]
    assert set(found.kernels[whole].dtypes.astype(str)) == {"int64"}


def test_overlapping_kernels_are_not_counted_twice_but_devices_do_not_cover_each_other() -> None:
    first, second = "ampere_sgemm_128x64_nn", "unheard_of"
    times = kernel_times(Memory([row(first, 0, 10), row(second, 4, 16), row(second, 0, 5, device=1)]))
    assert times is not None
    own = dict(zip(times.kernels["name"], times.kernels["own_ns"], strict=True))
    assert own == {first: 10, second: 6 + 5}
    assert times.kernels.set_index("name").loc[second, "max_ns"] == 12


def test_a_run_without_kernels_has_no_times() -> None:
    assert kernel_times(Memory([])) is None
    assert kernel_times(Memory([row("unheard_of", 0, 10, call=0)])) is None


@pytest.mark.parametrize(
    ("name", "families"),
    [
        ("compute_device", {"GEMM"}),
        ("memory_device", {"elementwise"}),
        ("pcie_device", {"reduction"}),
        ("launch_device", {"GEMM", "elementwise"}),
        ("resnet50_b64_device", {"GEMM", "convolution", "copy", "elementwise", "reduction", "other"}),
        ("encoder_device", {"GEMM", "copy", "elementwise", "reduction"}),
        ("decoder_device", {"GEMM", "copy", "elementwise", "reduction"}),
    ],
)
def test_tensor_cores_by_name_agree_with_the_hardware_counter(
    recorded: Callable[[str], Run], name: str, families: set[str]
) -> None:
    run = recorded(name)
    times = kernel_times(run)
    assert times is not None
    assert set(times.kernels["family"]) == families
    assert times.kernels["tensor_cores"].notna().all()
    by_name = times.kernels.loc[times.kernels["tensor_cores"].astype(bool), "share"].sum()
    counted = run.counters.loc[run.counters["metric"] == "tensor_active_percent", "value"].max() / 100
    # without a tensor instruction the counter stays below 1 %; the pipe is busy for a part of a tensor kernel's time
    assert (by_name > 0) == (counted > 0.01)
    assert counted <= by_name + 0.01


def test_times_of_recorded_kernels_are_those_of_their_calls(recorded: Callable[[str], Run]) -> None:
    times = kernel_times(recorded("launch_device"))
    assert times is not None
    per_call = times.kernels.set_index("family")["count"] / times.calls
    assert per_call.to_dict() == {"GEMM": 150, "elementwise": 150}
