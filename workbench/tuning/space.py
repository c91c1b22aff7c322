"""The space of a search: named choices in several dimensions, each a change laid over one base configuration."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.config import RunConfig
from workbench.config.strict import nearest
from workbench.errors import ConfigError
from workbench.tuning.blocks import BASE

Assignment = Mapping[str, str]
"""Dimension → name of the choice made in it."""


@dataclass(frozen=True)
class Choice:
    """One value of a dimension. changes: options of `RunConfig` laid over the base. treats: what it should help."""

    name: str
    changes: Mapping[str, Any]
    treats: str = ""


class Space:
    """Every combination of one choice per dimension, laid over `base`.

    A dimension in which no choice leaves the base as it is gets one more, `base`, so that the base is in the space.
    Raises `ConfigError` for a dimension without choices and for a name that is given twice.
    """

    def __init__(self, base: RunConfig, dimensions: Mapping[str, Sequence[Choice]]) -> None:
        if not dimensions:
            raise ConfigError("The search space is empty: give a dimension with at least one choice.")
        self.base = base
        self._options = base.model_dump(exclude_unset=True)
        self.dimensions = {name: self._with_base(name, choices) for name, choices in dimensions.items()}

    def _with_base(self, dimension: str, choices: Sequence[Choice]) -> tuple[Choice, ...]:
        names = [choice.name for choice in choices]
        if not names:
            raise ConfigError(f"Dimension {dimension!r} has no choices: give one or leave it out.")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ConfigError(f"Dimension {dimension!r} has two choices named {twice!r}: name each differently.")
        if any(self._leaves_base(choice) for choice in choices):
            return tuple(choices)
        return (Choice(BASE, {}), *choices)

    def _leaves_base(self, choice: Choice) -> bool:
        try:
            return key_of(self._laid_over_base([choice])) == key_of(self.base)
        except ConfigError:  # possible in combination with another dimension alone
            return False

    def size(self) -> int:
        """Number of cells, combinations that contradict themselves included."""
        return math.prod(len(choices) for choices in self.dimensions.values())

    def grid(self) -> Iterator[dict[str, str]]:
        """Every assignment; the last dimension changes fastest."""
        names = [[choice.name for choice in choices] for choices in self.dimensions.values()]
        return (dict(zip(self.dimensions, cell, strict=True)) for cell in itertools.product(*names))

    @property
    def base_assignment(self) -> dict[str, str]:
        """The assignment that leaves the base configuration as it is."""
        return {
            dimension: next(choice.name for choice in choices if self._leaves_base(choice))
            for dimension, choices in self.dimensions.items()
        }

    def config_of(self, assignment: Assignment) -> RunConfig:
        """The base with the changes of every choice laid over it.

        `conversions` of several choices follow one another in the order of the dimensions. Raises `ConfigError` for an
        unknown name, for two choices that set one option differently, and for what `RunConfig` refuses.
        """
        return self._laid_over_base(self.choices_of(assignment))

    def choices_of(self, assignment: Assignment) -> list[Choice]:
        """The choice in each dimension; raises `ConfigError` for a dimension or a choice that is not in the space."""
        if unknown := next((name for name in assignment if name not in self.dimensions), None):
            raise ConfigError(f"Unknown dimension {unknown!r} of the search: {nearest(unknown, self.dimensions)}")
        chosen = []
        for dimension, choices in self.dimensions.items():
            names = {choice.name: choice for choice in choices}
            if (name := assignment.get(dimension, "")) not in names:
                raise ConfigError(f"Dimension {dimension!r} has no choice {name!r}: {nearest(name, names)}")
            chosen.append(names[name])
        return chosen

    def _laid_over_base(self, choices: Sequence[Choice]) -> RunConfig:
        set_by: dict[tuple[str, ...], tuple[str, Any]] = {}
        for choice in choices:
            for path, value in _leaves(choice.changes):
                name, before = set_by.get(path, (choice.name, value))
                if path == ("conversions",):
                    set_by[path] = (choice.name, list(dict.fromkeys([*before, *value])))
                elif before == value:
                    set_by[path] = (choice.name, value)
                else:
                    raise ConfigError(
                        f"Choices {name!r} and {choice.name!r} set option {'.'.join(path)!r} to {before!r} and to "
                        f"{value!r}: take one of them."
                    )
        options = self.base.model_dump(exclude_unset=True)
        for path, (_, value) in set_by.items():
            section = options
            for key in path[:-1]:
                if not isinstance(section.get(key), dict):
                    section[key] = {}
                section = section[key]
            section[path[-1]] = value
        return RunConfig(**options)

    def distances(self) -> list[NDArray[np.float64]]:
        """How far two choices of a dimension are from one another, 0 to 1: float64[choices, choices] per dimension.

        Choices that set one option to numbers lie on a line at equal steps, in the order of the numbers, because sizes
        and counts are chosen in powers of two; of other choices each is as far from every other.
        """
        return [self._distances(choices) for choices in self.dimensions.values()]

    def _distances(self, choices: Sequence[Choice]) -> NDArray[np.float64]:
        apart: NDArray[np.float64] = 1.0 - np.eye(len(choices))
        leaves = [dict(_leaves(choice.changes)) for choice in choices]
        paths = {path for each in leaves for path in each}
        if len(paths) != 1:
            return apart
        (path,) = paths
        numbers = [each.get(path, _value_at(self._options, path)) for each in leaves]
        known = [not isinstance(value, bool) and isinstance(value, int | float) for value in numbers]
        line = sorted({value for value, is_number in zip(numbers, known, strict=True) if is_number})
        for i, j in itertools.permutations(np.flatnonzero(known), 2):
            apart[i, j] = abs(line.index(numbers[i]) - line.index(numbers[j])) / (len(line) - 1)
        return apart

    def to_json(self) -> dict[str, Any]:
        """The base and the dimensions as plain data, equal for equal spaces."""
        dimensions = {
            name: [{"name": choice.name, "changes": choice.changes} for choice in choices]
            for name, choices in self.dimensions.items()
        }
        plain: dict[str, Any] = json.loads(json.dumps({"base": self._options, "dimensions": dimensions}, default=str))
        return plain


def key_of(config: RunConfig) -> str:
    """A text that is equal for configurations that run the same, whichever options were spelt out."""
    return json.dumps(config.model_dump(mode="json"), sort_keys=True)


def _leaves(changes: Mapping[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and value of every option in nested mappings."""
    for name, value in changes.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*before, name))
        else:
            yield (*before, name), value


def _value_at(options: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        options = options.get(name) if isinstance(options, Mapping) else None
    return options
