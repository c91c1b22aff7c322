"""Rules about kernels, on runs recorded on an H200; where none has the cause, on one altered as the test says."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import workbench as wb
from workbench.api.tuning import Tuning
from workbench.diagnosis.findings import (
    fallback_convolution,
    fp16_casts,
    inefficient_kernels,
    layout_changes,
    misaligned_gemm,
    small_batch,
    tensor_cores_unused,
    under_filled,
    weights_reread,
)
from workbench.diagnosis.findings.finding import Case
from workbench.diagnosis.findings.node_kernels import node_kernels

pytestmark = pytest.mark.slow  # every rule on every kind of recorded run

RULES = (
    fallback_convolution, fp16_casts, inefficient_kernels, layout_changes, misaligned_gemm, small_batch,
    tensor_cores_unused, under_filled, weights_reread,
)  # fmt: skip


@pytest.fixture(scope="module")
def case(h200, h200_experiments):
    """The case of a recorded run, `name` or `experiment/arm`, each worked out once."""
    known = {}

    def opened(name: str) -> Case:
        if name not in known:
            experiment, _, arm = name.partition("/")
            run = Tuning(h200_experiments / experiment).run(arm) if arm else wb.load(h200 / name)
            known[name] = Case(run, run.diagnosis)
        return known[name]

    return opened


@pytest.fixture
def altered(h200, tmp_path):
    """A recorded run with the rows of one table changed by a function, and parts of its manifest replaced."""

    def opened(name: str, table: str = "", change=None, **manifest) -> Case:
        folder = shutil.copytree(h200 / name, tmp_path / name)
        if table:
            file = folder / f"{table}.parquet"
            old = pq.read_table(file)
            new = change(old.to_pandas())
            pq.write_table(old.from_pandas(new, schema=old.schema, preserve_index=False), file)
        said = json.loads((folder / "manifest.json").read_text())
        for part, values in manifest.items():
            said[part].update(values)
        (folder / "manifest.json").write_text(json.dumps(said))
        run = wb.load(folder)
        return Case(run, run.diagnosis)

    return opened


def only(module, case):
    (found,) = module.rule(case)
    assert found.rule == module.RULE
    return found


def test_kernels_keep_all_time_of_their_nodes(case):
    seen = case("encoder_device")
    kernels = node_kernels(seen.diagnosis.nodes)
    per_node = kernels.groupby("node")["time_ns"].sum().reindex(range(len(seen.nodes)), fill_value=0)
    gpu_only = ~seen.nodes["op_type"].isin(("Reshape", "Transpose", "Concat", "Slice"))  # may copy without a kernel
    np.testing.assert_allclose(per_node[gpu_only], seen.nodes.loc[gpu_only, "time_ns"], rtol=1e-9)
    assert kernels["time_ns"].is_monotonic_decreasing
    launched = kernels.loc[kernels["node"] >= 0]
    assert (launched["name"].to_numpy() == seen.nodes["name"].astype(object).to_numpy()[launched["node"]]).all()


def test_a_replayed_graph_of_tiny_kernels_is_under_filled(case):
    found = only(under_filled, case("launch_device_graph"))
    assert found.evidence["kernels"].sum() == 300
    assert set(found.evidence["op_type"]) == {"MatMul", "Tanh"}
    assert found.lever == "sessions-2"  # concurrency is not open to a CUDA graph
    assert found.saves_ns == pytest.approx(case("launch_device_graph").latency_ns / 2, rel=0.05)


def test_more_calls_in_flight_are_advised_from_those_that_are(case):
    assert only(under_filled, case("encoder_device")).lever == "concurrency-2"
    assert only(under_filled, case("streams/streams-3")).lever == "concurrency-6"


def test_an_import_is_under_filled_too_but_its_options_are_not_known(capture, tmp_path):
    file = capture("nsight_h200_four_classes.sqlite")
    run = wb.import_run([file], out=tmp_path / "run", range="launch:measure")
    found = only(under_filled, Case(run, run.diagnosis))
    assert found.lever is None
    assert 0 < found.saves_ns < 0.2 * run.diagnosis.latency.median_ns


def test_kernels_without_a_name_are_counted(altered):
    """Tiny kernels whose names are lost."""
    case = altered("launch_device", "kernels", lambda kernels: kernels.assign(name=None))
    assert only(under_filled, case).evidence["kernels"].tolist() == [300]


@pytest.mark.parametrize("name", ["compute_device", "memory_device", "resnet50_b64_device", "encoder/int8-dynamic"])
def test_full_kernels_are_not_under_filled(case, name):
    assert not [*under_filled.rule(case(name))]


@pytest.mark.parametrize("name", ["resnet50_b1_device", "decoder_device", "launch_numpy"])
def test_a_batch_of_one_is_small(case, name):
    found = only(small_batch, case(name))
    chosen = found.evidence.set_index("lever").loc[found.lever]
    assert chosen["predicted_ratio"] * case(name).latency_ns == pytest.approx(
        case(name).latency_ns - found.saves_ns, rel=1e-9
    )
    assert found.evidence["batch"].is_monotonic_increasing
    assert found.evidence["predicted_item_ns"].is_monotonic_decreasing


def test_what_a_larger_batch_gives_was_measured(case):
    """Batch 1 against batch 32 and 64 of the same network: the prediction for 16 must lie between 1 and these."""
    found = only(small_batch, case("resnet50_b1_device"))
    item_ns = found.evidence.set_index("batch")["predicted_item_ns"]
    assert case("resnet50_b64_device").latency_ns / 64 < item_ns[16] * 1.25
    assert item_ns[4] < 0.5 * case("resnet50_b1_device").latency_ns


@pytest.mark.parametrize("name", ["resnet50-b32/base", "resnet50-b32/conv-search-default", "encoder_device"])
def test_a_large_or_well_used_batch_is_not_small(case, name):
    assert not [*small_batch.rule(case(name))]


def test_convolutions_on_cuda_cores_although_tf32_is_on(case):
    found = only(tensor_cores_unused, case("resnet50-b32/conv-search-default"))
    assert len(found.evidence) == 20
    assert found.counted == 53
    assert found.evidence["kernel"].str.contains("sgemm").all()
    measured = case("resnet50-b32/conv-search-default").latency_ns - case("resnet50-b32/base").latency_ns
    assert found.saves_ns == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize("name", ["resnet50-b32/tf32-off", "resnet50-b32/base", "compute_device", "decoder_device"])
def test_tensor_cores_are_used_or_not_allowed_or_would_not_help(case, name):
    assert not [*tensor_cores_unused.rule(case(name))]


def test_fallback_kernels_are_found_with_their_search(case):
    found = only(fallback_convolution, case("resnet50-b32/conv-search-default"))
    assert found.lever == "conv-search-exhaustive"
    assert "DEFAULT" in found.said
    assert found.counted == 53
    measured = case("resnet50-b32/conv-search-default").latency_ns - case("resnet50-b32/base").latency_ns
    assert found.saves_ns == pytest.approx(measured, rel=0.25)


@pytest.mark.parametrize("name", ["resnet50-b32/base", "resnet50-b32/conv-search-heuristic", "encoder_device"])
def test_other_searches_run_better_kernels(case, name):
    assert not [*fallback_convolution.rule(case(name))]


def test_conversions_of_layout_go_with_channels_last(case):
    found = only(layout_changes, case("resnet50-b32/base"))
    assert found.lever == "prefer-nhwc"
    assert found.evidence["op_type"].eq("Conv").all()
    gain = case("resnet50-b32/base").latency_ns - case("resnet50-b32/prefer-nhwc").latency_ns
    assert 0.3 * gain < found.saves_ns < 1.5 * gain
    assert not [*layout_changes.rule(case("resnet50-b32/prefer-nhwc"))]


def test_transpose_nodes_have_no_lever(case):
    found = only(layout_changes, case("encoder_device"))
    assert found.evidence["op_type"].eq("Transpose").all()
    assert found.lever is None


@pytest.mark.parametrize("name", ["compute_device", "launch_device", "encoder/tf32-off"])
def test_no_layout_changes_where_little_is_moved(case, name):
    assert not [*layout_changes.rule(case(name))]


def test_full_kernels_far_from_both_ceilings(case):
    found = only(inefficient_kernels, case("resnet50-b32/float16"))
    best_ns = found.evidence[["compute_bound_ns", "memory_bound_ns"]].max(axis=1)
    assert (best_ns < 0.3 * found.evidence["time_ns"]).all()
    assert found.lever == "prefer-nhwc"


@pytest.mark.parametrize("name", ["compute_device", "memory_device", "launch_device_graph", "decoder_device"])
def test_kernels_near_a_ceiling_or_too_small_are_not_inefficient(case, name):
    assert not [*inefficient_kernels.rule(case(name))]


def test_casts_of_a_converted_decoder(case):
    found = only(fp16_casts, case("decoder-weights/float16"))
    assert found.counted == 25
    assert set(found.evidence["source"]) | set(found.evidence["target"]) == {"float16", "float32"}
    slower_ns = case("decoder-weights/float16").latency_ns - case("decoder-weights/base").latency_ns
    assert 0 < found.saves_ns < slower_ns  # the conversion made the model slower by more than its casts


@pytest.mark.parametrize("name", ["encoder/float16", "decoder-weights/base", "encoder/int8-dynamic"])
def test_few_casts_or_casts_of_integers_are_no_finding(case, name):
    assert not [*fp16_casts.rule(case(name))]


def test_weights_read_again_for_each_token(case):
    found = only(weights_reread, case("decoder/cuda-graph"))
    assert found.lever == "int8-weights"
    assert (found.evidence["weight_read_ns"] < found.evidence["time_ns"]).all()
    assert found.evidence["weight_bytes"].max() == 4 * 512 * 8192
    assert found.saves_ns < case("decoder/cuda-graph").share("launch") * case("decoder/cuda-graph").latency_ns


def test_weights_count_for_more_on_a_slower_memory(altered, case):
    """The decoder with a ceiling of a sixth of the bandwidth: what kernels reached is then all that there is."""
    whole = case("decoder_device").manifest.ceilings.memory_bytes_per_s
    slow = altered("decoder_device", ceilings={"memory_bytes_per_s": whole / 6})
    assert only(weights_reread, slow).saves_ns > 4 * only(weights_reread, case("decoder_device")).saves_ns


@pytest.mark.parametrize("name", ["launch_device", "encoder_device", "decoder-weights/int4-weights"])
def test_small_or_shared_or_quantised_weights_are_no_finding(case, name):
    assert not [*weights_reread.rule(case(name))]


def test_images_of_49_pixels_are_misaligned_with_channels_first_only(case):
    found = only(misaligned_gemm, case("resnet50-b1/float16"))
    assert set(found.evidence["misaligned"]) <= {"49 pixels", "196 pixels"}  # of 8 elements each
    assert found.lever == "prefer-nhwc"
    assert set(only(misaligned_gemm, case("resnet50-b1/base")).evidence["misaligned"]) == {"49 pixels"}  # of 4
    assert not [*misaligned_gemm.rule(case("resnet50-b1/prefer-nhwc"))]


def test_a_product_of_odd_size_is_misaligned(altered):
    """The 4096³ products of float16, with the shapes of the nodes made 4095 wide."""

    def narrower(nodes: pd.DataFrame) -> pd.DataFrame:
        for column in ("input_shapes", "output_shapes"):
            nodes[column] = nodes[column].astype(str).str.replace("4096", "4095")
        return nodes

    # what lies beyond the ceilings is only seen with ceilings above what the aligned product reached
    case = altered("compute_device", "nodes", narrower, ceilings={"flops_per_s": {"tensor:float16": 1e15}})
    found = only(misaligned_gemm, case)
    assert found.counted == 8
    assert found.evidence["misaligned"].str.contains("4095 columns of B").all()
    assert found.lever is None


@pytest.mark.parametrize("name", ["compute_device", "encoder_device", "decoder_device", "resnet50-b32/tf32-off"])
def test_aligned_products_gemv_and_full_float32_are_no_finding(case, name):
    assert not [*misaligned_gemm.rule(case(name))]


def test_a_run_without_nodes_gives_no_finding_about_nodes(capture, tmp_path):
    run = wb.import_run([capture("ort_profile_h200_launch.json")], out=tmp_path / "run")
    case = Case(run, run.diagnosis)
    assert not [found for module in RULES for found in module.rule(case)]
