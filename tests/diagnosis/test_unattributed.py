"""Device work without nodes is classed by the floors of the graph that was given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import DATA
from workbench.analysis.filling import Filling
from workbench.api import load
from workbench.diagnosis.diagnosis import diagnose
from workbench.diagnosis.estimated_pieces import Floors
from workbench.diagnosis.shares import LimitSplit
from workbench.diagnosis.unattributed import IN_PLACE_OF_NODES, with_floors
from workbench.validation.ablation import Without

FULL = Filling(np.array([1.0, 1.0]), np.array([10.0, 10.0]))


def floors(compute_ns, memory_ns):
    return Floors(np.array([compute_ns, 1.0]), np.array([1.0, memory_ns]), np.array([1.0, 1.0]), FULL)


@given(
    st.tuples(*[st.floats(0.01, 1.0)] * 4), st.floats(10.0, 1e6), st.floats(10.0, 1e6), st.floats(1.0, 4.0),
    st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=4),
)  # fmt: skip
def test_only_what_is_unknown_is_placed(parts, compute_ns, memory_ns, stretch, shifts):
    split = LimitSplit(*(part / sum(parts) for part in parts))
    work_ns = stretch * (compute_ns + memory_ns)
    found = with_floors(split, floors(compute_ns, memory_ns), work_ns, np.array(shifts), None)
    np.testing.assert_allclose(sum(np.asarray(part) for part in found), 1.0)
    np.testing.assert_allclose(found.unknown, 0.0, atol=1e-12)
    assert (np.asarray(found.under_filled) >= split.under_filled).all()  # what the kernels' own grids say stays
    assert (np.asarray(found.compute) >= split.compute).all()
    assert (np.asarray(found.memory) >= split.memory).all()


def test_more_work_for_the_units_is_more_compute():
    unknown = LimitSplit(0.0, 0.0, 0.2, 0.8)
    low, high = (with_floors(unknown, floors(each, 1e4), 1e5, 0.0, None).compute for each in (1e3, 1e5))
    assert 0 < low < 0.4 < high < 0.8


def test_work_far_from_both_ceilings_is_under_filled_though_its_grids_are_large():
    few = Filling(np.array([0.8, 0.8]), np.array([0.8, 0.8]))
    far = Floors(np.array([100.0, 100.0]), np.array([50.0, 50.0]), np.array([1.0, 1.0]), few)
    near, slow = (with_floors(LimitSplit(0, 0, 0.1, 0.9), far, work_ns, 0.0, None) for work_ns in (250.0, 25_000.0))
    assert near.under_filled == 0.1
    assert slow.under_filled == 1.0


@pytest.mark.parametrize("cell", ["mlp-batch-4096-device", "narrow-rows-4096-device", "mlp-tiny-device"])
def test_a_run_without_nodes_keeps_its_class_and_says_what_stands_in(cell):
    run = load(DATA / "h200-labelled" / "runs" / cell)
    whole, less = run.diagnosis, diagnose(Without(run, ["nodes"]))
    assert less.verdict.name == whole.verdict.name
    assert less.confidence <= whole.confidence
    assert IN_PLACE_OF_NODES in less.notes
    assert IN_PLACE_OF_NODES not in whole.notes
