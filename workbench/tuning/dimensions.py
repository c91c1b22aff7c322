"""The space of a search out of levers: those that set the same option are choices of one dimension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench.diagnosis.levers import Lever, Ranked, Situation
from workbench.errors import ConfigError
from workbench.tuning.space import Choice, Space

OptionPath = tuple[str, ...]


def dimensions_of(levers: Sequence[Lever], situation: Situation) -> dict[str, list[Choice]]:
    """Levers that set a common option exclude one another, and so become choices of one dimension.

    It is named after the option that most of its levers set (`binding`, `cuda.prefer_nhwc`, …). A lever that sets
    several options joins the dimensions of all of them into one.
    """
    groups: list[tuple[set[OptionPath], list[Lever]]] = []
    for lever in levers:
        paths = set(_options(lever.changes_in(situation)))
        joined = [group for group in groups if group[0] & paths]
        groups = [group for group in groups if not group[0] & paths]
        members = [*(member for _, held in joined for member in held), lever]
        groups.append((set.union(paths, *(held for held, _ in joined)), members))
    found = {}
    for paths, members in groups:
        setters = {path: sum(path in set(_options(each.changes_in(situation))) for each in members) for path in paths}
        most: OptionPath = max(sorted(setters), key=lambda path: setters[path])
        found[".".join(most)] = [
            Choice(each.name, each.changes_in(situation), ", ".join(each.treats)) for each in members
        ]
    return found


def suggestions(ranked: Sequence[Ranked], space: Space, most: int) -> list[dict[str, str]]:
    """Where to begin: all that should help at once, then also what only may, then each by itself.

    ranked: as `workbench.diagnosis.levers.ranked` orders them. What should help is predicted to; what may is not
    predicted, or has an interval that leaves room. What contradicts a choice before it gives way to the next one of its
    dimension. most: how many assignments.
    """
    home = {choice.name: dimension for dimension, choices in space.dimensions.items() for choice in choices}
    inside = [each for each in ranked if each.lever.name in home]
    should = sorted((each for each in inside if _ratio(each) < 1), key=_ratio)
    may = [each for each in inside if each not in should and (each.prediction.low is None or each.prediction.low < 1)]
    names = [each.lever.name for each in (*should, *may)]
    together, bold = (_joined(some, home, space) for some in (names[: len(should)], names))
    found = [each for each in (together, bold, *({home[name]: name} for name in names)) if each]
    return [each for at, each in enumerate(found) if each not in found[:at]][:most]


def _ratio(ranked: Ranked) -> float:
    return 1.0 if ranked.prediction.ratio is None else ranked.prediction.ratio


def _joined(names: Sequence[str], home: Mapping[str, str], space: Space) -> dict[str, str]:
    """The first choice of each dimension that goes with those before it."""
    found: dict[str, str] = {}
    for name in names:
        if home[name] in found:
            continue
        wider = {**found, home[name]: name}
        try:
            space.config_of(space.base_assignment | wider)
        except ConfigError:
            continue
        found = wider
    return found


def _options(changes: Mapping[str, Any], above: OptionPath = ()) -> Iterator[OptionPath]:
    for name, value in changes.items():
        if isinstance(value, Mapping):
            yield from _options(value, (*above, name))
        else:
            yield (*above, name)
