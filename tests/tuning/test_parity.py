"""Output parity on arrays whose errors are known, and the tolerance that each configuration gets."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from workbench.capture.feeds import save_feeds
from workbench.config import RunConfig
from workbench.errors import ConfigError, RunFolderError
from workbench.tuning import parity as parity_module
from workbench.tuning.parity import RELATIVE_FLOOR, parity
from workbench.tuning.tolerance import BFLOAT16, FLOAT16, FLOAT32, INT4_WEIGHTS, INT8, TF32, Tolerance, tolerance_of

BASE = {"y": np.array([[8.0, -4.0, 0.001]], np.float32)}


def test_errors_against_the_scale_and_against_each_element():
    found = parity(BASE, {"y": BASE["y"] + np.array([[0.0, 0.5, 0.001]], np.float32)}, tolerance=FLOAT16)
    (output,) = found.outputs
    assert (output.scale, output.max_absolute, output.scaled, output.unequal) == (8.0, 0.5, 0.0625, 2)
    assert output.max_relative == pytest.approx(max(0.5 / 4, 0.001 / (8 * RELATIVE_FLOOR)))
    assert not found.within
    assert not found.identical
    assert "'y' is off by 0.062" in found.why


def test_equal_outputs_are_identical():
    found = parity(BASE, BASE, tolerance=Tolerance(0.0, "nothing"))
    assert (found.within, found.identical, found.outputs[0].scaled) == (True, True, 0)


@given(
    arrays.arrays(np.float32, (2, 5), elements=st.floats(-100, 100, width=32)),
    arrays.arrays(np.float32, (2, 5), elements=st.floats(-100, 100, width=32)),
)
def test_a_second_way_to_reckon_the_errors(base, variant):
    pairs = [(float(a), float(b)) for a, b in zip(base.ravel(), variant.ravel(), strict=True)]
    scale = max(abs(a) for a, _ in pairs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity_module, "_ELEMENTS", 3)  # so that one output is several parts
        (found,) = parity({"y": base}, {"y": variant}, tolerance=FLOAT32).outputs
    assert found.max_absolute == max(abs(b - a) for a, b in pairs)
    floor = scale * RELATIVE_FLOOR
    relative = [abs(b - a) / max(abs(a), floor) if max(abs(a), floor) else np.inf for a, b in pairs if a != b]
    assert found.max_relative == pytest.approx(max(relative, default=0))
    assert found.unequal == sum(a != b for a, b in pairs)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_smaller_type_is_noted_and_compared_as_numbers(tmp_path, dtype):
    save_feeds(tmp_path / "base.npz", BASE)
    save_feeds(tmp_path / "variant.npz", {"y": BASE["y"].astype(dtype)})
    found = parity(tmp_path / "base.npz", tmp_path / "variant.npz", tolerance=FLOAT16)
    assert found.within
    assert found.outputs[0].variant_dtype == np.dtype(dtype).name
    assert any(np.dtype(dtype).name in note for note in found.notes)
    assert 0 < found.outputs[0].max_absolute < 1e-4


def test_an_overflow_to_infinity_is_beyond_every_tolerance():
    base = {"y": np.array([70_000.0, 1.0], np.float32)}
    with np.errstate(over="ignore"):
        found = parity(base, {"y": base["y"].astype(np.float16)}, tolerance=Tolerance(np.inf, "anything"))
    assert (found.within, found.outputs[0].non_finite) == (False, 1)
    assert "NaN or infinite" in found.why


def test_the_same_nan_in_both_is_no_error():
    base = {"y": np.array([np.nan, np.inf, 1.0])}
    assert parity(base, {"y": base["y"].copy()}, tolerance=FLOAT32).identical
    assert not parity(base, {"y": np.array([np.nan, -np.inf, 1.0])}, tolerance=FLOAT32).within


def test_an_output_that_was_all_zero_may_not_move():
    found = parity({"y": np.zeros(3)}, {"y": np.array([0, 1e-30, 0])}, tolerance=INT8)
    assert (found.within, found.outputs[0].scaled) == (False, np.inf)


def test_shapes_and_names_have_to_agree():
    assert "shape" in parity(BASE, {"y": BASE["y"][0]}, tolerance=FLOAT32).why
    assert "missing" in parity(BASE, {"z": BASE["y"]}, tolerance=FLOAT32).why
    more = parity(BASE, {**BASE, "z": BASE["y"]}, tolerance=FLOAT32)
    assert more.within
    assert any("'z'" in note for note in more.notes)
    assert not parity({}, {}, tolerance=FLOAT32).within


def test_tokens_have_to_be_equal_and_quantised_values_have_not():
    tokens = {"ids": np.array([5, 6, 7], np.int64)}
    found = parity(tokens, {"ids": np.array([5, 6, 8], np.int64)}, tolerance=INT8)
    assert not found.within
    assert "1 of 3" in found.why
    pixels = {"image": np.array([200, 10], np.uint8)}
    assert parity(pixels, {"image": np.array([201, 9], np.uint8)}, tolerance=INT8).within
    assert parity({"ids": np.array([], np.int64)}, {"ids": np.array([], np.int64)}, tolerance=INT8).identical


def first_class_agrees(base, variant):
    return float((base["y"].argmax(-1) == variant["y"].argmax(-1)).mean())


def test_a_users_metric_and_its_limit():
    swapped = {"y": BASE["y"][:, ::-1].copy()}
    anything = Tolerance(np.inf, "anything")
    assert parity(BASE, swapped, tolerance=anything).within
    found = parity(BASE, swapped, tolerance=anything, metric=first_class_agrees, at_least=0.99)
    assert (found.within, found.metric) == (False, 0.0)
    assert "at least 0.99" in found.why
    assert parity(BASE, BASE, tolerance=FLOAT32, metric=first_class_agrees, at_least=0.99).within
    assert not parity(BASE, BASE, tolerance=FLOAT32, metric=lambda *_: float("nan"), at_most=1.0).within
    with pytest.raises(ConfigError, match="KeyError"):
        parity(BASE, BASE, tolerance=FLOAT32, metric=lambda base, variant: base["logits"])
    with pytest.raises(ConfigError, match="needs the metric"):
        parity(BASE, BASE, tolerance=FLOAT32, at_least=0.99)


def test_a_base_that_differs_from_itself_is_reported_and_widens_nothing():
    again = {"y": BASE["y"] + np.float32(4)}
    found = parity(BASE, again, tolerance=FLOAT32, base_again=[BASE, again])
    assert found.base_spread == {"y": 0.5}
    assert not found.within
    assert any("differs from itself" in note for note in found.notes)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive"])
def test_a_damaged_file_is_said_in_a_sentence(tmp_path, content):
    (tmp_path / "outputs.npz").write_bytes(content)
    with pytest.raises(RunFolderError, match="measure this configuration again"):
        parity(tmp_path / "outputs.npz", BASE, tolerance=FLOAT32)


@pytest.mark.parametrize(
    ("options", "base", "tolerance"),
    [
        ({"provider": "cpu"}, {"provider": "cpu"}, FLOAT32),
        ({"provider": "cuda"}, {"provider": "cuda"}, TF32),
        ({"provider": "cuda", "cuda": {"use_tf32": False}}, {"provider": "cuda", "cuda": {"use_tf32": False}}, FLOAT32),
        ({"provider": "cuda", "cuda": {"use_tf32": False}}, {"provider": "cuda"}, TF32),
        ({"conversions": ["float16"]}, {"provider": "cpu"}, FLOAT16),
        ({"provider": "cpu"}, {"conversions": ["bfloat16"]}, BFLOAT16),
        ({"conversions": ["float16", "int8_static"]}, {}, INT8),
        ({"conversions": ["int4_weights"]}, {}, INT4_WEIGHTS),
        ({"provider": "tensorrt", "tensorrt": {"trt_int8_enable": True}}, {}, INT8),
    ],
)
def test_the_coarsest_precision_of_the_two_sets_the_tolerance(options, base, tolerance):
    found = tolerance_of(RunConfig(model="m.onnx", **options), RunConfig(model="m.onnx", **base))
    assert found.scaled == tolerance.scaled


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float16, FLOAT16), (ml_dtypes.bfloat16, BFLOAT16)])
def test_a_sound_network_stays_within_and_a_broken_one_does_not(dtype, tolerance):
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, np.sqrt(2 / 256), (256, 256)).astype(np.float32) for _ in range(32)]
    x = rng.normal(size=(16, 256)).astype(np.float32)

    def run(layers, convert):
        y = x
        for layer in layers:
            y = convert(np.maximum(convert(y) @ convert(layer), 0))
        return {"y": y}

    base = run(weights, lambda each: each)
    assert parity(base, run(weights, lambda each: each.astype(dtype).astype(np.float32)), tolerance=tolerance).within
    assert not parity(base, run([*weights[:-1], weights[-1] * 1.5], lambda each: each), tolerance=tolerance).within


def test_measured_errors_can_be_held_to_another_tolerance():
    base = {"y": np.array([1.0, -2.0, 4.0], np.float32)}
    found = parity(base, {"y": base["y"] + np.float32(0.1)}, tolerance=Tolerance(0.01, "strict"))
    assert not found.within
    looser = found.under(Tolerance(0.03, "loose"))
    assert looser.within
    assert looser.outputs[0].max_absolute == found.outputs[0].max_absolute
    assert looser == parity(base, {"y": base["y"] + np.float32(0.1)}, tolerance=Tolerance(0.03, "loose"))
    broken = parity(base, {"y": np.full(3, np.nan, np.float32)}, tolerance=Tolerance(0.01, "strict"))
    assert not broken.under(Tolerance(1e9, "anything")).within
