"""The cache of converted models: made once, under a key of what decides it, and never half."""

import subprocess
import threading
from pathlib import Path

import pytest
from convertible import request_for, write_models

from workbench.capture.convert import cached
from workbench.capture.convert.request import MODEL
from workbench.errors import ConfigError, ModelError, OutOfMemoryError, WorkerTimeoutError


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


def test_of_two_at_once_both_get_the_one_result(models, tmp_path, own_cache):
    request, _ = request_for(models["wide"], "float16", tmp_path / "given")
    found = []

    def ask():
        found.append(cached.convert(models["wide"], "float16", request.config, device="cpu", shapes={}, timeout_s=60.0))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert list(own_cache.iterdir()) == [found[0].path.parent]


@pytest.mark.parametrize(
    ("status", "said", "error", "words"),
    [
        (-9, "", OutOfMemoryError, "was killed, often because memory ran out"),
        (-11, "deep in the tool", ModelError, r"ended with SIGSEGV on this model \(deep in the tool\)"),
        (3, "", ModelError, "ended with status 3"),
        (1, 'x\n{"kind": "ModelError", "message": "Because."}', ModelError, "^Because.$"),
    ],
)
def test_a_tool_that_dies_is_reported(models, tmp_path, monkeypatch, own_cache, status, said, error, words):
    ended = subprocess.CompletedProcess([], status, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: ended)
    with pytest.raises(error, match=words):
        converted(models["wide"], "float16", tmp_path)
    assert list(own_cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said(models, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"cannot be written .* set WORKBENCH_CACHE"):
        converted(models["wide"], "float16", tmp_path)
