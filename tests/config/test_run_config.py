"""`RunConfig`: what is accepted, what is refused in one sentence, and that files keep it."""

import json
from pathlib import Path

import pytest

from workbench.config import CudaOptions, RunConfig, RunOptions, SessionOptions, flags
from workbench.config.run_config import read_options
from workbench.config.session import RUN_ENTRIES, SESSION_ENTRIES
from workbench.errors import ConfigError

REFUSED = [
    ({"model": "m", "bindin": "numpy"}, "did you mean 'binding'"),
    ({"model": "m", "cuda": {"use_tf33": 1}}, "'use_tf33' of CudaOptions: did you mean 'use_tf32'"),
    ({"model": "m", "session": {"enable_mem_patern": 1}}, "did you mean 'enable_mem_pattern'"),
    ({"model": "m", "budget": {"second": 1}}, "did you mean 'seconds'"),
    ({}, "'model'"),
    ({"model": "m", "provider": "gpu"}, "'auto', 'cuda', 'cpu' or 'tensorrt'"),
    ({"model": "m", "batch": 0}, "'batch'"),
    ({"model": "m", "cuda": {"cudnn_conv_algo_search": "exhaustive"}}, "'EXHAUSTIVE', 'HEURISTIC' or 'DEFAULT'"),
    ({"model": "m", "cuda": {"gpu_mem_limit": 0}}, "'gpu_mem_limit' of CudaOptions"),
    ({"model": "m", "shapes": {"x": [1, -1]}}, "negative"),
    ({"model": "m", "dims": {"batch": -2}}, "-2"),
    ({"model": "m", "budget": {"min_calls": 50, "max_calls": 10}}, "max_calls"),
    ({"model": "m", "cuda_graph": True}, "binding 'device'"),
    ({"model": "m", "cuda_graph": True, "binding": "device", "provider": "cpu"}, "'cpu'"),
    ({"model": "m", "cuda": {"enable_cuda_graph": True}}, "cuda_graph: true"),
    ({"model": "m", "binding": "pinned", "provider": "cpu"}, "use 'numpy'"),
    ({"model": "m", "cuda": {"user_compute_stream": 94}}, "process of its own"),
    ({"model": "m", "cuda": {"has_user_compute_stream": True}}, "process of its own"),
    ({"model": "m", "feeds": "f.npz", "shapes": {"x": [1]}}, "give one"),
    ({"model": "m", "feeds": "f.npz", "dims": {"n": 1}}, "give one"),
    ({"model": "m", "feeds": "f.npz", "batch": 4}, "give one"),
    ({"model": "m", "tensorrt": {"trt_cuda_graph_enable": True}}, "instead of 'tensorrt.trt_cuda_graph_enable'"),
    ({"model": "m", "conversions": ["optimized", "float16"]}, "put it last"),
    ({"model": "m", "conversions": ["float16", "fixed_shapes", "float16"]}, "'float16' is named twice"),
    ({"model": "m", "later_shapes": [{"x": [1]}], "binding": "pinned"}, "use 'numpy' or 'device'"),
    (
        {"model": "m", "later_shapes": [{"x": [1]}], "cuda_graph": True, "binding": "device"},
        "'cuda_graph', which fixes",
    ),
    ({"model": "m", "later_shapes": [{"x": [1]}], "part": {"node": "n"}}, "cannot go with 'part'"),
    ({"model": "m", "later_shapes": [{"x": [1]}], "conversions": ["fixed_shapes"]}, "cannot go with 'fixed_shapes'"),
    ({"model": "m", "later_shapes": [{"x": [1]}, {"x": [-3]}]}, "Shape [-3] of input 'x' has a negative size"),
    ({"model": "m", "budget": {"seconds": float("inf")}}, "finite"),
    ({"model": "m", "budget": {"counters_seconds": float("nan")}}, "'counters_seconds' of Budget"),
    ({"model": "m", "intra_op_threads": 1_000_000}, "4096"),
    (
        {
            "model": "m",
            "cuda_graph": True,
            "binding": "device",
            "run": {"entries": {"memory.enable_memory_arena_shrinkage": "gpu:0"}},
        },
        "shrinkage",
    ),
    (
        {"model": "m", "cuda_graph": True, "binding": "device", "session": {"execution_mode": "parallel"}},
        "sequential",
    ),
    (
        {
            "model": "m",
            "cuda_graph": True,
            "binding": "device",
            "run": {"entries": {"disable_synchronize_execution_providers": "1"}},
        },
        "synchronisation",
    ),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_wrong_option_is_refused_in_one_sentence(options, said):
    with pytest.raises(ConfigError) as refusal:
        RunConfig(**options)
    text = str(refusal.value)
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize("made", [lambda e: SessionOptions(entries=e), lambda e: RunOptions(entries=e)])
def test_an_entry_that_onnx_runtime_would_ignore_is_refused(made):
    with pytest.raises(ConfigError, match="no_such_entry"):
        made({"no_such_entry": "1"})


def test_a_misspelt_entry_is_answered_with_the_right_one():
    with pytest.raises(ConfigError, match=r"did you mean 'session\.disable_prepacking'"):
        SessionOptions(entries={"session.disable_prepaking": "1"})


def test_an_entry_of_a_newer_onnx_runtime_can_be_forced():
    options = SessionOptions(entries={"session.of_tomorrow": "1"}, allow_unknown_entries=True)
    assert options.entries == {"session.of_tomorrow": "1"}


@pytest.mark.parametrize("word", ["session.optimize_level", "onnxruntime.partitioning"])
def test_options_that_articles_invented_are_not_known(word):
    assert word not in SESSION_ENTRIES | RUN_ENTRIES


def test_provider_options_are_strings_and_only_those_that_are_set():
    options = CudaOptions(use_tf32=False, gpu_mem_limit=1 << 30, cudnn_conv_algo_search="HEURISTIC")
    assert options.to_provider_options() == {
        "device_id": "0",
        "use_tf32": "0",
        "gpu_mem_limit": "1073741824",
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def test_a_copy_is_checked_like_a_new_one():
    config = RunConfig(model="m", binding="device")
    assert config.changed(cuda_graph=True).cuda_graph
    with pytest.raises(ConfigError, match="binding"):
        config.changed(cuda_graph=True).changed(binding="numpy")


@pytest.mark.parametrize("suffix", ["yaml", "yml", "json"])
def test_a_file_gives_back_an_equal_configuration(tmp_path, suffix):
    config = RunConfig(
        model=Path("m.onnx"),
        dims={"batch": 4},
        cuda={"use_tf32": False},
        session={"entries": {"session.disable_prepacking": "1"}},
        budget={"seconds": 2},
    )
    config.save(tmp_path / f"run.{suffix}")
    assert RunConfig.load(tmp_path / f"run.{suffix}") == config


def test_a_file_holds_what_was_set_and_nothing_else(tmp_path):
    RunConfig(model="m", batch=2).save(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text()) == {"model": "m", "batch": 2}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("run.yaml", "model: [", "not valid YAML"),
        ("run.json", "{'model': 1}", "not valid JSON"),
        ("run.yaml", "- model", "no mapping"),
        ("run.yaml", "1: model", "no mapping"),
        ("run.yaml", "", "no mapping"),
        ("run.yaml", "model: m\nbatsh: 1", "did you mean 'batch'"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as refusal:
        RunConfig.load(tmp_path / name)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_options(tmp_path / "none.yaml")
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_options(tmp_path / "run.yaml")


def test_flags_win_over_the_file_key_by_key():
    options = {"model": "m", "session": {"enable_mem_pattern": True, "entries": {"session.disable_prepacking": "0"}}}
    words = ["session.disable_prepacking=1", "session.set_denormal_as_zero=1", "execution_mode=parallel"]
    flags.merge(options, "session", flags.with_entries(flags.pairs(words)))
    flags.merge(options, "shapes", dict([flags.shape("a:b:1,3,224")]))
    config = RunConfig(**options)
    assert config.session.enable_mem_pattern is True
    assert config.session.execution_mode == "parallel"
    assert config.session.entries == {"session.disable_prepacking": "1", "session.set_denormal_as_zero": "1"}
    assert config.shapes == {"a:b": [1, 3, 224]}


def test_flags_take_their_type_from_the_option():
    options = {"model": "m"}
    flags.merge(options, "cuda", flags.pairs(["use_tf32=false", "gpu_mem_limit=1024"]))
    flags.merge(options, "run", flags.with_entries(flags.pairs(["gpu_graph_id=007"])))
    config = RunConfig(**options)
    assert config.cuda == CudaOptions(use_tf32=False, gpu_mem_limit=1024)
    assert config.run.entries == {"gpu_graph_id": "007"}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: flags.pairs(["no_value"]),
        lambda: flags.pairs(["=1"]),
        lambda: flags.shape("1,3,224,224"),
        lambda: flags.shape("x:1,three"),
        lambda: flags.merge({"cuda": 3}, "cuda", {"use_tf32": "1"}),
    ],
)
def test_a_word_that_cannot_be_read_is_refused(wrong):
    with pytest.raises(ConfigError, match="write it as"):
        wrong()


def test_no_flag_changes_nothing():
    options = {"model": "m", "session": None}
    flags.merge(options, "session", flags.with_entries(flags.pairs(None)))
    assert options == {"model": "m", "session": None}
