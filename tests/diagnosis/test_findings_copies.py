"""Findings about copies and the CPU: what fires on real runs, what it says, and what must stay quiet."""

import json
import shutil
from functools import cache

import numpy as np
import onnxruntime as ort
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import workbench as wb
from workbench.api import load
from workbench.diagnosis.findings import (
    allocations,
    control_flow_sync,
    cpu_nodes,
    dominant_copies,
    int8_on_cpu,
    memcpy_nodes,
    outputs_copied,
    pageable_copies,
    silent_cpu,
)
from workbench.diagnosis.findings.finding import Case
from workbench.diagnosis.findings.placement import quantised
from workbench.runs.writer import write_table

pytestmark = pytest.mark.slow  # every rule on every kind of recorded run

COPIES = (dominant_copies, pageable_copies, outputs_copied)
ON_CPU = (silent_cpu, memcpy_nodes, cpu_nodes, int8_on_cpu)
FOUR = "nsight_h200_four_classes.sqlite"
THREADS = ("nsight_launch_threads.sqlite", "ort_profile_launch_threads_0.json")


def of(run, *modules):
    """The findings of these rules by name; no rule finds a thing twice, saves more than T, or shows nothing."""
    case = Case(run, run.diagnosis)
    found = [each for module in modules for each in module.rule(case)]
    for each in found:
        assert each.said.endswith(".")
        assert each.remedy.endswith(".")
        assert 0 < len(each.evidence) <= each.counted
        assert each.saves_ns is None or 0 < each.saves_ns <= case.latency_ns
        assert json.dumps(each.to_dict())
    assert len({each.rule for each in found}) == len(found)
    return {each.rule: each for each in found}


def only(run, module):
    return of(run, module).get(module.RULE)


def altered(source, target, change=None, table="nodes", **manifest):
    """A copy of a run, one table of which went through `change` as a DataFrame, with other fields of the manifest."""
    folder = shutil.copytree(source, target / "altered", ignore=shutil.ignore_patterns("derived*"))
    if change is not None:
        frame = pq.read_table(folder / f"{table}.parquet").to_pandas()
        words = [name for name, kind in frame.dtypes.items() if kind == "category"]
        frame = change(frame.astype(dict.fromkeys(words, object)))
        write_table(folder, table, pa.Table.from_pandas(frame, preserve_index=False))
    file = folder / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **manifest}))
    return load(folder)


@cache
def recorded(folder):
    """A run as it was recorded, diagnosed once for all tests."""
    return load(folder)


def renamed(column, old, new):
    return lambda table: table.assign(**{column: table[column].replace(old, new)})


@pytest.mark.parametrize("name", ["compute", "memory", "pcie"])
def test_what_copies_cost_is_what_binding_saved_when_it_was_tried(h200_experiments, name):
    runs = h200_experiments / name / "runs"
    arms = {arm: recorded(runs / arm) for arm in ("base", "io-binding-device", "io-binding-pinned")}
    latency_ns = {arm: run.diagnosis.latency.median_ns for arm, run in arms.items()}
    found = of(arms["base"], dominant_copies, pageable_copies)
    for rule, lever in (("dominant-copies", "io-binding-device"), ("pageable-copies", "io-binding-pinned")):
        assert found[rule].lever == lever
        assert found[rule].saves_ns == pytest.approx(latency_ns["base"] - latency_ns[lever], rel=0.12)
        assert found[rule].evidence["carries"][0] == "input x"
    assert not of(arms["io-binding-device"], *COPIES)
    assert "pageable-copies" not in of(arms["io-binding-pinned"], *COPIES)
    assert only(arms["io-binding-pinned"], dominant_copies)


@pytest.mark.parametrize("name", ["launch_numpy", "resnet50_b1_numpy", "encoder_device", "launch_device_graph"])
def test_small_copies_and_none_are_no_finding(h200, name):
    assert not of(recorded(h200 / name), *COPIES, *ON_CPU, control_flow_sync, allocations)


def test_without_ceilings_a_pageable_copy_is_found_but_not_what_it_would_save(h200, tmp_path):
    found = only(altered(h200 / "pcie_numpy", tmp_path, ceilings={}), pageable_copies)
    assert found.saves_ns is None
    assert found.evidence["page_locked_ns"].isna().all()
    assert found.evidence["bytes"][0] == 4 * 2**26


def test_outputs_count_when_they_are_large(h200):
    run = recorded(h200 / "memory_numpy")
    found = only(run, outputs_copied)
    assert found.evidence["carries"].tolist() == ["output y"]
    assert found.evidence["bytes"].tolist() == [4 * 2**26]
    assert found.saves_ns < only(run, dominant_copies).saves_ns
    assert "only you know" in found.said
    assert only(recorded(h200 / "pcie_numpy"), outputs_copied) is None  # one number goes out


def test_copies_inside_the_graph_are_not_those_of_inputs_and_outputs(h200_experiments):
    run = recorded(h200_experiments / "encoder/runs/int8-dynamic")
    assert run.diagnosis.shares["pcie"] > 0.3
    assert not of(run, *COPIES)


def test_a_capture_without_nodes_shows_copies_by_size(capture, tmp_path):
    run = wb.import_run([capture(FOUR)], out=tmp_path / "run", range="memory:measure")
    found = of(run, *COPIES)
    assert set(found) == {"dominant-copies", "pageable-copies"}
    shown = found["dominant-copies"].evidence
    assert shown["carries"].isna().all()
    assert set(shown["kind"]) == {"h2d", "d2h"}
    assert set(shown["copy_bytes"]) == {4 * 2**26}


def test_a_capture_that_does_not_say_what_memory_it_copies_from_has_no_pageable_copies(capture, tmp_path):
    run = wb.import_run([capture("cupti_h200_memory.json")], out=tmp_path / "run")
    found = of(run, *COPIES)
    assert set(found) == {"dominant-copies"}
    assert "to the device" in found["dominant-copies"].said
    assert found["dominant-copies"].evidence["source"].isna().all()


def test_each_memcpy_node_leads_to_the_node_on_the_cpu_that_causes_it(h200_experiments):
    run = recorded(h200_experiments / "encoder/runs/int8-dynamic")
    found = only(run, memcpy_nodes)
    assert found.counted == 84
    shown, nodes = found.evidence, run.nodes.drop_duplicates("name").set_index("name")
    assert (nodes.loc[shown["cause"], "provider"] == "CPUExecutionProvider").all()
    assert (nodes.loc[shown["cause"], "op_type"].to_numpy() == shown["cause_op_type"]).all()
    assert shown["host_ns"].is_monotonic_decreasing
    assert (shown["copy_ns"] <= shown["host_ns"]).all()
    pieces = run.diagnosis.pieces
    device_ns = pieces.compute + pieces.memory + pieces.under_filled + pieces.unknown
    assert found.saves_ns <= run.diagnosis.latency.median_ns - device_ns
    assert "MatMulInteger" in found.said
    assert only(recorded(h200_experiments / "encoder/runs/base"), memcpy_nodes) is None


@pytest.mark.parametrize(("missing", "unsaid"), [("graph.onnx", "because"), ("copies.parquet", "MB")])
def test_memcpy_nodes_are_found_without_what_else_is_known_of_them(h200_experiments, tmp_path, missing, unsaid):
    source = h200_experiments / "encoder/runs/int8-dynamic"
    assert unsaid in only(recorded(source), memcpy_nodes).said
    run = altered(source, tmp_path)
    (run.folder / missing).unlink()
    found = only(load(run.folder), memcpy_nodes)
    assert found.counted == 84
    assert unsaid not in found.said
    assert found.evidence["cause" if missing == "graph.onnx" else "bytes"].isna().all()


@pytest.mark.parametrize(
    ("experiment", "arm", "other", "count", "op_type"),
    [
        ("encoder", "int8-dynamic", "float16", 60, "MatMulInteger"),
        ("resnet50-b32", "int8-static", "base", 54, "DequantizeLinear"),
    ],
)
def test_quantised_nodes_on_the_cpu_are_found(h200_experiments, experiment, arm, other, count, op_type):
    runs = h200_experiments / experiment / "runs"
    found = of(recorded(runs / arm), *ON_CPU)
    assert set(found) == {"int8-on-cpu", "memcpy-nodes"}  # quantised nodes are not told twice
    assert found["int8-on-cpu"].counted == count
    assert found["int8-on-cpu"].evidence["op_type"][0] == op_type
    assert found["int8-on-cpu"].saves_ns >= found["memcpy-nodes"].saves_ns
    assert not of(recorded(runs / other), *ON_CPU)


def test_weights_in_blocks_that_the_gpu_computes_are_no_finding(h200_experiments):
    run = recorded(h200_experiments / "decoder-weights/runs/int4-weights")
    assert quantised(run.nodes["op_type"]).any()
    assert not of(run, *ON_CPU)


def test_other_nodes_on_the_cpu_are_found_with_their_neighbours(h200_experiments, tmp_path):
    """The quantised products of a real run under another operator's name, which no real run at hand has there."""
    source = h200_experiments / "encoder/runs/int8-dynamic"
    found = of(altered(source, tmp_path, renamed("op_type", "MatMulInteger", "NonMaxSuppression")), *ON_CPU)
    assert found["cpu-nodes"].counted == 36
    assert found["int8-on-cpu"].counted == 24
    shown = found["cpu-nodes"].evidence
    assert (shown["fed_by"] == "DynamicQuantizeLinear").all()
    assert (shown["feeds"] == "MemcpyFromHost").all()


def test_a_profile_of_the_cpu_is_found_to_be_one(small_model, tmp_path):
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = ort.InferenceSession(small_model, options, providers=["CPUExecutionProvider"])
    for _ in range(3):
        session.run(None, {"x": np.zeros((1, 8), np.float32)})
    run = wb.import_run([session.end_profiling()], out=tmp_path / "run")
    found = of(run, *ON_CPU)
    assert set(found) == {"silent-cpu"}
    assert found["silent-cpu"].evidence["nodes"].sum() == 6


@pytest.mark.parametrize("with_nodes", [True, False])
def test_a_run_on_a_gpu_without_a_node_there_is_found(h200, tmp_path, with_nodes):
    """A real run whose nodes, or whose providers where nodes were not recorded, are said to be the CPU's."""
    cpu = "CPUExecutionProvider"
    change = renamed("provider", "CUDAExecutionProvider", cpu) if with_nodes else lambda nodes: nodes.iloc[:0]
    found = of(altered(h200 / "launch_device", tmp_path, change, providers=[cpu]), *ON_CPU)
    assert set(found) == {"silent-cpu"}
    assert ("300" in found["silent-cpu"].said) == with_nodes


@pytest.mark.parametrize(
    ("provider", "notes", "fires"),
    [
        ("auto", [], False),
        ("cpu", [], False),
        ("cuda", [], True),
        (
            "auto",
            ["Measured on the CPU, as allowed: cuDNN is missing."],
            True,
        ),
    ],
)
def test_a_run_on_the_cpu_is_a_finding_only_when_a_gpu_was_meant(h200, tmp_path, provider, notes, fires):
    """A real run that is said to come from a CPU, with what was asked for and noted beside it."""
    run = altered(
        h200 / "launch_device", tmp_path, renamed("provider", "CUDAExecutionProvider", "CPUExecutionProvider"),
        device={"kind": "cpu", "name": "some CPU"}, config={"model": "m.onnx", "provider": provider}, notes=notes,
    )  # fmt: skip
    assert set(of(run, *ON_CPU)) == ({"silent-cpu"} if fires else set())


def around_all_nodes(nodes):
    """The nodes, and in each call a loop that begins with the first of them and ends with the last."""
    first = nodes.sort_values("start_ns").drop_duplicates("call").set_index("call", drop=False)
    ends = (nodes["start_ns"] + nodes["duration_ns"]).groupby(nodes["call"]).max()
    loop = first.assign(name="loop", op_type="Loop", node_index=-1, duration_ns=ends - first["start_ns"])
    return pd.concat([loop, nodes], ignore_index=True)


@pytest.mark.parametrize(
    ("change", "nodes"), [(renamed("op_type", "DynamicQuantizeLinear", "If"), 24), (around_all_nodes, 1)]
)
def test_control_flow_that_waits_for_the_device_is_found(h200_experiments, tmp_path, change, nodes):
    """A real run that waits before 24 of its nodes, which are said to be branches, or all to lie in a loop."""
    source = h200_experiments / "encoder/runs/int8-dynamic"
    assert only(recorded(source), control_flow_sync) is None
    run = altered(source, tmp_path, change)
    found = only(run, control_flow_sync)
    assert found.counted == nodes
    assert found.evidence["waits"].sum() >= 20
    syncs = run.launches[run.launches["name"] == "cudaEventSynchronize"]
    in_all_ns = (syncs["end_ns"] - syncs["start_ns"])[syncs["call"].isin([4, 5, 6])].sum() / 3
    assert 0.9 * in_all_ns < found.saves_ns < 1.1 * in_all_ns


def test_control_flow_that_waits_for_nothing_is_no_finding(h200, tmp_path):
    """A real run without a wait inside its nodes, some of which are said to be branches."""
    assert only(altered(h200 / "launch_device", tmp_path, renamed("op_type", "Tanh", "If")), control_flow_sync) is None


@pytest.mark.parametrize(("calls", "fires"), [("3..5", True), (None, False)])
def test_allocations_count_when_most_calls_make_some(capture, tmp_path, calls, fires):
    run = wb.import_run([capture(name) for name in THREADS], out=tmp_path / "run", calls=calls)
    assert run.launches["name"].astype(str).str.startswith("cudaMalloc").any()
    found = only(run, allocations)
    assert (found is not None) == fires
    if found is not None:
        assert "cudaMalloc" in set(found.evidence["name"])
        assert found.lever is None
