"""The Gaussian process: exact where nothing is uncertain, wide where nothing is known, independent of units."""

import itertools

import numpy as np
import pytest

from workbench.tuning.surrogate import believe

LINE = np.abs(np.arange(8)[:, None] - np.arange(8)) / 7
APART = 1 - np.eye(3)
DISTANCES = [LINE, APART, APART]
CELLS = np.array(list(itertools.product(range(8), range(3), range(3))))


def truth(cells):
    """Log of a metric: saturating along the line, times a factor for every other choice."""
    return np.log1p(cells[:, 0]) + np.array([0, 0.7, 1.1])[cells[:, 1]] + np.array([0, -0.4, 0.2])[cells[:, 2]]


def some(count, seed=0):
    return CELLS[np.random.default_rng(seed).permutation(len(CELLS))[:count]]


def test_a_third_of_the_cells_tell_the_others():
    """What each choice does is learned: the error is a small part of the spread."""
    cells = some(24)
    belief = believe(DISTANCES, cells, truth(cells), CELLS)
    error = belief.mean - truth(CELLS)
    assert np.sqrt(np.mean(error**2)) < 0.1 * truth(CELLS).std()


def test_a_measured_cell_is_known_and_a_far_one_is_not():
    cells = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]])
    belief = believe(DISTANCES, cells, truth(cells), np.array([[1, 0, 0], [7, 2, 2]]))
    assert belief.mean[0] == pytest.approx(truth(cells)[1], abs=0.1)
    assert belief.sd[1] > 3 * belief.sd[0]


def test_units_do_not_matter():
    cells = some(15)
    plain, scaled = (believe(DISTANCES, cells, a * truth(cells) + b, CELLS) for a, b in ((1, 0), (1000, -5)))
    np.testing.assert_allclose(scaled.mean, 1000 * plain.mean - 5, rtol=1e-3, atol=1)
    np.testing.assert_allclose(scaled.sd, 1000 * plain.sd, rtol=1e-2)


def test_one_value_and_equal_values_are_enough():
    for count in (1, 4):
        belief = believe(DISTANCES, some(count), np.full(count, 3.0), CELLS)
        np.testing.assert_allclose(belief.mean, 3.0)
        assert np.isfinite(belief.sd).all()
        assert (belief.sd > 0).all()
