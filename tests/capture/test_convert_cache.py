"""The cache of converted models: made once, under a key of what decides it, and never half."""

import subprocess
import threading
from pathlib import Path

import onnx
import pytest
from convertible import request_for, write_models
from onnx import helper

from workbench.capture.convert import cached
from workbench.capture.convert.files import external_files
from workbench.capture.convert.request import MODEL, NOTES
from workbench.errors import ConfigError, OutOfMemoryError, WorkerTimeoutError

pytestmark = pytest.mark.slow  # real runs, each in processes of its own


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models" / "converted"


def converted(model: Path, conversion: str, tmp_path: Path, **options) -> cached.Converted:
    request, _ = request_for(model, conversion, tmp_path / "given", samples=options.pop("samples", 1))
    given = {"device": "cpu", "shapes": request.shapes, "samples": request.samples, "timeout_s": 60.0}
    return cached.convert(model, conversion, options.pop("config", request.config), **{**given, **options})


def test_a_conversion_is_made_once_and_then_found(models, tmp_path, monkeypatch, own_cache):
    first = converted(models["wide"], "float16", tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("converted again"))
    assert converted(models["wide"], "float16", tmp_path) == first
    assert first.path == own_cache / first.path.parent.name / MODEL
    assert first.notes == ["Conversion 'float16' added 5 Cast nodes and left 2 nodes in float32."]


def test_the_key_holds_what_decides_the_result_and_no_more(models, tmp_path):
    request, _ = request_for(models["encoder"], "float16", tmp_path / "given", samples=2)

    def key(conversion, config=request.config, shapes=request.shapes, samples=request.samples, model="encoder"):
        return cached._key(models[model], conversion, config, "cpu", shapes, samples)

    fewer, other = request.samples[:1], {"input_ids": [1, 1], "attention_mask": [1, 1]}
    basic = request.config.changed(session={"graph_optimization_level": "basic"})
    assert key("float16") == key("float16", config=basic, shapes=other, samples=fewer)
    assert key("int8_static") == key("int8_static", config=basic, shapes=other)
    assert key("fixed_shapes") == key("fixed_shapes", config=basic, samples=fewer)
    assert key("optimized") == key("optimized", shapes=other, samples=fewer)
    different = [key("float16"), key("float16_io"), key("float16", model="wide"), key("int8_static")]
    different += [key("int8_static", samples=fewer), key("fixed_shapes"), key("fixed_shapes", shapes=other)]
    different += [key("optimized"), key("optimized", config=basic)]
    assert len(set(different)) == len(different)


def test_a_conversion_that_is_ended_leaves_nothing(models, tmp_path, own_cache):
    with pytest.raises(WorkerTimeoutError, match=r"'float16' reached its limit of 0\.05 s"):
        converted(models["wide"], "float16", tmp_path, timeout_s=0.05)
    assert list(own_cache.iterdir()) == []


def test_of_two_at_once_one_makes_what_both_get(models, tmp_path, own_cache, monkeypatch):
    request, _ = request_for(models["wide"], "float16", tmp_path / "given")
    found, made, real = [], [], cached.run_child

    def counting(*arguments, **options):
        made.append(arguments)
        real(*arguments, **options)

    monkeypatch.setattr(cached, "run_child", counting)

    def ask():
        found.append(cached.convert(models["wide"], "float16", request.config, device="cpu", shapes={}, timeout_s=60.0))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert len(made) == 1
    assert list(own_cache.iterdir()) == [found[0].path.parent]


def test_a_tool_that_fails_leaves_nothing(models, tmp_path, monkeypatch, own_cache):
    def killed(*arguments, **options):
        raise OutOfMemoryError("It was killed.")

    monkeypatch.setattr(cached, "run_child", killed)
    with pytest.raises(OutOfMemoryError):
        converted(models["wide"], "float16", tmp_path)
    assert list(own_cache.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(models, tmp_path, own_cache):
    request, _ = request_for(models["wide"], "float16", tmp_path / "given")
    key = cached._key(models["wide"], "float16", request.config, "cpu", {}, [])
    (own_cache / f".{key}-left" / "scratch").mkdir(parents=True)
    (own_cache / f".{key}-left" / "scratch" / "half").write_bytes(b"x")
    assert converted(models["wide"], "float16", tmp_path).path == own_cache / key / MODEL
    assert list(own_cache.iterdir()) == [own_cache / key]


@pytest.mark.parametrize("lost", [MODEL, NOTES])
def test_a_folder_that_lost_a_file_is_made_anew(models, tmp_path, lost):
    first = converted(models["wide"], "float16", tmp_path)
    first.path.with_name(lost).unlink()
    assert converted(models["wide"], "float16", tmp_path) == first
    assert first.path.is_file()


def test_the_wait_for_another_process_ends_at_the_limit(models, tmp_path, own_cache):
    request, _ = request_for(models["wide"], "float16", tmp_path / "given")
    key = cached._key(models["wide"], "float16", request.config, "cpu", {}, [])
    with (
        cached._alone(own_cache / key, None),
        pytest.raises(WorkerTimeoutError, match=r"Another process .* after 0\.1 s"),
    ):
        converted(models["wide"], "float16", tmp_path, timeout_s=0.1)


def test_weights_of_a_branch_that_lie_beside_the_model_decide_the_key():
    def branch(name):
        held = onnx.TensorProto(name=name, data_location=onnx.TensorProto.EXTERNAL)
        held.external_data.add(key="location", value=f"{name}.bin")
        return helper.make_graph([helper.make_node("Identity", [name], ["o"])], name, [], [], [held])

    choice = helper.make_node("If", ["c"], ["y"], then_branch=branch("one"), else_branch=branch("two"))
    assert external_files(helper.make_model(helper.make_graph([choice], "g", [], []))) == ["one.bin", "two.bin"]


def test_a_cache_that_cannot_be_written_is_said(models, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"cannot be written .* set WORKBENCH_CACHE"):
        converted(models["wide"], "float16", tmp_path)
