"""Causes on the host and around the run: where they must be found, and where they must not."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.api import load
from workbench.diagnosis.findings import (
    cold_start,
    concurrency_no_scaling,
    host_late,
    idle_clocks,
    other_process,
    shape_search,
    sync_inside,
    throttling,
    truncated_profile,
    unstable_latency,
)
from workbench.diagnosis.findings.finding import Case
from workbench.diagnosis.findings.unstable_latency import two_groups
from workbench.diagnosis.levers import lever

pytestmark = pytest.mark.slow  # every rule on every kind of recorded run

ALL = (
    cold_start, concurrency_no_scaling, host_late, idle_clocks, other_process, shape_search, sync_inside, throttling,
    truncated_profile, unstable_latency,
)  # fmt: skip


def found(module, run):
    """What one rule finds in a run, whole or not at all: at most one finding, None for none."""
    findings = list(module.rule(Case(run, run.diagnosis)))
    assert len(findings) <= 1
    for each in findings:
        assert each.rule == module.RULE
        assert each.said.endswith(".")
        assert each.remedy.endswith(".")
        assert 0 < len(each.evidence) <= each.counted
        assert each.saves_ns is None or 0 < each.saves_ns <= run.diagnosis.latency.median_ns
        assert each.lever is None or lever(each.lever)
    return findings[0] if findings else None


@pytest.fixture
def altered(h200, tmp_path):
    """A real run with some rows of one table changed: `change` gets the table as a DataFrame and returns it."""

    def make(name, table, change):
        folder = tmp_path / name
        shutil.copytree(h200 / name, folder)
        file = folder / f"{table}.parquet"
        stored = pq.read_table(file)
        schema = stored.schema.remove_metadata()
        pq.write_table(pa.Table.from_pandas(change(stored.to_pandas()), schema, preserve_index=False), file)
        return load(folder)

    return make


@pytest.fixture
def imported(capture, tmp_path):
    """Import captures by name into a folder of the test's own."""
    return lambda *names: wb.import_run([capture(name) for name in names], out=tmp_path / "imported")


def samples_of(frame, **values):
    """The samples of the bare pass with other values, by metric."""
    for metric, value in values.items():
        frame.loc[(frame["pass"] == "latency") & (frame["metric"] == metric), "value"] = float(value)
    return frame


def test_a_dear_first_call_is_found_with_its_parts(h200_experiments):
    run = load(h200_experiments / "cold/runs/base")
    hit = found(cold_start, run)
    steps = run.steps[run.steps["pass"] == "latency"].set_index("name")["duration_ns"]
    once_ms = (steps["binding"] + steps["first call"]) / 1e6
    assert f"{once_ms - run.diagnosis.latency.median_ns / 1e6:.0f} ms" in hit.said
    assert "14 % loading code" in hit.said  # 58.5 of 422.8 traced ms
    assert set(hit.evidence["step"]) == {"import", "libraries", "session", "binding", "first call"}
    assert hit.evidence["duration_ns"].is_monotonic_decreasing


def test_the_capture_of_a_graph_counts_as_cold_start(h200):
    assert "712 ms" in found(cold_start, load(h200 / "resnet50_b1_graph")).said  # 703.7 + 9.3 - 0.8 ms


@pytest.mark.parametrize("name", ["pcie_pinned", "encoder_device"])
def test_a_cheap_first_call_is_no_finding(h200, name):
    assert found(cold_start, load(h200 / name)) is None


def test_later_shapes_that_search_are_found(h200_experiments):
    searched, asked = (load(h200_experiments / "cold/runs" / arm) for arm in ("base", "conv-search-heuristic"))
    hit = found(shape_search, searched)
    assert hit.evidence["step"].iloc[0] == "shape 3"
    assert hit.counted == 7
    assert hit.lever == "conv-search-heuristic"
    assert found(shape_search, asked).lever is None  # it is in force already


def test_shapes_that_cost_a_few_calls_are_no_finding(h200, h200_experiments):
    assert found(shape_search, load(h200_experiments / "cold/runs/conv-search-default")) is None  # 4 to 6 calls
    assert found(shape_search, load(h200 / "resnet50_b1_device")) is None  # no later shapes


def test_the_power_cap_is_found(h200):
    run = load(h200 / "compute_device")
    hit = found(throttling, run)
    assert "87 % of 23 samples, most by the power cap" in hit.said
    assert 0.15 < hit.saves_ns / run.diagnosis.latency.median_ns < 0.25  # 1508 of 1980 MHz in 20 of 23 samples
    assert found(throttling, load(h200 / "compute_numpy")) is None


def test_low_clocks_of_an_idling_gpu_are_found(altered):
    hit = found(idle_clocks, altered("launch_device", "samples", lambda rows: samples_of(rows, sm_clock_mhz=990)))
    assert "990 of 1980 MHz in 100 %" in hit.said
    assert hit.evidence["pause_before_ns"].max() > 0


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("launch_device", {}),
        ("launch_device", {"sm_clock_mhz": 990, "clock_event_reasons_mask": 2}),  # the user's own setting
        ("launch_device", {"sm_clock_mhz": 990, "clock_event_reasons_mask": 4}),  # the power cap
        ("compute_device", {"sm_clock_mhz": 990, "clock_event_reasons_mask": 0}),  # the GPU was busy
    ],
)
def test_clocks_that_idling_does_not_explain_are_no_idle_clocks(altered, name, values):
    assert found(idle_clocks, altered(name, "samples", lambda rows: samples_of(rows, **values))) is None


def test_another_process_is_found(altered, h200):
    run = altered("launch_device", "samples", lambda rows: samples_of(rows, compute_processes_count=3))
    assert "2 other process(es) held the GPU in 100 %" in found(other_process, run).said
    assert found(other_process, load(h200 / "launch_device")) is None


def test_a_long_tail_and_two_kinds_of_calls_are_found(h200_experiments):
    tail = found(unstable_latency, load(h200_experiments / "encoder/runs/float16"))
    assert "1.7 medians" in tail.said
    assert tail.evidence["duration_ns"].is_monotonic_decreasing
    groups = found(unstable_latency, load(h200_experiments / "encoder/runs/base"))
    assert "0.827 and 1.05 ms (27 %)" in groups.said


def test_a_drift_is_found(altered, h200):
    def slower(rows):
        measured = rows.index[(rows["pass"] == "latency") & (rows["phase"] == "measured")]
        late = measured[len(measured) // 2 :]
        rows.loc[late, "duration_ns"] = (rows.loc[late, "duration_ns"] * 1.07).astype("int64")
        return rows

    assert "+7 % against the first" in found(unstable_latency, altered("memory_device", "latency", slower)).said
    assert found(unstable_latency, load(h200 / "memory_device")) is None


@given(st.lists(st.integers(1, 50), min_size=3, max_size=40), st.integers(1, 4))
def test_the_best_cut_is_the_one_that_trying_all_of_them_finds(values, spread):
    durations = np.array(values, np.int64) ** spread
    kept = np.sort(durations)[: -(-99 * len(durations) // 100)].astype(float)
    within = [sum(((part - part.mean()) ** 2).sum() for part in np.split(kept, [cut])) for cut in range(1, len(kept))]
    got = two_groups(durations)
    if got is not None:
        fast, slow, fraction = got
        cut = round((1 - fraction) * len(kept))
        assert within[cut - 1] == pytest.approx(min(within))
        assert min(within) <= 0.15 * ((kept - kept.mean()) ** 2).sum() * (1 + 1e-9)
        assert (fast, slow) == (np.median(kept[:cut]), np.median(kept[cut:]))
        assert slow >= 1.1 * fast


def test_two_groups_need_two_groups():
    draw = np.random.default_rng(0)
    one = draw.normal(1e6, 1e5, 1000).astype(np.int64)
    two = np.concatenate((one, draw.normal(2e6, 1e5, 500).astype(np.int64)))
    assert two_groups(one) is None
    assert two_groups(draw.integers(1_000_000, 2_000_000, 1000)) is None
    assert two_groups(two)[2] == pytest.approx(1 / 3, abs=0.02)


def test_late_launches_are_found_with_their_nodes(h200):
    run = load(h200 / "launch_device")
    hit = found(host_late, run)
    assert hit.lever == "cuda-graph"
    assert hit.saves_ns == pytest.approx(run.diagnosis.pieces.host)
    assert hit.evidence["op_type"].isin(["MatMul", "Tanh"]).all()
    gaps = host_late.late_gaps(Case(run, run.diagnosis))
    assert gaps["gaps_fraction"].sum() == pytest.approx(1)
    assert gaps["traced_gap_ns"].sum() * 3 == sum(slow_gaps(run))


def slow_gaps(run):
    """Idle time before each piece of work of the nodes pass that was launched too late, one by one."""
    begins = run.latency[run.latency["pass"] == "nodes"].set_index("call")["start_ns"]
    for call, work in run.diagnosis.nodes.device.groupby("call"):
        busy_until = begins[call]
        for start, end, launch in work.sort_values("start_ns")[["start_ns", "end_ns", "launch_ns"]].to_numpy():
            yield start - busy_until if start > busy_until and launch > busy_until else 0
            busy_until = max(busy_until, end)


@pytest.mark.parametrize("name", ["launch_device_graph", "memory_device", "resnet50_b64_device"])
def test_a_host_that_is_ahead_is_no_finding(h200, name):
    assert found(host_late, load(h200 / name)) is None


def test_the_one_launch_of_a_replayed_graph_is_no_late_launch(imported):
    names = ("nsight_launch_graph_nodes.sqlite", "ort_profile_launch_graph_nodes_0.json")
    assert found(host_late, imported(*names)) is None


def test_waits_for_nodes_on_the_cpu_are_found(h200_experiments):
    hit = found(sync_inside, load(h200_experiments / "encoder/runs/int8-dynamic"))
    assert "24 times inside each call" in hit.said
    assert set(hit.evidence["op_type"]) == {"DynamicQuantizeLinear"}
    assert set(hit.evidence["provider"]) == {"CPUExecutionProvider"}
    assert set(hit.evidence["place"]) == {"before"}


@pytest.mark.parametrize("name", ["compute_device", "launch_device_graph", "pcie_pinned"])
def test_the_wait_at_the_end_of_a_call_is_no_finding(h200, name):
    assert found(sync_inside, load(h200 / name)) is None


def test_callers_that_wait_for_one_another_are_found(h200_experiments):
    hit = found(concurrency_no_scaling, load(h200_experiments / "streams/runs/concurrency-4"))
    assert "With 4.0 calls in flight" in hit.said
    assert hit.lever == "concurrency-3"
    assert hit.evidence["call_ns"].is_monotonic_decreasing


def test_callers_that_leave_the_device_idle_are_found(imported):
    run = imported("nsight_launch_threads.sqlite")
    hit = found(concurrency_no_scaling, run)
    assert hit.saves_ns == pytest.approx(run.diagnosis.pieces.idle)
    assert hit.evidence["cause"].iloc[0] == "host"


@pytest.mark.parametrize("arm", ["base", "concurrency-2"])
def test_callers_that_help_are_no_finding(h200_experiments, arm):
    assert found(concurrency_no_scaling, load(h200_experiments / "streams/runs" / arm)) is None


def test_a_cut_profile_is_found(capture, tmp_path):
    whole = capture("ort_profile_h200_memory.json").read_bytes()
    cut = tmp_path / "cut.json"
    cut.write_bytes(whole[: 3 * len(whole) // 4])
    assert "cut.json" in found(truncated_profile, wb.import_run([cut], out=tmp_path / "run")).said


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("Not all CUDA events might have been collected.", True),
        ("Number of CUPTI events dropped: 12.", True),
        ("Scheduling information is absent.", False),
    ],
)
def test_what_nsight_warns_of_counts_when_events_are_lost(imported, said, lost):
    run = imported("nsight_launch_threads.sqlite")
    file = run.folder / "diagnostics.parquet"
    rows = pq.read_table(file).to_pandas()
    rows[["severity", "text"]] = ["warning", said]
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), file)
    assert (found(truncated_profile, load(run.folder)) is not None) == lost


def test_a_warning_about_something_else_is_no_finding(imported):
    assert found(truncated_profile, imported("nsight_resnet50_joined.sqlite")) is None


def test_a_run_with_nothing_but_latency_gives_no_finding(h200, tmp_path):
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(h200 / "memory_device" / "latency.parquet", folder)
    manifest = json.loads((h200 / "memory_device" / "manifest.json").read_text())
    manifest["passes"] = {"latency": manifest["passes"]["latency"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    run = load(folder)
    assert [module.RULE for module in ALL if found(module, run)] == []
