"""Which cell of the space to measure next: an Optuna sampler over a Gaussian process, made for small budgets.

Why not one of Optuna's own: on synthetic grids of 288 cells with a limit on P99 and a tenth of them measured, this one
came within 5 % of the best cell in at least 95 % of the seeds; the tree-structured Parzen estimator (TPE) in about half
of them, a hill climb along one dimension at a time followed by TPE in two thirds to four fifths, random cells in a
twentieth. With 60 of 393,216 cells it reached 99 % of the best on average, TPE 67 %, random cells 42 %. Levers
multiply, so the logarithms of the metrics are nearly sums of what each choice does, which a Gaussian process learns
from few cells. Optuna's own Gaussian process needs PyTorch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from workbench.tuning.space import Space
from workbench.tuning.surrogate import Belief, believe

_CELLS: Final = 4096
"""A space of more cells is not looked at whole: prediction takes memory of cells times trials, and some ms a trial."""
_NEAR: Final = 3
"""The best trials whose surroundings are looked at in a larger space."""
_SCANNED: Final = 100_000
"""Cells of a larger space looked through for a usable one, within some seconds, when no candidate is."""
_FLOOR: Final = 1e-3
"""Share of the median below which an objective, such as no bytes at all, is as good as at it: logarithms need it."""


class ExhaustedError(Exception):
    """No cell was found that is left to measure."""


class SurrogateSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Proposes the cell with the largest constrained expected improvement (Gardner et al., ICML 2014).

    Objective and constraints are modelled apart. Their values are logarithms: of the objective's value, and what the
    trials hold as constraints. Failed trials teach where trials fail. While nothing keeps the constraints, the cell
    that is most probable to keep them is next. Proposals depend on the finished trials and the seed alone, so that
    a search that was killed goes on as if it had not been.

    usable: whether a cell (index of the choice in each dimension) can be configured and is still to be measured.
    """

    def __init__(self, space: Space, usable: Callable[[tuple[int, ...]], bool], seed: int) -> None:
        self._choices = {name: [choice.name for choice in choices] for name, choices in space.dimensions.items()}
        self._sizes = [len(names) for names in self._choices.values()]
        self._distances = space.distances()
        self._size, self._usable, self._seed = space.size(), usable, seed

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """Every dimension as a categorical distribution over the names of its choices."""
        return {name: optuna.distributions.CategoricalDistribution(names) for name, names in self._choices.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: Mapping[str, Any]
    ) -> dict[str, str]:
        """The next cell, dimension → choice; raises `ExhaustedError`."""
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        rng = np.random.default_rng([self._seed, len(trials)])
        measured = [each for each in trials if each.state == TrialState.COMPLETE]
        candidates = self._candidates(measured, study.direction, rng)
        order = rng.permutation(len(candidates))  # of equal ones, any
        if measured:
            gains = self._log_gains(trials, measured, study.direction, candidates[order])
            order = order[np.argsort(-gains, kind="stable")]
        chosen = next((cell for cell in map(tuple, candidates[order].tolist()) if self._usable(cell)), None)
        if chosen is None and self._size > _CELLS:
            cells = itertools.islice(itertools.product(*map(range, self._sizes)), _SCANNED)
            chosen = next(filter(self._usable, cells), None)
        if chosen is None:
            raise ExhaustedError
        return {name: names[index] for (name, names), index in zip(self._choices.items(), chosen, strict=True)}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """A parameter that is no dimension of the space, at random."""
        return optuna.samplers.RandomSampler(self._seed).sample_independent(
            study, trial, param_name, param_distribution
        )

    def _candidates(
        self, measured: Sequence[FrozenTrial], direction: optuna.study.StudyDirection, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Cells to choose from, int64[n, dimensions]: all, or random ones and those around the best trials."""
        if self._size <= _CELLS:
            return np.indices(self._sizes).reshape(len(self._sizes), -1).T
        anywhere = rng.integers(self._sizes, size=(_CELLS // 2, len(self._sizes)))
        sign = 1 if direction == optuna.study.StudyDirection.MINIMIZE else -1
        best = sorted(measured, key=lambda each: (_miss(each), sign * each.value))[:_NEAR]
        if not best:
            return anywhere
        near = self._codes(best)[rng.integers(len(best), size=_CELLS // 2)]
        changed = rng.random(near.shape) < 2 / len(self._sizes)  # two choices on average
        near = np.where(changed, rng.integers(self._sizes, size=near.shape), near)
        return np.unique(np.concatenate([anywhere, near]), axis=0)

    def _log_gains(
        self,
        trials: Sequence[FrozenTrial],
        measured: Sequence[FrozenTrial],
        direction: optuna.study.StudyDirection,
        candidates: NDArray[np.int64],
    ) -> NDArray[np.float64]:
        """Log of the expected improvement times the probability that a cell works and keeps the constraints."""
        from scipy.stats import norm

        cells = self._codes(measured)
        sign = 1.0 if direction == optuna.study.StudyDirection.MINIMIZE else -1.0
        positive = np.array([each.value for each in measured])
        values = sign * np.log(np.maximum(positive, _FLOOR * np.median(positive) + np.finfo(float).tiny))
        gains = np.zeros(len(candidates))
        if any(kept := np.array([_miss(each) == 0 for each in measured])):
            gains += _log_improvement(believe(self._distances, cells, values, candidates), values[kept].min())
        for name in measured[0].constraints:
            signed = np.array([each.constraints[name] for each in measured])
            known = np.isfinite(signed)
            if known.any():
                belief = believe(self._distances, cells[known], signed[known], candidates)
                gains += norm.logcdf(-belief.mean / belief.sd)
        failed = np.array([1.0 if each.state == TrialState.FAIL else -1.0 for each in trials])
        if (failed > 0).any():  # least-squares classification (Rasmussen and Williams 2006, section 6.5)
            belief = believe(self._distances, self._codes(trials), failed, candidates)
            gains += norm.logcdf(-belief.mean / belief.sd)
        return gains

    def _codes(self, trials: Sequence[FrozenTrial]) -> NDArray[np.int64]:
        """The cells of trials: int64[trials, dimensions]."""
        return np.array([[names.index(t.params[name]) for name, names in self._choices.items()] for t in trials])


def _miss(trial: FrozenTrial) -> float:
    """What a trial misses of its constraints, 0 when it keeps them."""
    return float(sum(max(0.0, value) for value in trial.constraints.values()))


def _log_improvement(belief: Belief, best: float) -> NDArray[np.float64]:
    """Log of the expected improvement below `best` (Jones, Schonlau and Welch 1998, equation 15)."""
    from scipy.stats import norm

    z = (best - belief.mean) / belief.sd
    expected = belief.sd * (z * norm.cdf(z) + norm.pdf(z))
    tiny = np.finfo(float).tiny  # far below the best both terms cancel; the mean still ranks those cells
    gains: NDArray[np.float64] = np.where(
        expected > tiny, np.log(np.maximum(expected, tiny)), np.log(tiny) - z**2 / 2
    )
    return gains
