"""The space of a search out of levers: those that set the same option are choices of one dimension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench.diagnosis.levers import Lever, Ranked, Situation
from workbench.tuning.space import Choice

Path = tuple[str, ...]


def dimensions_of(levers: Sequence[Lever], situation: Situation) -> dict[str, list[Choice]]:
    """Levers that set a common option exclude one another, and so become choices of one dimension.

    It is named after the option that most of its levers set (`binding`, `cuda.prefer_nhwc`, …). A lever that sets
    several options joins the dimensions of all of them into one.
    """
    groups: list[tuple[set[Path], list[Lever]]] = []
    for lever in levers:
        paths = set(_options(lever.changes_in(situation)))
        joined = [group for group in groups if group[0] & paths]
        groups = [group for group in groups if not group[0] & paths]
        members = [*(member for _, held in joined for member in held), lever]
        groups.append((set.union(paths, *(held for held, _ in joined)), members))
    found = {}
    for paths, members in groups:
        setters = {path: sum(path in set(_options(each.changes_in(situation))) for each in members) for path in paths}
        most: Path = max(sorted(setters), key=lambda path: setters[path])
        found[".".join(most)] = [
            Choice(each.name, each.changes_in(situation), ", ".join(each.treats)) for each in members
        ]
    return found


def suggestions(
    ranked: Sequence[Ranked], dimensions: Mapping[str, Sequence[Choice]], most: int
) -> list[dict[str, str]]:
    """Where to begin: the levers of the verdict's class one by one, in their order, and then the best of all together.

    ranked: as `workbench.diagnosis.levers.ranked` orders them. most: how many assignments.
    """
    home = {choice.name: dimension for dimension, choices in dimensions.items() for choice in choices}
    named = [each.lever.name for each in ranked if each.lever.name in home]
    treating = [each.lever.name for each in ranked if each.treats_verdict and each.lever.name in home]
    together: dict[str, str] = {}
    for name in [*treating, *named]:
        helps = next(each.prediction.ratio for each in ranked if each.lever.name == name)
        if helps is not None and helps < 1:
            together.setdefault(home[name], name)
    singles = [{home[name]: name} for name in treating or named]
    return [*([together] if len(together) > 1 else []), *singles][:most]


def _options(changes: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    for name, value in changes.items():
        if isinstance(value, Mapping):
            yield from _options(value, (*above, name))
        else:
            yield (*above, name)
