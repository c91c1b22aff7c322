"""Real captures of other tools become runs: what is in them, which part is taken, how the clocks are joined.

The expected numbers were counted with SQL in the exports, or are what the recording program knew (`truth.json`).
"""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import workbench as wb
from workbench.errors import ConfigError, RunFolderError, SourceError
from workbench.runs.imports.calls import Calls, parse_calls
from workbench.runs.nsight.metrics import plain_metric_name

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
FOUR, METRICS, TWO = (
    "nsight_h200_four_classes.sqlite",
    "nsight_h200_four_classes_gpu_metrics.sqlite",
    "nsight_h100_two_processes.sqlite",
)
TRUTH = json.loads((CAPTURES / "truth.json").read_text())
JOINED = {
    "resnet50_joined": ("nsight_resnet50_joined.sqlite", "ort_profile_resnet50_joined_0.json"),
    "launch_graph_nodes": ("nsight_launch_graph_nodes.sqlite", "ort_profile_launch_graph_nodes_0.json"),
    "launch_graph_whole": ("nsight_launch_graph_whole.sqlite", "ort_profile_launch_graph_whole_0.json"),
    "launch_threads": ("nsight_launch_threads.sqlite", "ort_profile_launch_threads_0.json"),
}


@pytest.fixture(scope="module")
def imported(capture, tmp_path_factory):
    """Import captures by name, the same part of the same ones once for all tests."""

    @cache
    def run(*names: str, **options) -> wb.Run:
        return wb.import_run([capture(name) for name in names], out=tmp_path_factory.mktemp("run") / "run", **options)

    return run


@pytest.mark.parametrize(
    ("family", "verdict"), [("compute", "pcie"), ("memory", "pcie"), ("pcie", "pcie"), ("launch", "launch")]
)
def test_a_phase_of_four_models_gets_its_own_class(imported, family, verdict):
    run = imported(FOUR, range=f"{family}:measure")
    assert run.diagnosis.verdict.name == verdict
    assert len(run.latency) == 10
    assert run.manifest.imported.calls_marked_by == "the NVTX range 'run'"
    assert sum(run.diagnosis.shares.values()) == pytest.approx(1, abs=1e-9)
    assert run.manifest.device.name == "NVIDIA H200"
    assert run.manifest.device.sm_count == 132


def test_everything_in_an_export_arrives(imported, capture):
    run = imported(FOUR)
    counts = {"kernels": 4121, "copies": 113, "memsets": 133, "syncs": 114, "launches": 11770, "ranges": 52}
    assert {name: len(run.table(name)) for name in counts} == counts
    with closing(sqlite3.connect(capture(FOUR))) as export:
        epoch = export.execute("SELECT utcEpochNs FROM TARGET_INFO_SESSION_START_TIME").fetchone()[0]
        query = "SELECT sum(end - start), min(start), max(end) FROM CUPTI_ACTIVITY_KIND_KERNEL"
        there = export.execute(query).fetchone()
    kernels = run.kernels
    assert int((kernels["end_ns"] - kernels["start_ns"]).sum()) == there[0]
    assert (kernels["start_ns"].min(), kernels["end_ns"].max()) == (there[1] + epoch, there[2] + epoch)
    assert set(run.ranges["payload"].dropna()) == {str(index) for index in range(10)}


def test_a_few_calls_can_be_chosen(imported):
    run = imported(FOUR, range="launch:measure", calls="2..4")
    assert run.latency["call"].tolist() == [2, 3, 4]
    begin, end = run.manifest.imported.window_ns
    assert run.kernels["start_ns"].between(begin, end - 1).all()
    assert set(run.kernels["call"]) == {2, 3, 4}
    assert not run.has("cuda_events")  # this schema gives them no time, so that none is known to lie inside
    assert len(run.kernels) == 3 * 300


def test_no_kernel_of_two_processes_starts_before_its_launch(imported):
    run = imported(TWO)
    assert set(run.kernels["process"]) == {111, 112}
    pairs = run.kernels.merge(run.launches, on=["process", "correlation"], suffixes=("", "_launch"))
    assert len(pairs) == 2 * 816
    assert (pairs["start_ns"] > pairs["start_ns_launch"]).all()
    said = " ".join(run.diagnosis.notes)
    assert "process 112 on device 1" in said
    assert "process 111 on device 0" in said


def test_the_verdict_is_of_the_process_and_device_whose_kernels_run_longest(imported):
    run = imported(TWO)
    lengths = (run.kernels["end_ns"] - run.kernels["start_ns"]).groupby([run.kernels["process"], run.kernels["device"]])
    info = run.manifest.imported
    assert (info.subject_process, info.subject_device) == lengths.sum().idxmax()


def test_a_process_without_kernels_is_refused_with_those_that_have_some(imported):
    with pytest.raises(ConfigError, match="choose process 111 on device 0, process 112 on device 1, which"):
        imported(TWO, process=999)


def test_one_process_can_be_chosen(imported):
    run = imported(TWO, process=111, device=0)
    assert set(run.kernels["process"]) == {111}
    assert set(run.launches["process"]) == {111}
    assert len(run.kernels) == 1721


@pytest.mark.slow
def test_gpu_metrics_are_counters(imported, capture):
    run = imported(METRICS)
    counters = run.table("counters")
    assert len(counters) == 1_896_884
    needed = {"dram_read_bandwidth_percent", "tensor_active_percent", "pcie_rx_throughput_percent"}
    assert needed <= set(counters["metric"])
    with closing(sqlite3.connect(capture(METRICS))) as export:
        metric = export.execute("SELECT metricId FROM TARGET_INFO_GPU_METRICS WHERE metricName LIKE 'Tensor Active%'")
        query = "SELECT count(*), sum(value) FROM GPU_METRICS WHERE metricId = ?"
        count, total = export.execute(query, metric.fetchone()).fetchone()
    tensor = counters[counters["metric"] == "tensor_active_percent"]
    assert (len(tensor), tensor["value"].sum()) == (count, total)
    # sampled at 10 kHz: what a value is the mean of is the time since the one before
    assert tensor["window_ns"].median() == pytest.approx(100_000, rel=0.02)
    assert tensor["window_ns"].isna().sum() == 1
    clock = counters[counters["metric"] == "gpc_clock_frequency_mhz"]["value"]
    assert 300 < clock.max() < 2100


def test_gpu_metrics_are_in_the_samples_and_in_the_figures(imported):
    run = imported(METRICS, range="compute:measure")
    samples = run.samples
    shown = {"sm_clock_mhz", "tensor_active_percent", "dram_read_bandwidth_percent", "pcie_rx_throughput_percent"}
    assert shown <= set(samples["metric"])
    counters = run.table("counters")
    for metric in ("tensor_active_percent", "pcie_rx_throughput_percent"):
        means = [table.loc[table["metric"] == metric, "value"].mean() for table in (counters, samples)]
        assert means[0] == pytest.approx(means[1], rel=0.2)
    titles = " ".join(str(axis.title.text) for axis in run.figures["samples"].select_yaxes())
    for words in ("tensor cores", "DRAM reads", "DRAM writes", "PCIe to GPU", "SM clock"):
        assert words in titles
    pcie = next(each for each in run.diagnosis.corroboration if each.counter == "PCIe traffic")
    assert 0.05 < pcie.measured < 1
    assert pcie.agrees


@pytest.mark.parametrize("name", JOINED)
def test_clocks_are_joined_to_within_the_residual(imported, name):
    run = imported(*JOINED[name])
    (clock,) = run.manifest.imported.clocks
    true_ns = TRUTH[name]["profiles"][0]["start_ns"]
    assert clock.joined, clock.reason
    assert abs(clock.offset_ns - true_ns) <= clock.residual_ns + 2_000
    assert clock.residual_ns < 20_000
    assert clock.inside > 0.97
    assert any("was put on the export's clock" in note for note in run.diagnosis.notes)


def test_nodes_launch_the_kernels_of_a_joined_capture(imported):
    run = imported(*JOINED["resnet50_joined"], range="measure")
    assert len(run.latency) == 10
    assert run.diagnosis.attributed > 0.99
    owners = run.diagnosis.nodes.device.merge(
        run.diagnosis.nodes.executions[["op_type"]], left_on="node", right_index=True
    )
    kernels = owners[owners["table"] == "kernels"]
    convolving = kernels["name"].astype(str).str.contains("conv|fprop|winograd|implicit", case=False)
    assert (kernels.loc[convolving, "op_type"].astype(str).isin(["Conv", "FusedConv"])).mean() > 0.99


@pytest.mark.parametrize("export", ["nsight_launch_graph_nodes.sqlite", "nsight_launch_graph_nodes_parquet"])
def test_replayed_kernels_lead_back_to_the_nodes_that_were_captured(imported, capture, tmp_path, export):
    profile = capture("ort_profile_launch_graph_nodes_0.json")
    if export.endswith("_parquet"):
        with tarfile.open(CAPTURES / f"{export}.tar.xz") as archive:
            archive.extractall(tmp_path, filter="data")
        run = wb.import_run([tmp_path / export, profile], out=tmp_path / "run", range="measure")
    else:
        run = imported(export, profile.name, range="measure")
    device = run.diagnosis.nodes.device
    kernels = device[device["table"] == "kernels"]
    assert len(kernels) == 10 * 100  # 100 nodes, replayed in each of ten calls
    assert kernels["cause"].isna().mean() >= 0.99
    owner = run.diagnosis.nodes.executions.loc[kernels["node"], "op_type"].astype(str).to_numpy()
    gemv = kernels["name"].astype(str).str.contains("gemv").to_numpy()
    assert (owner[gemv] == "MatMul").all()
    assert (owner[~gemv] == "Tanh").all()
    assert run.diagnosis.nodes.nodes["executions"].eq(1).all()


def test_a_profile_of_another_run_is_not_joined(imported):
    run = imported("nsight_resnet50_joined.sqlite", "ort_profile_launch_threads_0.json")
    (clock,) = run.manifest.imported.clocks
    assert not clock.joined
    assert clock.reason.startswith("The clocks are not joined, because")
    assert not run.has("nodes")
    assert any("No node is attributed" in text for text in run.diagnosis.missing)


def test_calls_of_several_threads_are_taken_together(imported):
    run = imported(*JOINED["launch_threads"], range="measure")
    assert len(run.latency) == 18
    assert any("The calls overlap" in note for note in run.diagnosis.notes)
    assert sum(run.diagnosis.shares.values()) == pytest.approx(1, abs=1e-9)
    durations = run.latency["duration_ns"]
    assert run.diagnosis.latency.median_ns < durations.median()
    device = run.diagnosis.nodes.device
    assert device.loc[device["table"] == "kernels", "cause"].isna().mean() > 0.99


def test_sessions_of_two_profiles_are_told_apart(imported):
    names = ["nsight_two_sessions.sqlite", "ort_profile_two_sessions_0.json", "ort_profile_two_sessions_1.json"]
    run = imported(*names)
    joined = [clock for clock in run.manifest.imported.clocks if clock.joined]
    if len(joined) == 2:
        assert set(run.nodes["session"]) == {0, 1}
    else:  # the second model has eight nodes: too few to be sure
        assert any("too few" in clock.reason for clock in run.manifest.imported.clocks)
        assert not run.has("nodes")
    domains = run.ranges.loc[run.ranges["name"] == "run", "domain"]
    assert set(domains) == {"inference"}


def test_a_profile_alone_shows_the_nodes_and_says_what_is_missing(imported):
    run = imported("ort_profile_h200_memory.json")
    assert len(run.latency) == 13
    assert set(run.nodes["provider"]) == {"CUDAExecutionProvider"}
    assert run.diagnosis.verdict.name == "inconclusive"
    assert any("no device work" in text for text in run.diagnosis.missing)


def test_a_truncated_profile_is_flagged(capture, tmp_path):
    events = json.loads(capture("ort_profile_h200_memory.json").read_text())
    events.append(
        {"cat": "Session", "pid": 1, "tid": 1, "dur": 0, "ts": 10**7, "ph": "X", "name": "profile_truncated"}
        | {"args": {"dropped_event_count": "4711"}}
    )
    file = tmp_path / "truncated.json"
    file.write_text(json.dumps(events))
    run = wb.import_run(file, out=tmp_path / "run")
    assert any("dropped 4,711 events" in text for text in run.manifest.imported.skipped)
    assert "4,711" in run.report(tmp_path / "report.html").read_text()


def test_a_trace_of_pytorch_is_a_run(tmp_path):
    run = wb.import_run(CAPTURES / "kineto_resnet50.json.gz", out=tmp_path / "run")
    assert run.manifest.device.name == "NVIDIA H200"
    assert run.manifest.imported.calls_marked_by == "the profiler's steps"
    assert len(run.latency) == 4
    assert run.manifest.providers == ["PyTorch"]
    assert run.diagnosis.attributed > 0.99
    device = run.diagnosis.nodes.device
    kernels = device[device["table"] == "kernels"]
    owner = run.diagnosis.nodes.executions.loc[kernels["node"], "op_type"].astype(str).to_numpy()
    convolving = kernels["name"].astype(str).str.contains("fprop|implicit_gemm").to_numpy()
    assert set(owner[convolving]) == {"aten::cudnn_convolution"}
    per_step = kernels.groupby("call").size()
    assert per_step.nunique() == 1  # the same network in every step
    with gzip.open(CAPTURES / "kineto_resnet50.json.gz") as file:
        events = json.load(file)["traceEvents"]
    assert len(run.kernels) == sum(event.get("cat") == "kernel" for event in events)
    longest = max((event for event in events if event.get("cat") == "kernel"), key=lambda event: event["dur"])
    assert (run.kernels["end_ns"] - run.kernels["start_ns"]).max() == round(longest["dur"] * 1000)


@pytest.mark.parametrize(
    "name", ["ort_profile_h200_memory.json", TWO, FOUR, pytest.param(METRICS, marks=pytest.mark.slow)]
)
def test_every_kind_of_capture_is_a_run_with_a_report(imported, tmp_path, name):
    run = imported(name)
    assert len(run.latency) >= 1
    assert run.report(tmp_path / "report.html").stat().st_size < 3_000_000
    assert "\n" in run.summary()


@pytest.mark.parametrize("family", ["compute", "memory", "pcie", "launch"])
def test_rows_of_cupti_records_are_a_run(imported, family):
    run = imported(f"cupti_h200_{family}.json")
    assert run.diagnosis.verdict.name == ("launch" if family == "launch" else "pcie")


def test_a_newer_schema_opens_and_says_what_was_skipped(capture, tmp_path):
    file = tmp_path / "newer.sqlite"
    shutil.copy(capture(FOUR), file)
    with closing(sqlite3.connect(file)) as export:
        export.execute("UPDATE META_DATA_EXPORT SET value = '4.1.0' WHERE name = 'EXPORT_SCHEMA_VERSION'")
        export.execute("CREATE TABLE CUPTI_ACTIVITY_KIND_TELEPORT (start INTEGER, [end] INTEGER)")
        export.execute("ALTER TABLE CUPTI_ACTIVITY_KIND_MEMSET RENAME COLUMN [end] TO finish")
        export.commit()
    run = wb.import_run(file, out=tmp_path / "run")
    said = " ".join(run.manifest.imported.skipped)
    assert "schema 4.1.0 is newer than any known" in said
    assert "CUPTI_ACTIVITY_KIND_TELEPORT" in said
    assert "CUPTI_ACTIVITY_KIND_MEMSET lacks the column end" in said
    assert len(run.kernels) == 4121
    assert not run.has("memsets")


def test_an_export_that_writes_zero_for_nothing(capture, tmp_path):
    file = tmp_path / "older.sqlite"
    shutil.copy(capture(FOUR), file)
    with closing(sqlite3.connect(file)) as export:
        for table in ("KERNEL", "MEMCPY", "MEMSET"):
            export.execute(f"UPDATE CUPTI_ACTIVITY_KIND_{table} SET graphNodeId = 0")
        export.execute("UPDATE META_DATA_EXPORT SET value = '2.7.1' WHERE name = 'EXPORT_SCHEMA_VERSION'")
        export.execute("UPDATE NVTX_EVENTS SET text = (SELECT value FROM StringIds WHERE id = textId)")
        export.execute("ALTER TABLE NVTX_EVENTS DROP COLUMN textId")
        export.commit()
    run = wb.import_run(file, out=tmp_path / "run", range="pcie:measure")
    assert run.kernels["graph_node"].isna().all()
    assert run.diagnosis.verdict.name == "pcie"
    assert run.manifest.imported.skipped == []


def test_rows_out_of_order_are_sorted(imported, capture, tmp_path):
    file = tmp_path / "shuffled.sqlite"
    shutil.copy(capture(FOUR), file)
    with closing(sqlite3.connect(file)) as export:
        order = "ORDER BY (start * 7919) % 1000"
        export.execute(f"CREATE TABLE shuffled AS SELECT * FROM CUPTI_ACTIVITY_KIND_KERNEL {order}")
        export.execute("DROP TABLE CUPTI_ACTIVITY_KIND_KERNEL")
        export.execute("ALTER TABLE shuffled RENAME TO CUPTI_ACTIVITY_KIND_KERNEL")
        export.commit()
    run = wb.import_run(file, out=tmp_path / "run")
    straight = imported(FOUR)
    assert run.kernels["start_ns"].is_monotonic_increasing
    columns = ["start_ns", "end_ns", "correlation", "call", "grid_x"]
    assert (run.kernels[columns].to_numpy() == straight.kernels[columns].to_numpy()).all()
    assert (run.kernels["name"].astype(str) == straight.kernels["name"].astype(str)).all()


def test_open_ranges_end_with_the_capture(capture, tmp_path):
    file = tmp_path / "open.sqlite"
    shutil.copy(capture(FOUR), file)
    with closing(sqlite3.connect(file)) as export:
        name = "(SELECT id FROM StringIds WHERE value = 'launch:measure')"
        export.execute(f"UPDATE NVTX_EVENTS SET [end] = NULL WHERE textId = {name}")
        stop = export.execute("SELECT stopTime FROM ANALYSIS_DETAILS").fetchone()[0]
        epoch = export.execute("SELECT utcEpochNs FROM TARGET_INFO_SESSION_START_TIME").fetchone()[0]
        export.commit()
    run = wb.import_run(file, out=tmp_path / "run", range="launch:measure")
    (left,) = run.ranges[run.ranges["open"]].to_dict("records")
    assert left["name"] == "launch:measure"
    assert left["end_ns"] == stop + epoch
    assert len(run.latency) == 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"range": "compute:mesure"}, "'compute:measure'"),
        ({"range": "compute:measure", "calls": "20..30"}, "10 calls, 0 to 9"),
        ({"calls": "9..3"}, "two numbers in order"),
        ({"call": "nothing"}, "no NVTX range 'nothing'"),
        ({"process": 1}, "process 654"),
        ({"device": 7}, "device 0"),
    ],
)
def test_a_selection_that_is_not_there_is_one_sentence(capture, tmp_path, options, words):
    with pytest.raises(ConfigError, match=words) as refusal:
        wb.import_run(capture(FOUR), out=tmp_path / "run", **options)
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_files_that_do_not_belong_together_are_refused(capture, tmp_path):
    with pytest.raises(ConfigError, match="import each on its own"):
        wb.import_run([capture(FOUR), capture(TWO)], out=tmp_path / "run")
    with pytest.raises(ConfigError, match="stands for itself"):
        wb.import_run([capture(FOUR), CAPTURES / "kineto_resnet50.json.gz"], out=tmp_path / "run")
    with pytest.raises(ConfigError, match="There is no file"):
        wb.import_run(tmp_path / "nothing.sqlite", out=tmp_path / "run")
    with pytest.raises(SourceError, match="is no capture that is known"):
        wb.import_run(CAPTURES / "README.md", out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_report_needs_nsys(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    report = tmp_path / "a.nsys-rep"
    report.write_bytes(b"whatever it holds")
    with pytest.raises(SourceError, match=r"nsys export --type=sqlite a\.nsys-rep"):
        wb.import_run(report, out=tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nsys-rep"]


def test_a_report_goes_through_nsys(capture, tmp_path, monkeypatch):
    fake = tmp_path / "bin" / "nsys"
    fake.parent.mkdir()
    copied = f'case $a in --output=*) cp {capture(FOUR)} "${{a#--output=}}";; esac'
    fake.write_text(f'#!/bin/sh\nfor a in "$@"; do {copied}; done\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:/usr/bin:/bin")
    report = tmp_path / "a.nsys-rep"
    report.write_bytes(b"whatever it holds")
    run = wb.import_run(report, out=tmp_path / "run")
    assert len(run.kernels) == 4121
    assert run.manifest.imported.files[0].name == "a.nsys-rep"
    assert not (run.folder / "export.sqlite").exists()


def test_a_run_that_exists_is_not_overwritten(imported, capture):
    with pytest.raises(RunFolderError, match="exists already"):
        wb.import_run(capture(FOUR), out=imported(FOUR).folder)


@pytest.mark.parametrize(("text", "pair"), [("20..30", (20, 30)), (" 7 ", (7, 7)), ("0 .. 1", (0, 1))])
def test_calls_are_parsed(text, pair):
    assert parse_calls(text) == pair


@pytest.mark.parametrize("text", ["", "..", "a..b", "3..", "-1..2", "1...2", "9999999999"])
def test_what_names_no_calls_is_refused(text):
    with pytest.raises(ConfigError, match=r"such as 20\.\.30"):
        parse_calls(text)


def test_time_per_call_of_overlapping_calls_is_the_time_any_ran():
    starts, ends = np.array([0, 10, 100]), np.array([50, 30, 160])
    calls = Calls.of(starts, ends, "test")
    assert calls.overlap
    assert calls.time_per_call(0)[0] == pytest.approx((50 + 60) / 3)
    assert not Calls.of(starts[[0, 2]], ends[[0, 2]], "test").overlap


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("DRAM Read Bandwidth [Throughput %]", "dram_read_bandwidth_percent"),
        ("SMs Active [Throughput %]", "sm_active_percent"),
        ("Compute Warps in Flight [Avg Warps per Cycle]", "compute_warps_in_flight_avg_warps_per_cycle"),
        ("GPC Clock Frequency [MHz]", "gpc_clock_frequency_mhz"),
        ("", ""),
    ],
)
def test_metric_names_are_plain(given, plain):
    assert plain_metric_name(given) == plain
