"""Levers say when they apply, set what they name, and leave the base as it was."""

from dataclasses import replace
from typing import get_args

import onnx
import pytest
from onnx import TensorProto, helper

from workbench.api import load
from workbench.config import Conversion, CudaOptions, RunConfig
from workbench.diagnosis.levers import ALREADY_SO, applied, custom, held_back_by, lever, levers, ranked, situation_of
from workbench.diagnosis.levers.entry import Treats
from workbench.diagnosis.situation import GraphFacts, Situation, graph_facts
from workbench.errors import ConfigError
from workbench.runs.manifest import DeviceInfo, ModelInfo, TensorInfo

GPU = DeviceInfo(kind="cuda", name="H200", compute_capability="9.0", sm_count=132, memory_bytes=150_754_820_096)
CPU = DeviceInfo(kind="cpu", name="Some CPU", cores=16)
EVERYTHING = GraphFacts(
    op_types=frozenset({"Conv", "MatMul", "MultiHeadAttention"}),
    weights={"conv": 432, "product": 4096},
    weight_dtypes=frozenset({"float32"}),
    conv_ranks=frozenset({3, 4}),
)
# Nothing is in force that a lever sets, and everything is in the graph that one asks for.
RICH = Situation(
    config=RunConfig(
        model="m.onnx",
        binding="pinned",
        batch=8,
        cuda=CudaOptions(
            use_tf32=None,
            sdpa_kernel=4,
            cudnn_conv_algo_search=None,
        ),
        intra_op_threads=3,
    ),
    device=GPU,
    model=ModelInfo(
        name="m",
        inputs=[TensorInfo(name="x", type="float32", shape=["n", 8])],
        feed_shapes={"x": [8, 8]},
        feed_dtypes={"x": "float32"},
    ),
    graph=EVERYTHING,
    cpu_nodes=None,
    matrix_dtypes=frozenset({"float32"}),
)
# What is ONNX Runtime's or CUDA's own choice applies only where something else is in force.
OTHERWISE = {
    "io-binding-pinned": {"binding": "numpy"},
    "graph-level-all": {"session": {"graph_optimization_level": "basic"}},
    "tf32-on": {"cuda": {"use_tf32": False}},
    "conv-search-exhaustive": {"cuda": {"cudnn_conv_algo_search": "DEFAULT"}},
    "conv-workspace-max": {"cuda": {"cudnn_conv_use_max_workspace": False}},
    "module-loading-lazy": {"cuda_module_loading": "EAGER"},
    "arena-power-of-two": {"cuda": {"arena_extend_strategy": "kSameAsRequested"}},
}
ON_CPU = {"parallel-nodes"}


def where_it_applies(name: str) -> Situation:
    situation = RICH if name not in ON_CPU else replace(RICH, device=CPU)
    return (
        replace(situation, config=applied(custom("otherwise", OTHERWISE[name]), RICH))
        if name in OTHERWISE
        else situation
    )


@pytest.mark.parametrize("each", levers(), ids=lambda each: each.name)
def test_a_lever_that_applies_changes_the_configuration_and_is_then_in_force(each):
    situation = where_it_applies(each.name)
    before = situation.config.model_dump()
    assert each.why_not(situation) is None
    variant = applied(each, situation)
    assert variant != situation.config
    assert situation.config.model_dump() == before  # undone by taking the base again
    again = replace(
        situation,
        config=variant,
        model=situation.model.model_copy(update={"feed_shapes": {"x": [variant.batch or 8, 8]}}),
    )
    if not (each.name.startswith("batch-x") or each.name == "batch-half"):  # these go by the batch of the base
        assert each.why_not(again) is not None
    assert lever(each.name) == each
    assert all((each.title, each.condition, each.effect, each.cost, each.treats))


def test_names_are_distinct_and_every_cause_has_a_lever():
    names = [each.name for each in levers()]
    assert len(set(names)) == len(names)
    assert {cause for each in levers() for cause in each.treats} == set(get_args(Treats))


def test_every_conversion_and_every_option_that_decides_speed_has_a_lever():
    set_by = [each.changes_in(where_it_applies(each.name)) for each in levers()]
    assert {name for changes in set_by for name in changes.get("conversions", [])} == set(get_args(Conversion))
    cuda = {name for changes in set_by for name in changes.get("cuda", {})}
    not_levers = {"device_id", "enable_cuda_graph", "enable_cudnn", "enable_skip_layer_norm_strict_mode"}
    not_levers |= {name for name in CudaOptions.model_fields if name.startswith(("gpu_external", "tunable_op"))}
    not_levers |= {"user_compute_stream", "has_user_compute_stream", "external_data_loader_reading_threads"}
    assert cuda == set(CudaOptions.model_fields) - not_levers
    top = {name for changes in set_by for name in changes}
    assert top >= {"binding", "cuda_graph", "batch", "concurrency", "sessions", "cuda_module_loading", "provider"}
    assert top >= {"session", "run", "intra_op_threads"}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("batch-48", {"batch": 48}),
        ("batch-x3", {"batch": 24}),
        ("concurrency-6", {"concurrency": 6}),
        ("sessions-5", {"sessions": 5}),
        ("threads-12", {"intra_op_threads": 12}),
    ],
)
def test_numbers_of_the_users_own(name, change):
    assert applied(lever(name), RICH) == RICH.config.changed(**change)


@pytest.mark.parametrize("name", ["cuda-grph", "batch-0", "batch-", "concurrency--2", "streams-٣", "", "x" * 10_000])
def test_an_unknown_lever_is_refused(name):
    with pytest.raises(ConfigError, match="Unknown lever"):
        lever(name)


def test_a_misspelt_lever_names_the_nearest():
    with pytest.raises(ConfigError, match="'cuda-graph'"):
        lever("cuda-grahp")


def graph(**changes):
    return {"graph": replace(EVERYTHING, **changes)}


def config(**changes):
    return {"config": RICH.config.changed(**changes)}


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("cuda-graph", graph(op_types=frozenset({"MatMul", "Loop"})), "control flow"),
        ("cuda-graph", graph(op_types=frozenset({"MatMul", "MemcpyToHost"})), "Memcpy"),
        ("cuda-graph", {"cpu_nodes": ("NonZero_3",)}, "NonZero_3"),
        ("cuda-graph", config(concurrency=2), "overlap"),
        ("cuda-graph", {"device": CPU}, "on a CPU"),
        ("io-binding-device", {"device": CPU}, "on a CPU"),
        ("io-binding-pinned", config(cuda_graph=True, binding="device"), "cuda_graph"),
        ("concurrency-4", config(cuda_graph=True, binding="device"), "cuda_graph"),
        ("arena-shrinkage", config(cuda_graph=True, binding="device"), "CUDA graph"),
        ("conv-search-default", graph(op_types=frozenset({"MatMul"})), "no convolution"),
        ("prefer-nhwc", graph(op_types=frozenset({"MatMul"})), "no convolution"),
        ("conv-1d-padding", graph(conv_ranks=frozenset({4})), "one dimension"),
        ("attention-flash", graph(op_types=frozenset({"MatMul"})), "no attention"),
        ("tf32-off", {"device": GPU.model_copy(update={"compute_capability": "7.5"})}, "8.0"),
        ("bfloat16", {"device": GPU.model_copy(update={"compute_capability": "7.5"})}, "8.0"),
        ("tf32-off", {"matrix_dtypes": frozenset({"float16"})}, "float16"),
        ("float16", {"matrix_dtypes": frozenset(), **graph(weight_dtypes=frozenset({"float16"}))}, "float32"),
        ("float16", config(conversions=["bfloat16"]), "already converted"),
        ("bfloat16", graph(batch_norm=True), "BatchNormalization"),
        ("float16", config(conversions=["int8_static"]), "already converted to 'int8_static'"),
        ("float16-io", config(conversions=["int8_dynamic"]), "already converted to 'int8_dynamic'"),
        ("int8-static", config(conversions=["float16"]), "already converted to 'float16'"),
        ("int8-dynamic", graph(weight_dtypes=frozenset({"float16"})), "in float16"),
        ("int8-weights", config(conversions=["int8_dynamic"]), "already converted to 'int8_dynamic'"),
        ("io-binding-pinned", config(binding="device", later_shapes=[{"x": [4, 8]}]), "later_shapes"),
        ("fixed-shapes", config(binding="device", later_shapes=[{"x": [4, 8]}]), "later_shapes"),
        ("batch-x2", config(batch=None, part={"node": "n"}), "'batch' of the whole model"),
        ("int4-weights", graph(weight_dtypes=frozenset()), "no floating-point weights"),
        ("int4-weights", graph(op_types=frozenset({"Conv"})), "no matrix product"),
        ("batch-x2", config(batch=None, feeds="x.npz"), "file"),
        ("batch-x2", config(shapes={"x": [8, 8]}), "shapes"),
        ("batch-half", {"model": RICH.model.model_copy(update={"feed_shapes": {"x": [1, 8]}})}, "one item"),
        ("batch-x2", {"model": RICH.model.model_copy(update={"feed_shapes": {"x": [1], "y": [2]}})}, "share"),
        ("threads-8", {"cpu_nodes": ()}, "on the GPU"),
        ("threads-8", {"device": CPU.model_copy(update={"cores": 4})}, "4 cores"),
        ("parallel-nodes", {}, "on a GPU"),
        ("gpu-mem-limit-2gib", {"peak_device_bytes": 5 << 30}, "5.0 GiB"),
        ("gpu-mem-limit-16gib", {"device": GPU.model_copy(update={"memory_bytes": 8 << 30})}, "8 GiB only"),
        ("sessions-65", {}, "64"),
        ("tf32-off", {"provider_options": {"CUDAExecutionProvider": {"use_tf32": "0"}}}, ALREADY_SO),
    ],
)
def test_a_lever_that_does_not_apply_says_why(name, changes, said):
    reason = lever(name).why_not(replace(RICH, **changes))
    assert reason is not None
    assert said in reason
    with pytest.raises(ConfigError, match="does not apply"):
        applied(lever(name), replace(RICH, **changes))


def test_fixed_shapes_need_an_open_dimension():
    fixed = RICH.model.model_copy(update={"inputs": [TensorInfo(name="x", type="float32", shape=[8, 8])]})
    assert "fixed already" in (lever("fixed-shapes").why_not(replace(RICH, model=fixed)) or "")


def test_what_is_not_known_holds_no_lever_back():
    unknown = replace(RICH, graph=None, matrix_dtypes=None)
    names = {each.name for each in levers() if each.why_not(unknown) is None}
    assert names >= {"cuda-graph", "conv-search-default", "attention-flash", "tf32-off", "float16", "int8-weights"}


def test_changes_are_laid_over_the_base():
    base = replace(
        RICH,
        config=RICH.config.changed(
            conversions=["fixed_shapes"], session={"entries": {"session.x64quantprecision": "1"}}
        ),
    )
    assert applied(lever("float16"), base).conversions == ["fixed_shapes", "float16"]
    spinning = applied(lever("no-spinning"), base)
    assert spinning.session.entries["session.x64quantprecision"] == "1"
    assert spinning.session.entries["session.intra_op.allow_spinning"] == "0"
    assert applied(lever("streams-3"), base).cuda.sdpa_kernel == 4


def test_the_optimised_graph_stays_the_last_conversion():
    saved = replace(RICH, config=RICH.config.changed(conversions=["fixed_shapes", "optimized"]))
    assert applied(lever("float16"), saved).conversions == ["fixed_shapes", "float16", "optimized"]


def test_the_batch_of_a_part_is_that_of_the_whole_model():
    part = RICH.config.changed(part={"node": "n"})  # whose inputs begin with 96 rows at batch 8
    situation = replace(RICH, config=part, model=RICH.model.model_copy(update={"feed_shapes": {"x": [96, 8]}}))
    assert applied(lever("batch-x2"), situation).batch == 16


def test_batch_normalisation_is_seen_where_it_was_folded(situation):
    assert situation("resnet50_b1_device").graph.batch_norm
    assert not situation("launch_device").graph.batch_norm


def test_a_batch_goes_where_the_configuration_sizes_it():
    named = RICH.config.changed(batch=None, dims={"n": 8})
    assert applied(lever("batch-x4"), replace(RICH, config=named)).dims == {"n": 32}


def test_a_lever_of_the_users_own():
    mine = custom("mine", {"cuda": {"gpu_mem_limit": 1 << 30}, "binding": "device"})
    variant = applied(mine, RICH)
    assert (variant.cuda.gpu_mem_limit, variant.binding, variant.cuda.sdpa_kernel) == (1 << 30, "device", 4)
    with pytest.raises(ConfigError, match="did you mean 'binding'"):
        applied(custom("mine", {"bindng": "device"}), RICH)


@pytest.mark.parametrize(
    ("run", "names"),
    [
        ("launch_device_graph", ["cuda-graph", "io-binding-device", "tf32-on"]),
        ("resnet50_b1_numpy", ["io-binding-numpy", "conv-search-exhaustive", "graph-level-all"]),
        ("pcie_pinned", ["io-binding-pinned"]),
        ("resnet50_b64_device", ["batch-64"]),
    ],
)
def test_what_a_recorded_run_has_already(situation, run, names):
    assert [lever(name).why_not(situation(run)) for name in names] == [ALREADY_SO] * len(names)


@pytest.mark.parametrize(
    ("run", "cause"),
    [
        ("launch_device", "host"),
        ("resnet50_b1_device", "under-filled"),
        ("pcie_numpy", "pcie"),
        ("compute_device", "compute"),
    ],
)
def test_levers_of_the_verdict_come_first_and_by_their_gain(situation, run, cause):
    of_run = situation(run)
    assert held_back_by(of_run) == {cause}
    found = ranked(of_run)
    treats = [cause in one.lever.treats for one in found]
    assert treats == sorted(treats, reverse=True)
    assert any(treats)
    assert all(one.lever.why_not(of_run) is None for one in found)
    ratios = [1.0 if one.prediction.ratio is None else one.prediction.ratio for one in found]
    for part in ([r for r, t in zip(ratios, treats, strict=True) if t is first] for first in (True, False)):
        assert part == sorted(part)


def test_levers_for_an_objective(situation):
    found = ranked(situation("launch_device"), "latency")
    assert found[0].lever.name == "cuda-graph"
    assert all("latency" in one.lever.serves for one in found)


def test_an_imported_capture_has_no_configuration(h200):
    run = load(h200 / "launch_device")
    run.manifest = run.manifest.model_copy(update={"config": {}})
    situation = situation_of(run)
    assert not situation.configured
    assert {one.prediction.ratio for one in ranked(situation)} == {None}


def test_weights_are_told_from_inputs_and_subgraphs_are_searched():
    def tensor(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT16, shape)

    branch = helper.make_graph([helper.make_node("Tanh", ["y"], ["z"])], "branch", [], [tensor("z", 1)])
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "product"),
        helper.make_node("Conv", ["x", "k"], ["c"], "conv"),
        helper.make_node("If", ["condition"], ["o"], "if", then_branch=branch, else_branch=branch),
    ]
    inputs = [tensor("x", 1, 8), tensor("w", 8, 4), tensor("k", 2, 3, 5)]
    found = graph_facts(helper.make_model(helper.make_graph(nodes, "g", inputs, [tensor("o", 1)])), {"x"})
    assert found.op_types == {"MatMul", "Conv", "If", "Tanh"}
    assert found.weights == {"product": 2 * 8 * 4, "conv": 2 * 2 * 3 * 5, "if": 0}
    assert (found.weight_dtypes, found.conv_ranks) == ({"float16"}, {3})


def test_a_damaged_graph_gives_no_traceback():
    broken = onnx.ModelProto()
    broken.graph.input.add(name="w").type.tensor_type.elem_type = 999
    assert graph_facts(broken, set()).weight_dtypes == frozenset()
