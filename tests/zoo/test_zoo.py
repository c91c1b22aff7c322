from __future__ import annotations

import errno
from math import erf
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from workbench import zoo
from workbench.errors import ConfigError, DiskFullError

SMALL = {
    "compute": {"n": 32},
    "memory": {"elements": 1000, "depth": 19},
    "pcie": {"elements": 1000},
    "launch": {"nodes": 21, "width": 16},
    "encoder": {"layers": 2, "hidden": 24, "heads": 3, "feed_forward": 40, "vocabulary": 50, "positions": 12},
    "decoder": {"layers": 2, "hidden": 24, "heads": 3, "feed_forward": 40, "vocabulary": 50, "positions": 12},
}
SIZES = {"batch": 2, "sequence": 7, "past_sequence": 6, "past_sequence + 1": 7}
NAMES = sorted(SMALL)


def session(model: onnx.ModelProto, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    options = options or ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def optimised_ops(model: onnx.ModelProto, tmp_path: Path) -> list[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    session(model, options)
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each).astype(np.float64) for each in model.graph.initializer}


def random_feeds(running: ort.InferenceSession) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    feeds = {}
    for each in running.get_inputs():
        shape = [SIZES.get(size, size) for size in each.shape]
        if each.name == "input_ids":
            feeds[each.name] = rng.integers(0, 50, shape)
        elif each.name == "attention_mask":
            feeds[each.name] = np.ones(shape, np.int64)
        else:
            dtype = {"tensor(float)": np.float32, "tensor(float16)": np.float16}[each.type]
            feeds[each.name] = (10 * rng.standard_normal(shape)).astype(dtype)
    return feeds


def test_models_are_those_that_build_knows() -> None:
    assert {model.name for model in zoo.models()} == set(SMALL)
    for model in zoo.models():
        assert model.shows in {"compute", "memory", "pcie", "launch"}
        assert model.binding in {"numpy", "device"}
        assert model.sized_by in model.parameters
    assert {model.shows for model in zoo.models()} == {"compute", "memory", "pcie", "launch"}


@pytest.mark.parametrize(
    ("name", "chosen", "dtype"),
    [
        (model.name, chosen, chosen.get("dtype", "float32"))
        for model in zoo.models()
        for chosen in ([{"dtype": "float16"}, {"dtype": "float32"}] if "dtype" in model.parameters else [{}])
    ],
)
def test_is_valid_and_runs_to_finite_outputs(name: str, chosen: dict[str, str], dtype: str) -> None:
    model = zoo.build(name, **SMALL[name], **chosen)
    onnx.checker.check_model(model, full_check=True)
    assert 8 <= model.ir_version <= 10
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    running = session(model)
    for declared, value in zip(running.get_outputs(), running.run(None, random_feeds(running)), strict=True):
        assert np.isfinite(value).all()
        assert value.dtype == np.dtype(dtype)
        assert list(value.shape) == [SIZES.get(size, size) for size in declared.shape]


@pytest.mark.parametrize("name", NAMES)
def test_same_parameters_give_same_bytes(name: str, tmp_path: Path) -> None:
    first = zoo.write(name, tmp_path / "first.onnx", **SMALL[name]).read_bytes()
    assert zoo.write(name, tmp_path / "second.onnx", **SMALL[name]).read_bytes() == first
    if "seed" in next(model for model in zoo.models() if model.name == name).parameters:
        assert zoo.write(name, tmp_path / "third.onnx", **SMALL[name], seed=1).read_bytes() != first


def test_sizing_parameter_scales_the_work() -> None:
    assert [len(zoo.build("launch", nodes=nodes).graph.node) for nodes in (1, 300)] == [1, 300]
    for name in ("memory", "pcie"):
        shape = zoo.build(name, elements=77).graph.input[0].type.tensor_type.shape
        assert [dim.dim_value for dim in shape.dim] == [77]
    deep, shallow = (len(zoo.build("encoder", **SMALL["encoder"] | {"layers": n}).graph.node) for n in (3, 2))
    assert deep > shallow


@pytest.mark.parametrize("name", ["compute", "memory", "pcie", "launch"])
def test_optimiser_neither_folds_nor_fuses_the_four(name: str, tmp_path: Path) -> None:
    model = zoo.build(name, **SMALL[name] | ({"dtype": "float32"} if name == "compute" else {}))
    assert optimised_ops(model, tmp_path) == [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("depth", [1, 200])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_compute_chain_keeps_the_size_of_its_values(dtype: str, depth: int) -> None:
    running = session(zoo.build("compute", n=128, depth=depth, dtype=dtype))
    (y,) = running.run(None, {"x": np.random.default_rng(1).standard_normal((128, 128)).astype(dtype)})
    assert 1e-3 < np.abs(y.astype(np.float64)).max() < 1e3


def test_compute_multiplies_by_its_weight() -> None:
    model = zoo.build("compute", n=16, depth=3, dtype="float32")
    x = np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32)
    expected = x @ np.linalg.matrix_power(weights(model)["weight"], 3)
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)


def test_memory_stays_finite_at_extremes() -> None:
    x = np.array([-3e38, -100, -0.0, 0, 100, 3e38], np.float32)
    (y,) = session(zoo.build("memory", elements=6, depth=40)).run(None, {"x": x})
    assert np.isfinite(y).all()


def test_pcie_sums_to_a_scalar() -> None:
    (y,) = session(zoo.build("pcie", elements=5)).run(None, {"x": np.arange(5, dtype=np.float32)})
    assert y.shape == ()
    assert y == 10


# A reference of the transformers in float64, from the weights by name.


def norm(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu_mlp(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    inner = linear(w, f"{name}.inner", x)
    return linear(w, f"{name}.outer", inner * 0.5 * (1 + np.vectorize(erf)(inner / np.sqrt(2))))


def attention(w: dict[str, np.ndarray], name: str, x: np.ndarray, heads: int, visible: np.ndarray) -> np.ndarray:
    """`x` [sequence, hidden] of one sequence; `visible` [sequence, sequence], query by key."""
    query, key, value = (linear(w, f"{name}.{part}", x) for part in ("query", "key", "value"))
    size = x.shape[1] // heads
    parts = []
    for head in range(heads):
        columns = slice(head * size, (head + 1) * size)
        scores = np.where(visible, query[:, columns] @ key[:, columns].T / np.sqrt(size), -np.inf)
        weight = np.exp(scores - scores.max(axis=1, keepdims=True))
        parts.append(weight / weight.sum(axis=1, keepdims=True) @ value[:, columns])
    return linear(w, f"{name}.output", np.concatenate(parts, axis=1))


def test_encoder_equals_reference() -> None:
    model = zoo.build("encoder", **SMALL["encoder"])
    w = weights(model)
    tokens = np.random.default_rng(5).integers(0, 50, (2, 7))
    mask = np.array([[1] * 7, [1, 1, 1, 1, 0, 0, 0]])
    (y,) = session(model).run(["last_hidden_state"], {"input_ids": tokens, "attention_mask": mask})
    for row, kept in enumerate((7, 4)):
        places = [1 + i if i < kept else 0 for i in range(7)]
        x = norm(w, "embeddings.norm", w["embeddings.word"][tokens[row]] + w["embeddings.position"][places])
        for layer in ("layers.0", "layers.1"):
            attended = attention(w, f"{layer}.attention", x, 3, np.tile(mask[row] == 1, (7, 1)))
            x = norm(w, f"{layer}.attention_norm", x + attended)
            x = norm(w, f"{layer}.output_norm", x + gelu_mlp(w, f"{layer}.feed_forward", x))
        np.testing.assert_allclose(y[row], x, rtol=1e-4, atol=1e-5)


def test_decoder_steps_equal_causal_reference() -> None:
    model = zoo.build("decoder", **SMALL["decoder"])
    w = weights(model)
    tokens = np.random.default_rng(6).integers(0, 50, (2, 9))

    running = session(model)
    names = [each.name for each in running.get_inputs() if each.name.startswith("past")]
    cache = {name: np.zeros((2, 3, 0, 8), np.float32) for name in names}
    steps = []
    for step in range(9):
        mask = np.ones((2, step + 1), np.int64)
        feeds = {"input_ids": tokens[:, step : step + 1], "attention_mask": mask, **cache}
        values = dict(zip([each.name for each in running.get_outputs()], running.run(None, feeds), strict=True))
        steps.append(values["logits"])
        cache = {name: values[name.replace("past_key_values", "present")] for name in names}

    for row, logits in enumerate(np.concatenate(steps, axis=1)):
        x = w["embeddings.word"][tokens[row]] + w["embeddings.position"][:9]
        for layer in ("layers.0", "layers.1"):
            normed = norm(w, f"{layer}.attention_norm", x)
            x = x + attention(w, f"{layer}.attention", normed, 3, np.tri(9, dtype=bool))
            x = x + gelu_mlp(w, f"{layer}.feed_forward", norm(w, f"{layer}.feed_forward_norm", x))
        np.testing.assert_allclose(logits, norm(w, "final_norm", x) @ w["head.weight"], rtol=1e-4, atol=1e-5)


def test_decoder_ignores_left_padding() -> None:
    running = session(zoo.build("decoder", **SMALL["decoder"]))
    rng = np.random.default_rng(7)
    names = [each.name for each in running.get_inputs() if each.name.startswith("past")]
    past = {name: rng.standard_normal((1, 3, 5, 8)).astype(np.float32) for name in names}
    padded = {name: np.pad(value, ((0, 0), (0, 0), (4, 0), (0, 0)), constant_values=9) for name, value in past.items()}
    token = np.array([[11]])
    (plain,) = running.run(["logits"], {"input_ids": token, "attention_mask": np.ones((1, 6), np.int64), **past})
    mask = np.array([[0] * 4 + [1] * 6])
    (hidden,) = running.run(["logits"], {"input_ids": token, "attention_mask": mask, **padded})
    np.testing.assert_allclose(hidden, plain, rtol=1e-4, atol=1e-5)


def test_encoder_is_fused_as_exports_are(tmp_path: Path) -> None:
    ops = optimised_ops(zoo.build("encoder", **SMALL["encoder"]), tmp_path)
    assert ops.count("SkipLayerNormalization") == 5  # two a layer and the embeddings'
    assert ops.count("BiasGelu") == 2
    assert "Erf" not in ops


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_default_transformers_stay_below_120_mb(name: str) -> None:
    assert 80e6 < zoo.build(name).ByteSize() < 120e6


@pytest.mark.parametrize(
    ("name", "parameters", "hint"),
    [
        ("lanch", {}, "did you mean 'launch'"),
        ("launch", {"node": 3}, "did you mean 'nodes'"),
        ("pcie", {"zzz": 3}, "known are elements"),
        ("compute", {"dtype": "float61"}, "float16 or float32"),
        ("compute", {"n": 0}, "from 1 to"),
        ("compute", {"n": 64.0}, "whole number"),
        ("compute", {"depth": True}, "whole number"),
        ("compute", {"n": 10**6}, "2 GiB"),
        ("launch", {"seed": -1}, "from 0 to"),
        ("memory", {"elements": 2**31}, "whole number"),
        ("encoder", {"hidden": 100, "heads": 8}, "multiple of 'heads'"),
        ("decoder", {"heads": 7}, "multiple of 'heads'"),
    ],
)
def test_mistakes_are_named(name: str, parameters: dict[str, int | str], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        zoo.build(name, **parameters)


def test_write_makes_folders_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = zoo.write("launch", tmp_path / "deep" / "model.onnx", nodes=4)
    assert len(onnx.load(path).graph.node) == 4
    assert list(path.parent.iterdir()) == [path]


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zoo.write("launch", tmp_path / "model.onnx", nodes=4)
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFullError, match="free"):
        zoo.write("launch", path, nodes=8)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_write_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Cannot write"):
        zoo.write("pcie", tmp_path / "file" / "model.onnx")


def test_resnet50_is_there() -> None:
    graph = onnx.load(zoo.resnet50_path()).graph
    assert sum(node.op_type == "Conv" for node in graph.node) == 53  # He et al., 2015, with the four shortcuts


@pytest.fixture(scope="module")
def resnet50(tmp_path_factory) -> Path:
    return zoo.write_resnet50(tmp_path_factory.mktemp("resnet") / "resnet50.onnx")


def test_resnet50_is_the_same_network_with_real_weights(resnet50: Path) -> None:
    model, light = onnx.load(resnet50), onnx.load(zoo.resnet50_path())
    onnx.checker.check_model(model, full_check=True)
    computing = [node.op_type for node in light.graph.node if node.op_type != "ConstantOfShape"]
    assert [node.op_type for node in model.graph.node] == computing
    held = weights(model)
    # torchvision's resnet50 counts 25,557,032 parameters and, beside them, 2 statistics for each of 26,560 channels
    assert sum(values.size for values in held.values()) == 25_557_032 + 2 * 26_560 + 2
    assert all(values.std() > 0 for name, values in held.items() if values.size > 2)
    variances = [held[node.input[4]] for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert min(values.min() for values in variances) > 0


def test_resnet50_keeps_activations_of_order_one_and_tells_inputs_apart(resnet50: Path) -> None:
    model = onnx.load(resnet50)
    sums = [node.output[0] for node in model.graph.node if node.op_type == "Sum"]
    logits = next(node.output[0] for node in model.graph.node if node.op_type == "Gemm")
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (*sums, logits))
    images = np.random.default_rng(9).standard_normal((2, 3, 224, 224), dtype=np.float32)
    classes, *trunk, before = session(model).run(None, {model.graph.input[0].name: images})
    assert len(trunk) == 16
    assert all(0.5 < values.std() < 2 and np.abs(values).max() < 100 for values in trunk)  # far below float16's 65504
    assert 0.5 < before.std() < 2
    assert (before[0] - before[1]).std() > 0.1 * before.std()
    np.testing.assert_allclose(classes.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_resnet50_follows_its_seed(resnet50: Path, tmp_path: Path) -> None:
    other = weights(onnx.load(zoo.write_resnet50(tmp_path / "other.onnx", seed=1)))
    first = weights(onnx.load(resnet50))
    assert first.keys() == other.keys()
    assert all((values != other[name]).mean() > 0.9 for name, values in first.items() if values.size > 2)
    again = zoo.write_resnet50(tmp_path / "again.onnx", seed=0)
    assert again.read_bytes() == resnet50.read_bytes()
