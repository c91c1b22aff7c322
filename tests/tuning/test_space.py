"""The search space: how choices are laid over the base, what contradicts itself, and how far choices are apart."""

import numpy as np
import pytest

from workbench.config import RunConfig
from workbench.errors import ConfigError
from workbench.tuning.space import Choice, Space, key_of

BASE = RunConfig(model="m.onnx", cuda={"use_tf32": True, "prefer_nhwc": False}, conversions=["fixed_shapes"])
ON = Choice("on", {"binding": "device", "cuda_graph": True})


def test_changes_are_laid_over_the_base_option_by_option():
    space = Space(BASE, {"tf32": [Choice("off", {"cuda": {"use_tf32": False}})], "batch": [Choice("8", {"batch": 8})]})
    config = space.config_of({"tf32": "off", "batch": "8"})
    assert (config.cuda.use_tf32, config.cuda.prefer_nhwc, config.batch) == (False, False, 8)
    assert space.config_of({"tf32": "base", "batch": "base"}) == BASE


def test_sections_that_the_base_leaves_out_are_made():
    space = Space(BASE, {"order": [Choice("spin", {"session": {"entries": {"session.intra_op.allow_spinning": "0"}}})]})
    assert space.config_of({"order": "spin"}).session.entries == {"session.intra_op.allow_spinning": "0"}
    part = Space(RunConfig(model="m.onnx", part=None), {"part": [Choice("one", {"part": {"node": "Conv_1"}})]})
    assert part.config_of({"part": "one"}).part.node == "Conv_1"


def test_size_and_grid_agree_and_hold_the_base():
    space = Space(BASE, {"graph": [ON], "batch": [Choice("1", {"batch": 1}), Choice("2", {"batch": 2})]})
    cells = list(space.grid())
    assert space.size() == len(cells) == len({tuple(cell.items()) for cell in cells}) == 6
    assert space.base_assignment in cells
    assert space.config_of(space.base_assignment) == BASE


def test_a_choice_that_spells_the_base_out_is_the_base():
    space = Space(BASE.changed(batch=1), {"batch": [Choice("2", {"batch": 2}), Choice("1", {"batch": 1})]})
    assert space.size() == 2
    assert space.base_assignment == {"batch": "1"}


def test_configurations_that_run_the_same_have_one_key():
    assert key_of(RunConfig(model="m")) == key_of(RunConfig(model="m", concurrency=1, cuda={"device_id": 0}))
    assert key_of(RunConfig(model="m")) != key_of(RunConfig(model="m", concurrency=2))


def test_what_contradicts_itself_says_why():
    space = Space(BASE, {"graph": [ON], "binding": [Choice("pinned", {"binding": "pinned"})]})
    with pytest.raises(ConfigError, match="'on' and 'pinned' set option 'binding' to 'device' and to 'pinned'"):
        space.config_of({"graph": "on", "binding": "pinned"})
    calls = Space(BASE, {"graph": [ON], "calls": [Choice("4", {"concurrency": 4})]})
    with pytest.raises(ConfigError, match="'cuda_graph' cannot go with 'concurrency'"):
        calls.config_of({"graph": "on", "calls": "4"})


def test_two_choices_may_agree():
    space = Space(BASE, {"graph": [ON], "binding": [Choice("device", {"binding": "device"})]})
    assert space.config_of({"graph": "on", "binding": "device"}).cuda_graph


def test_conversions_follow_one_another():
    space = Space(
        BASE,
        {
            "precision": [Choice("float16", {"conversions": ["fixed_shapes", "float16"]})],
            "graph": [Choice("optimized", {"conversions": ["fixed_shapes", "optimized"]})],
        },
    )
    config = space.config_of({"precision": "float16", "graph": "optimized"})
    assert config.conversions == ["fixed_shapes", "float16", "optimized"]


@pytest.mark.parametrize(
    ("dimensions", "said"),
    [
        ({}, "is empty"),
        ({"batch": []}, "'batch' has no choices"),
        ({"batch": [Choice("2", {"batch": 2}), Choice("2", {"batch": 4})]}, "two choices named '2'"),
    ],
)
def test_a_space_without_sense_is_refused(dimensions, said):
    with pytest.raises(ConfigError, match=said):
        Space(BASE, dimensions)


def test_unknown_names_are_answered_with_the_nearest():
    space = Space(BASE, {"batch": [Choice("16", {"batch": 16})]})
    with pytest.raises(ConfigError, match="did you mean 'batch'"):
        space.config_of({"bath": "16"})
    with pytest.raises(ConfigError, match="no choice '17': did you mean '16'"):
        space.config_of({"batch": "17"})


def test_numbers_of_one_option_lie_on_a_line_and_others_are_all_as_far():
    space = Space(
        BASE.changed(batch=4),
        {
            "batch": [Choice(str(n), {"batch": n}) for n in (16, 1)],
            "binding": [Choice(name, {"binding": name}) for name in ("device", "pinned")],
            "tf32": [Choice("off", {"cuda": {"use_tf32": False}})],
            "threads": [Choice(str(n), {"intra_op_threads": n}) for n in (1, 2)],
        },
    )
    batch, binding, tf32, threads = space.distances()
    assert [choice.name for choice in space.dimensions["batch"]] == ["base", "16", "1"]  # the base is 4
    np.testing.assert_array_equal(batch, [[0, 0.5, 0.5], [0.5, 0, 1], [0.5, 1, 0]])
    np.testing.assert_array_equal(binding, 1 - np.eye(3))
    np.testing.assert_array_equal(tf32, 1 - np.eye(2))
    np.testing.assert_array_equal(threads, 1 - np.eye(3))  # the base leaves the number to ONNX Runtime
