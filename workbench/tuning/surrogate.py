"""A Gaussian process over a grid of named choices: what the cells measured so far say about the others.

Source of the formulas: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006 (chapters 2 and 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# Normal priors on the logarithms of the hyperparameters, (mean, standard deviation), in units of the standardised data.
# They keep a fit to a handful of cells sensible, and yield to the data within a dozen:
_LENGTH: Final = (0.0, 1.0)  # one length is the way across a dimension; a factor of 3 either way is usual
_AMPLITUDE: Final = (0.0, 1.0)  # the data are standardised
_NOISE: Final = (float(np.log(1e-3)), 1.5)  # of the variance: medians of rounds repeat within a few per cent
_JITTER: Final = 1e-8
_STEPS: Final = 30  # of the optimiser; more moves no proposal


@dataclass(frozen=True)
class Belief:
    """Mean and standard deviation of a quantity in each cell asked for: float64[cells] each."""

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]


def believe(
    distances: Sequence[NDArray[np.float64]],
    cells: NDArray[np.int64],
    values: NDArray[np.float64],
    asked: NDArray[np.int64],
) -> Belief:
    """Fit the process to measured cells and say what it believes of the cells asked for.

    distances: for each dimension float64[choices, choices], 0 between equal choices, 1 at most. cells:
    int64[n, dimensions], indices of choices; values: float64[n], finite, n ≥ 1. asked: int64[m, dimensions].
    The kernel is amplitude² · exp(-Σ (distance / length)² / 2), with one length for each dimension (automatic
    relevance determination); lengths, amplitude and noise are those of the largest posterior.
    """
    from scipy.linalg import cho_factor, cho_solve, solve_triangular
    from scipy.optimize import minimize

    centre, scale = float(values.mean()), float(values.std()) or 1.0
    standard = (values - centre) / scale
    squares = np.stack([d[cells[:, [k]], cells[:, k]] ** 2 for k, d in enumerate(distances)])
    means = np.array([*[_LENGTH[0]] * len(distances), _AMPLITUDE[0], _NOISE[0]])
    sds = np.array([*[_LENGTH[1]] * len(distances), _AMPLITUDE[1], _NOISE[1]])

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Negative log posterior and its gradient (equations 5.8 and 5.9, plus the priors)."""
        signal = _kernel(theta, distances, cells, cells)
        noise = np.exp(theta[-1])
        factor = cho_factor(signal + (noise + _JITTER) * np.eye(len(standard)), lower=True)
        weights = cho_solve(factor, standard)
        slope = (cho_solve(factor, np.eye(len(standard))) - np.outer(weights, weights)) / 2
        by_length = np.einsum("ij,ij,dij->d", slope, signal, squares) * np.exp(-2 * theta[:-2])
        gradient = np.array([*by_length, 2 * np.sum(slope * signal), noise * np.trace(slope)])
        deviation = (theta - means) / sds
        likelihood = standard @ weights / 2 + np.log(np.diag(factor[0])).sum()
        return float(likelihood + deviation @ deviation / 2), gradient + deviation / sds

    bounds = np.stack([means - 4 * sds, means + 4 * sds], axis=1)
    theta = minimize(loss, means, jac=True, bounds=bounds, method="L-BFGS-B", options={"maxiter": _STEPS}).x
    noisy = _kernel(theta, distances, cells, cells) + (np.exp(theta[-1]) + _JITTER) * np.eye(len(standard))
    factor = cho_factor(noisy, lower=True)
    across = _kernel(theta, distances, asked, cells)
    explained = solve_triangular(factor[0], across.T, lower=True)
    variance = np.maximum(np.exp(2 * theta[-2]) - np.einsum("nm,nm->m", explained, explained), _JITTER)
    return Belief(centre + scale * (across @ cho_solve(factor, standard)), scale * np.sqrt(variance))


def _kernel(
    theta: NDArray[np.float64],
    distances: Sequence[NDArray[np.float64]],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The kernel for log lengths theta[:-2] and log amplitude theta[-2]: float64[rows, columns]."""
    exponent = np.full((len(rows), len(columns)), 2 * theta[-2])
    for k, (distance, length) in enumerate(zip(distances, np.exp(theta[:-2]), strict=True)):
        exponent -= (distance**2 / (2 * length**2))[rows[:, [k]], columns[:, k]]
    signal: NDArray[np.float64] = np.exp(exponent)
    return signal
