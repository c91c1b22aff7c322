"""Verdicts from latency and NVML alone, on runs recorded on a real H200, and the parts on made ones."""

from collections import Counter
from functools import cache
from types import SimpleNamespace

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import zoo
from workbench.analysis.filling import Filling
from workbench.analysis.tables import rows_of
from workbench.analysis.work import count_work
from workbench.api import load
from workbench.capture.model import rebatch
from workbench.capture.skeleton import write_skeleton
from workbench.diagnosis.device_load import DeviceLoad, device_load, link_bytes
from workbench.diagnosis.estimate import estimate
from workbench.diagnosis.estimated_pieces import Evidence, Floors, Guess, pieces_of
from workbench.diagnosis.link_floor import LinkFloor, link_floor
from workbench.diagnosis.static_nodes import static_filling, static_nodes
from workbench.diagnosis.verdict import judge
from workbench.runs.manifest import Ceilings, ImportInfo, LatencyInfo, Manifest

BARE = ("latency", "samples")
MS = 1_000_000


class BareRun:
    """A run whose tables but those two may not even be asked for."""

    def __init__(self, run):
        self._run = run

    def table(self, name, columns=None):
        assert name in BARE, f"an estimate must not read {name}"
        return self._run.table(name, columns)


@cache
def whole_graph(name, batch):
    if name != "resnet50":
        return zoo.build(name)
    model = onnx.load(zoo.resnet50_path())
    return rebatch(model, batch) if batch > 1 else model


@pytest.fixture(scope="session")
def graph_of(tmp_path_factory):
    """The graph that a recorded run was given, without weights; its input is named as in the run."""
    folder = tmp_path_factory.mktemp("graphs")

    def graph(manifest):
        feeds = manifest.model.feed_shapes
        batch = next(iter(feeds.values()))[0] if manifest.model.name == "resnet50" else 1
        file = folder / f"{manifest.model.name}_{batch}.onnx"
        if not file.exists():
            model = onnx.ModelProto()
            model.CopyFrom(whole_graph(manifest.model.name, batch))
            write_skeleton(model, file)
        return onnx.load(file)

    return graph


def verdict_of(found):
    verdict = judge(found.pieces.shares())
    return "+".join(verdict.pair) if verdict.pair else verdict.name


KNOWN = {
    "compute_device": "compute",
    "compute_numpy": "pcie",
    "memory_device": "memory",
    "memory_numpy": "pcie",
    "pcie_device": "memory",
    "pcie_numpy": "pcie",
    "pcie_pinned": "pcie",
    "launch_device": "launch",
    "launch_numpy": "launch",
    "launch_device_graph": "launch",
    "decoder_device": "launch",
    "encoder_device": "launch",
    "resnet50_b1_device": "launch",
    "resnet50_b1_graph": "launch",
    "resnet50_b64_device": "memory",
}


@pytest.mark.parametrize("name", KNOWN)
def test_recorded_runs_get_their_class_from_the_bare_pass_and_the_graph(h200, graph_of, name):
    run = load(h200 / name)
    found = estimate(BareRun(run), run.manifest, run.manifest.latency, graph_of(run.manifest))
    assert verdict_of(found) == KNOWN[name]
    assert sum(found.pieces.shares().values()) == pytest.approx(1.0)
    assert "Only latency and NVML were recorded, so shares are bounds, not measurements" in found.reasons[0]


@pytest.mark.parametrize("name", ["compute_device", "memory_device", "pcie_numpy", "launch_device"])
def test_an_estimate_is_less_sure_than_the_traces(h200, graph_of, name):
    recorded = load(h200 / name)
    manifest = recorded.manifest
    found = estimate(BareRun(recorded), manifest, manifest.latency, graph_of(manifest))
    assert 0.5 <= found.confidence < recorded.diagnosis.confidence


@pytest.mark.parametrize("name", KNOWN)
def test_without_a_graph_no_recorded_run_gets_a_wrong_class(h200, name):
    run = load(h200 / name)
    found = estimate(BareRun(run), run.manifest, run.manifest.latency, None)
    assert verdict_of(found) in (KNOWN[name], "inconclusive")
    assert any("nodes that ran are not known" in said for said in found.reasons)


@pytest.mark.slow
def test_the_recorded_runs_agree_with_their_traces_in_nine_of_ten(h200, h200_experiments, graph_of):
    """The traced verdict is the reference; runs whose graph is made with other weights have the same shapes."""
    folders = [*h200.iterdir(), *h200_experiments.glob("*/runs/base")]
    agreed = []
    for folder in folders:
        run = load(folder)
        traced = run.diagnosis.verdict
        named = "+".join(traced.pair) if traced.pair else traced.name
        found = estimate(BareRun(run), run.manifest, run.manifest.latency, graph_of(run.manifest))
        agreed.append(verdict_of(found) == named)
    assert len(agreed) >= 30
    assert np.mean(agreed) >= 0.9


@pytest.mark.parametrize("name", ["encoder_device", "resnet50_b64_device", "compute_device", "memory_device"])
def test_static_nodes_count_the_matrix_work_of_the_nodes_that_ran(h200, graph_of, name):
    run = load(h200 / name)
    nodes = rows_of(run, "nodes", "nodes")
    ran = nodes[nodes["call"] == nodes["call"].max()]
    static = static_nodes(graph_of(run.manifest), run.manifest.model.feed_shapes)
    assert static["tensor_flops"].sum() == count_work(ran, run.graph)["tensor_flops"].sum()


@pytest.mark.parametrize("name", ["encoder_device", "decoder_device", "resnet50_b1_device"])
def test_static_nodes_are_those_that_the_optimised_graph_keeps(h200, graph_of, name):
    run = load(h200 / name)
    same = {"FusedMatMul": "MatMul", "BiasSoftmax": "Softmax", "BiasGelu": "Erf", "Gelu": "Erf"}
    same["SkipLayerNormalization"] = "LayerNormalization"
    views = ("Reshape", "Unsqueeze")
    kept = Counter(same.get(n.op_type, n.op_type) for n in run.graph.graph.node if n.op_type not in views)
    static = static_nodes(graph_of(run.manifest), run.manifest.model.feed_shapes)
    found = Counter(static["op_type"])
    differing = sum(((kept - found) + (found - kept)).values())
    assert differing <= 0.04 * sum(kept.values()), (kept - found, found - kept)
    unfused = static_nodes(graph_of(run.manifest), run.manifest.model.feed_shapes, fused=False)
    assert len(unfused) > len(static)


def test_a_layer_normalisation_of_few_rows_leaves_the_gpu_empty(h200):
    device = load(h200 / "launch_device").manifest.device
    shape = {"x": [16, 65536]}
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[n, 65536] x, float[65536] s, float[65536] b) => '
        "(float[n, 65536] y) { y = LayerNormalization (x, s, b) }"
    )
    nodes = static_nodes(model, shape)
    fill = static_filling(nodes, pd.DataFrame({"compute_ns": [1.0], "memory_ns": [2.0]}), device)
    assert fill.coverage[0] == pytest.approx(16 / 132)  # one block a row


def test_what_cannot_be_inferred_is_unknown_work_and_constants_are_none():
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17, "own" : 1]> g (float[n, 8] x, float[8, 8] w) => (float[n, 8] y) '
        "{ folded = Mul (w, w)  a = MatMul (x, folded)  b = own.Thing (a)  y = Relu (b) }"
    )
    nodes = static_nodes(model, {"x": [4, 8]})
    assert nodes["op_type"].tolist() == ["MatMul", "Thing", "Relu"]
    assert nodes["how"].tolist()[1] == "unknown"
    assert nodes["tensor_flops"][0] == 2 * 4 * 8 * 8


def test_a_scalar_feed_keeps_its_shape():
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[n] x, float k) => (float[n] y) { y = Mul (x, k) }'
    )
    assert static_nodes(model, {"x": [10], "k": []})["read_bytes"].tolist() == [11 * 4]


def bare_run(samples, calls, first_ns=0):
    """Tables of a bare pass: samples as {metric: [(time_ns, value)]}, calls as (start_ns, duration_ns, phase)."""
    rows = [
        {"pass": "latency", "time_ns": first_ns + at, "device": 0, "metric": metric, "value": float(value)}
        for metric, series in samples.items()
        for at, value in series
    ]
    timed = [
        {"pass": "latency", "process": 1, "call": i, "phase": phase, "start_ns": first_ns + at, "duration_ns": length}
        for i, (at, length, phase) in enumerate(calls)
    ]
    columns = ["pass", "time_ns", "device", "metric", "value"]
    tables = {"samples": pd.DataFrame(rows, columns=columns), "latency": pd.DataFrame(timed)}
    return SimpleNamespace(table=lambda name, columns=None: tables[name][list(columns)] if columns else tables[name])


def busy_calls(length_ms, cold_ms=50):
    """A cold call, then calls of 1 ms from 0 on."""
    return [(-cold_ms * MS, cold_ms * MS, "cold"), *((at * MS, MS, "measured") for at in range(length_ms))]


def stairs(values, *, from_ms, step_ms, every_ms=20):
    """A metric renewed every `step_ms` and read every `every_ms`."""
    count = len(values) * step_ms // every_ms
    return [((from_ms + i * every_ms) * MS, values[i * every_ms // step_ms]) for i in range(count)]


def test_readings_that_mix_with_what_was_before_do_not_count():
    values = [0, 30, 80, 82, 80, 40, 0]  # the first three and those after the end tell of other times too
    run = bare_run({"gpu_kernel_running_percent": stairs(values, from_ms=-170, step_ms=200)}, busy_calls(820))
    load = device_load(run)
    assert load.running == pytest.approx(0.81, abs=0.011)
    assert load.periods == pytest.approx(2, abs=0.2)


def test_a_pass_shorter_than_a_period_gives_a_lower_bound():
    run = bare_run({"gpu_kernel_running_percent": stairs([0, 0, 60, 10], from_ms=-350, step_ms=200)}, busy_calls(150))
    load = device_load(run)
    assert (load.running, load.periods) == (0.6, 0.0)


@pytest.mark.parametrize("samples", [{}, {"power_w": [(MS, 100)]}, {"gpu_kernel_running_percent": [(-90 * MS, 50)]}])
def test_no_load_is_made_up_where_nvml_said_nothing_of_the_calls(samples):
    assert device_load(bare_run(samples, busy_calls(300))) is None


def test_byte_counters_are_followed_over_their_wrap():
    per_ms = 10_000_000
    total = [(at * MS, (4_000_000_000 + at * per_ms) % (1 << 32)) for at in range(0, 400, 20)]
    run = bare_run({"pcie_rx_bytes_total": total, "pcie_tx_bytes_total": [(at, 7) for at, _ in total]}, busy_calls(400))
    found = link_bytes(run, 2.5 * MS, Ceilings(h2d_pinned_bytes_per_s=5e10))
    assert found.received == pytest.approx(2.5 * per_ms)
    assert found.sent == 0
    sparse = bare_run({"pcie_rx_bytes_total": total[::5], "pcie_tx_bytes_total": total[::5]}, busy_calls(400))
    assert link_bytes(sparse, 2.5 * MS, Ceilings(h2d_pinned_bytes_per_s=5e10)) is None  # 100 ms carry more than 2³²


def manifest_of(*, binding="numpy", inputs=(), outputs=(), feeds=None, kind="cuda", **ceilings):
    feeds = feeds or {}
    tensors = {
        "inputs": [{"name": n, "type": t, "shape": list(s)} for n, t, s in inputs],
        "outputs": [{"name": n, "type": t, "shape": list(s)} for n, t, s in outputs],
    }
    types = {n: t for n, t, _ in inputs}
    return Manifest(
        workbench_version="0",
        created_ns=0,
        complete=True,
        config={"binding": binding},
        model={"name": "m", **tensors, "feed_shapes": feeds, "feed_dtypes": {n: types[n] for n in feeds}},
        device={"kind": kind, "name": "made", "compute_capability": "9.0" if kind == "cuda" else None, "sm_count": 100},
        latency=timed(MS),
        ceilings=ceilings,
    )


def timed(median_ns, **changes):
    given = {"measured_calls": 10, "warmup_calls": 1, "stopped_by": "precise", **changes}
    return LatencyInfo(median_ns=median_ns, ci_low_ns=median_ns, ci_high_ns=median_ns, **given)


RATES = {
    "h2d_pageable_bytes_per_s": 1e9,
    "d2h_pageable_bytes_per_s": 2e9,
    "h2d_pinned_bytes_per_s": 10e9,
    "d2h_pinned_bytes_per_s": 20e9,
}
SIGNATURE = {
    "inputs": [("x", "float32", ("batch", 1000))],
    "outputs": [("y", "float16", ("batch", 500))],
    "feeds": {"x": [8, 1000]},
}


def test_the_copies_need_their_bytes_at_the_rate_of_the_binding():
    nothing = bare_run({}, busy_calls(10))
    pageable = link_floor(nothing, manifest_of(**SIGNATURE, **RATES), timed(MS), None)
    # 32,000 bytes in at 1 GB/s and 8,000 out at 2 GB/s; a tenth of that at the link's full rate
    assert pageable == LinkFloor(36_000.0, 3_600.0, 3_600.0, known=True)
    pinned = link_floor(nothing, manifest_of(binding="pinned", **SIGNATURE, **RATES), timed(MS), None)
    assert pinned == LinkFloor(3_600.0, 3_600.0, 3_600.0, known=True)
    on_device = link_floor(nothing, manifest_of(binding="device", **SIGNATURE, **RATES), timed(MS), None)
    assert on_device == LinkFloor(0.0, 0.0, 0.0, known=True)


def test_outputs_of_open_shape_are_counted_by_the_link_or_not_at_all():
    opened = manifest_of(**{**SIGNATURE, "outputs": [("y", "float16", ("boxes", 4))]}, **RATES)
    assert not link_floor(bare_run({}, busy_calls(10)), opened, timed(MS), None).known
    out = [(at * MS, at * 40_000) for at in range(0, 100, 10)]
    counted = bare_run({"pcie_rx_bytes_total": out, "pcie_tx_bytes_total": out}, busy_calls(100))
    found = link_floor(counted, opened, timed(MS), None)
    assert found.known
    assert found.slow_ns == pytest.approx(32_000 + 40_000 / 2e9 * 1e9)


amounts = st.floats(0, 1e7)


@st.composite
def evidences(draw):
    count = draw(st.integers(1, 5))
    column = st.lists(amounts, min_size=count, max_size=count).map(np.array)
    filled = st.lists(st.floats(0, 10), min_size=count, max_size=count).map(np.array)
    floors = Floors(draw(column), draw(column), np.arange(1.0, count + 1), Filling(draw(filled), draw(filled)))
    fast = draw(amounts)
    on_cpu = draw(st.booleans())
    load = DeviceLoad(draw(st.floats(0, 1)), draw(st.floats(0, 1)), 0.0, draw(st.floats(0, 5)), 200.0, 100.0, 0.0)
    return Evidence(
        link=LinkFloor(0.0, 0.0, 0.0) if on_cpu else LinkFloor(fast * draw(st.floats(1, 10)), fast, fast),
        floors=draw(st.sampled_from([floors, None])) if not on_cpu else floors,
        load=None if on_cpu else draw(st.sampled_from([load, None])),
        start_ns=draw(amounts),
        gap_ns=draw(amounts),
        shortest_ns=draw(st.floats(0, 1000)),
        on_cpu=on_cpu,
    )


@settings(max_examples=100, deadline=None)
@given(evidences(), st.floats(1, 1e8), st.floats(-1, 1), st.one_of(st.just(np.nan), st.floats(0, 1)), st.floats(0, 1))
def test_pieces_sum_to_the_latency_and_none_is_negative(evidence, latency_ns, shift, running, part):
    pieces = pieces_of(evidence, Guess(latency_ns, shift, 1.0 + part, 1.0, running, part, part))
    parts = {name: float(value) for name, value in vars(pieces).items() if name != "latency_ns"}
    assert sum(parts.values()) == pytest.approx(latency_ns, rel=1e-6)
    assert min(parts.values()) >= -1e-6 * latency_ns


@settings(max_examples=50, deadline=None)
@given(evidences(), st.floats(1, 1e8), st.floats(0, 1))
def test_many_draws_give_what_each_gives_alone(evidence, latency_ns, part):
    shifts = np.array([-0.5, 0.0, 0.5])
    many = pieces_of(evidence, Guess(np.full(3, latency_ns), shifts, 1.0, 1.0, np.full(3, part), part, part))
    for index, shift in enumerate(shifts):
        alone = pieces_of(evidence, Guess(latency_ns, shift, 1.0, 1.0, part, part, part))
        assert many.under_filled[index] == pytest.approx(float(alone.under_filled), rel=1e-9, abs=1e-3)
        assert many.host[index] == pytest.approx(float(alone.host), rel=1e-9, abs=1e-3)


def test_more_nvml_periods_make_the_same_verdict_surer(h200, graph_of):
    run = load(h200 / "memory_numpy")
    samples, manifest = run.table("samples"), run.manifest
    calls = rows_of(run, "latency", "latency")
    begin = int(calls["start_ns"].min())

    def sure(seconds):
        shown = samples[samples["time_ns"] < begin + seconds * 1e9]
        tables = {"samples": shown, "latency": run.table("latency")}
        view = SimpleNamespace(
            table=lambda name, columns=None: tables[name][list(columns)] if columns else tables[name]
        )
        return estimate(view, manifest, manifest.latency, graph_of(manifest)).confidence

    assert sure(0) <= 0.5 < sure(1.5) < sure(10)


def test_a_cpu_run_is_estimated_from_its_graph_and_left_alone_without():
    run = bare_run({}, busy_calls(20))
    manifest = manifest_of(kind="cpu", memory_bytes_per_s=1e10, node_overhead_ns=1000.0)
    manifest.ceilings.flops_per_s.update({"tensor:float32": 1e11, "fp:float32": 1e11, "special:float32": 1e10})
    manifest.model.feed_shapes["x"] = [64, 512]
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]> g (float[n, 512] x, float[512, 512] w) => (float[n, 512] y) '
        "{ a = MatMul (x, w)  y = Relu (a) }"
    )
    assert estimate(run, manifest, timed(MS), None) is None
    found = estimate(run, manifest, timed(MS), model)
    assert found.pieces.host == 2 * 1000.0  # two nodes
    assert found.pieces.compute > 0.5 * MS
    assert found.pieces.exposed_copies == found.pieces.under_filled == 0


def test_an_imported_capture_is_not_estimated(h200, graph_of):
    run = load(h200 / "compute_device")
    imported = run.manifest.model_copy(update={"imported": ImportInfo(files=[])})
    assert estimate(BareRun(run), imported, run.manifest.latency, graph_of(run.manifest)) is None
