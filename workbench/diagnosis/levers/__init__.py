"""Levers: named changes of a configuration, each with what it treats, when it applies, and what it gives and costs."""

from workbench.diagnosis.levers.catalogue import lever, levers
from workbench.diagnosis.levers.entry import ALREADY_SO, Lever, applied, custom
from workbench.diagnosis.levers.ranking import Ranked, held_back_by, ranked
from workbench.diagnosis.situation import Situation, situation_of

__all__ = [
    "ALREADY_SO", "Lever", "Ranked", "Situation", "applied", "custom", "held_back_by", "lever", "levers", "ranked",
    "situation_of",
]  # fmt: skip
