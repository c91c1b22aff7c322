from __future__ import annotations

import errno
from collections.abc import Callable
from functools import cache
from math import erf, prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from onnx import numpy_helper

from workbench import zoo
from workbench.analysis.work import count_work
from workbench.errors import ConfigError, DiskFullError, ModelError
from workbench.runs.ort_profile import read_ort_profile

SMALL = {
    "compute": {"n": 32},
    "memory": {"elements": 1000, "depth": 19},
    "pcie": {"elements": 1000},
    "launch": {"nodes": 21, "width": 16},
    "narrow": {"width": 40, "depth": 19},
    "mlp": {"width": 24, "depth": 5},
    "conv": {"channels": 4, "size": 6, "depth": 3},
    "encoder": {"layers": 2, "hidden": 24, "heads": 3, "feed_forward": 40, "vocabulary": 50, "positions": 12},
    "decoder": {"layers": 2, "hidden": 24, "heads": 3, "feed_forward": 40, "vocabulary": 50, "positions": 12},
}
SIZES = {"batch": 2, "sequence": 7, "past_sequence": 6, "past_sequence + 1": 7}
NAMES = sorted(SMALL)


def session(model: onnx.ModelProto, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
    options = options or ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED  # layouts are the CPU's own
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


@pytest.mark.parametrize("name", ["compute", "memory", "pcie", "launch", "narrow", "mlp", "conv"])
def test_optimiser_neither_folds_nor_fuses_families_of_one_kind_of_work(name: str, tmp_path: Path) -> None:
    model = zoo.build(name, **SMALL[name] | ({"dtype": "float32"} if name in ("compute", "mlp", "conv") else {}))
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


@pytest.mark.parametrize("name", ["narrow", "mlp"])
@pytest.mark.parametrize("batch", [1, 3])
def test_rows_of_a_batch_do_not_meet(name: str, batch: int) -> None:
    running = session(zoo.build(name, **SMALL[name] | ({"dtype": "float32"} if name == "mlp" else {})))
    x = np.random.default_rng(8).standard_normal((batch, SMALL[name]["width"])).astype(np.float32)
    (y,) = running.run(None, {"x": x})
    assert y.shape == x.shape
    for row in range(batch):
        (alone,) = running.run(None, {"x": x[row : row + 1]})
        np.testing.assert_allclose(y[row], alone[0], rtol=1e-4, atol=1e-5)
    assert all(np.abs(y[row] - y[0]).max() > 0.1 for row in range(1, batch))


def test_narrow_normalises_each_row() -> None:
    model = zoo.build("narrow", width=64, depth=3)
    w = weights(model)
    x = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32) * 7 + 3
    expected = x.astype(np.float64)
    for _ in range(3):
        centred = expected - expected.mean(axis=1, keepdims=True)
        expected = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * w["scale"] + w["bias"]
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [1, 200])
def test_mlp_chain_keeps_the_size_of_its_values(depth: int) -> None:
    running = session(zoo.build("mlp", width=128, depth=depth))
    (y,) = running.run(None, {"x": np.random.default_rng(1).standard_normal((4, 128)).astype(np.float16)})
    assert 1e-3 < np.abs(y.astype(np.float64)).max() < 1e3


def test_mlp_multiplies_by_its_weight() -> None:
    model = zoo.build("mlp", width=16, depth=3, dtype="float32")
    x = np.random.default_rng(1).standard_normal((5, 16)).astype(np.float32)
    expected = x @ np.linalg.matrix_power(weights(model)["weight"], 3)
    np.testing.assert_allclose(session(model).run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-5)


def test_default_weight_of_mlp_exceeds_the_cache_of_an_h200() -> None:
    parameters = next(model for model in zoo.models() if model.name == "mlp").parameters
    assert parameters["dtype"] == "float16"
    assert 2 * parameters["width"] ** 2 > 50 * 2**20


def work_of_one_call(model: onnx.ModelProto, shape: tuple[int, ...], tmp_path: Path) -> pd.DataFrame:
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    running = session(model, options)
    running.run(None, {"x": np.ones(shape, np.float32)})
    nodes = read_ort_profile(Path(running.end_profiling()), 0)["nodes"].to_pandas()
    return count_work(nodes, model)


@pytest.mark.parametrize("batch", [1, 48])
def test_work_of_mlp_is_that_of_its_construction(batch: int, tmp_path: Path) -> None:
    work = work_of_one_call(zoo.build("mlp", width=32, depth=5, dtype="float32"), (batch, 32), tmp_path)
    assert work["tensor_flops"].sum() == 2 * batch * 5 * 32**2
    assert work["read_bytes"].sum() == 5 * 4 * (32 * 32 + batch * 32)  # each product reads the weight again
    assert work["written_bytes"].sum() == 5 * 4 * batch * 32


@pytest.mark.parametrize("batch", [1, 6])
def test_work_of_narrow_is_that_of_its_construction(batch: int, tmp_path: Path) -> None:
    work = work_of_one_call(zoo.build("narrow", width=32, depth=5), (batch, 32), tmp_path)
    assert work["special_flops"].sum() == 5 * batch  # one reciprocal root a row
    assert work["tensor_flops"].sum() == 0
    # mean, difference, square, mean of squares, division, scale and bias touch each element once; and one epsilon a row
    assert work["fp_flops"].sum() == 5 * (7 * batch * 32 + batch)
    assert work["read_bytes"].sum() == 5 * 4 * (batch * 32 + 2 * 32)
    assert work["written_bytes"].sum() == 5 * 4 * batch * 32


def test_conv_chain_convolves_and_keeps_the_size_of_its_values() -> None:
    model = zoo.build("conv", channels=8, size=12, depth=2, dtype="float32")
    x = np.random.default_rng(1).standard_normal((2, 8, 12, 12)).astype(np.float32)
    weight, expected = weights(model)["weight"], x.astype(np.float64)
    for _ in range(2):
        padded = np.pad(expected, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        expected = np.einsum("bchwij,ocij->bohw", windows, weight)
    (y,) = session(model).run(None, {"x": x})
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert 0.3 < y.std() < 1.5


def test_work_of_conv_is_that_of_its_construction(tmp_path: Path) -> None:
    model = zoo.build("conv", channels=4, size=6, depth=3, dtype="float32")
    work = work_of_one_call(model, (2, 4, 6, 6), tmp_path)
    assert work["tensor_flops"].sum() == 3 * 18 * 4**2 * 2 * 36
    assert work["written_bytes"].sum() == 3 * 4 * 2 * 4 * 36


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
        ("narrow", {"seed": 1}, "known are depth, width"),
        ("mlp", {"width": 40000}, "2 GiB"),
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
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a classifier, written once."""
    folder = tmp_path_factory.mktemp("classifiers")
    return cache(lambda name: zoo.write_classifier(name, folder / f"{name}.onnx"))


def images(count: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal((count, 3, 224, 224), dtype=np.float32)


def shipped(name: str) -> onnx.GraphProto:
    return onnx.load(zoo.resnet50_path().with_name(f"light_{name}.onnx")).graph


@pytest.mark.parametrize("name", zoo.CLASSIFIERS)
def test_classifier_is_the_same_network_with_real_weights(name: str, classifier: Callable[[str], Path]) -> None:
    model, light = onnx.load(classifier(name)), shipped(name)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    idle = ("ConstantOfShape", "Dropout")
    computing = [node.op_type for node in light.node if node.op_type not in idle]
    assert [node.op_type for node in model.graph.node] == computing
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in light.initializer}
    shapes = {key: values.shape for key, values in given.items() if values.dtype == np.float32}
    shapes |= {node.output[0]: tuple(given[node.input[0]]) for node in light.node if node.op_type == "ConstantOfShape"}
    used = {key for node in light.node for key in node.input}
    real = {key: values for key, values in weights(model).items() if key in shapes}
    assert {key: values.shape for key, values in real.items()} == {key: shapes[key] for key in shapes.keys() & used}
    assert all(values.std() > 0 for values in real.values())
    variances = [real[node.input[4]] for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert min((values.min() for values in variances), default=1) > 0


@pytest.mark.parametrize(
    ("name", "parameters", "channels"),
    # torchvision's resnet50 and squeezenet1_1; batch normalisation holds 2 statistics for each channel beside them
    [("resnet50", 25_557_032, 26_560), ("squeezenet", 1_235_496, 0)],
)
def test_classifier_has_the_published_number_of_parameters(
    name: str, parameters: int, channels: int, classifier: Callable[[str], Path]
) -> None:
    tensors = onnx.load(classifier(name)).graph.initializer
    counts = [prod(each.dims) for each in tensors if each.data_type == onnx.TensorProto.FLOAT]
    assert sum(counts) == parameters + 2 * channels


@pytest.mark.parametrize("name", zoo.CLASSIFIERS)
def test_classifier_takes_any_batch(name: str, classifier: Callable[[str], Path]) -> None:
    running = session(onnx.load(classifier(name)))
    (image,), (output,) = running.get_inputs(), running.get_outputs()
    assert image.shape == ["batch", 3, 224, 224]
    assert output.shape[:2] == ["batch", 1000]
    assert prod(output.shape[2:]) == 1
    (three,) = running.run(None, {image.name: images(3)})
    assert three.shape == (3, *output.shape[1:])
    np.testing.assert_allclose(three.reshape(3, 1000).sum(axis=1), 1, rtol=1e-5)
    (one,) = running.run(None, {image.name: images(3)[1:2]})
    np.testing.assert_allclose(one, three[1:2], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("name", "blocks"), [("resnet50", 16), ("shufflenet", 13), ("squeezenet", 26)])
def test_classifier_keeps_activations_of_order_one_and_tells_inputs_apart(
    name: str, blocks: int, classifier: Callable[[str], Path]
) -> None:
    model = onnx.load(classifier(name))
    trunk = "Conv" if name == "squeezenet" else "Sum"  # its convolutions hold their normalisation
    values = [node.output[0] for node in model.graph.node if node.op_type == trunk]
    assert len(values) == blocks
    logits = model.graph.node[-1].input[0]
    model.graph.output.extend(onnx.ValueInfoProto(name=each) for each in (*values, logits))
    classes, *found, before = session(model).run(None, {model.graph.input[0].name: images(2)})
    assert all(0.5 < each.std() < 2 and np.abs(each).max() < 100 for each in found)  # far below float16's 65504
    assert np.isfinite(before).all()
    assert (before[0] - before[1]).std() > 0.1 * before.std()
    assert np.abs(np.log(classes[0] / classes[1])).max() > 0.1


@pytest.mark.parametrize("name", [pytest.param("resnet50", marks=pytest.mark.slow), "shufflenet", "squeezenet"])
def test_classifier_follows_its_seed(name: str, classifier: Callable[[str], Path], tmp_path: Path) -> None:
    other = weights(onnx.load(zoo.write_classifier(name, tmp_path / "other.onnx", seed=1)))
    first = weights(onnx.load(classifier(name)))
    assert first.keys() == other.keys()
    assert all((values != other[key]).mean() > 0.9 for key, values in first.items() if values.size > 5)
    again = zoo.write_classifier(name, tmp_path / "again.onnx", seed=0)
    assert again.read_bytes() == classifier(name).read_bytes()


@pytest.mark.slow
def test_write_resnet50_writes_that_classifier(classifier: Callable[[str], Path], tmp_path: Path) -> None:
    assert zoo.write_resnet50(tmp_path / "resnet50.onnx").read_bytes() == classifier("resnet50").read_bytes()


@pytest.mark.parametrize(
    ("name", "seed", "hint"), [("squeeznet", 0, "did you mean 'squeezenet'"), ("shufflenet", -1, "from 0 to")]
)
def test_mistakes_about_classifiers_are_named(name: str, seed: int, hint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=hint):
        zoo.write_classifier(name, tmp_path / "model.onnx", seed=seed)
    assert not list(tmp_path.iterdir())


def test_classifier_that_onnx_does_not_ship_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(ModelError, match=r"light_shufflenet\.onnx: reinstall"):
        zoo.write_classifier("shufflenet", tmp_path / "model.onnx")
