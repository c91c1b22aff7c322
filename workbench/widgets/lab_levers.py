"""The levers that a lab offers, grouped by what they treat: each with its condition, its cost, and what to expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from workbench.diagnosis.levers import Lever, Situation, custom, held_back_by, lever, levers
from workbench.diagnosis.prediction import Prediction, predict
from workbench.diagnosis.shares import LAUNCH_CAUSES
from workbench.errors import ConfigError
from workbench.figures.classes import COLOURS, FRAMEWORK_OVERHEAD, label
from workbench.figures.metrics import format_interval, format_ratio
from workbench.report.redact import without_folders
from workbench.tuning.experiment import Experiment
from workbench.widgets.base import text

NOT_RECORDED: Final = "It is not in this record: on a GPU, the lab of the model measures it."
_OTHER_GROUPS: Final = {"cold start": "cold start", "capacity": "capacity: memory, several callers"}
_OWN: Final = "changes of your own"
_FEWEST_TO_SAY_ONCE: Final = 2


@dataclass(frozen=True)
class Offer:
    """One lever in a situation. refusal: why it cannot be chosen, None where it can."""

    lever: Lever
    prediction: Prediction
    refusal: str | None = None


@dataclass(frozen=True)
class Group:
    """Levers that treat the same. colour: of the class, empty where it is none."""

    name: str
    colour: str
    for_verdict: bool
    offers: list[Offer]


def offers(situation: Situation, tried: Sequence[Experiment] | None = None) -> list[Group]:
    """Every lever in groups, those for the verdict first, and in a group by predicted gain; what cannot be chosen last.

    tried: the experiments of a record, which are then all that can be chosen, with the predictions of that time.
    """
    held = held_back_by(situation)
    recorded = {each.lever: each for each in tried or []}
    known = {each.name: each for each in levers()}
    extra = [_lever_of(each) for name, each in recorded.items() if name not in known]
    groups: dict[str, list[Offer]] = {}
    for each in [*known.values(), *extra]:
        offer = _recorded(each, recorded, situation) if tried is not None else _live(each, situation)
        groups.setdefault(_group_of(each, held), []).append(offer)
    kind = situation.device.kind
    found = [
        Group(_name(name, kind), COLOURS.get(_class_of(name), ""), name in held, sorted(members, key=_order))
        for name, members in groups.items()
    ]
    return sorted(found, key=lambda group: not group.for_verdict)


def said_once(groups: Sequence[Group]) -> str | None:
    """The sentence why nothing can be predicted, where it is the same for all that can be chosen."""
    reasons = [offer.prediction.cannot_say for group in groups for offer in group.offers if offer.refusal is None]
    if len(reasons) >= _FEWEST_TO_SAY_ONCE and reasons[0] is not None and len(set(reasons)) == 1:
        return reasons[0]
    return None


def offer_html(offer: Offer, common: str | None = None) -> str:
    """What a row says beside the box: title, prediction, costs, condition, and unfolded the effect and the arithmetic.

    common: a reason that stands above all rows already.
    """
    said, shown = offer.prediction, ""
    if said.ratio is not None:
        way = "less" if said.ratio < 1 else "more"
        shown = (
            f'<span class="gain {way}" title="predicted time / time now, with its 95 % interval">predicted '
            f"{format_ratio(said.ratio)} ({format_interval(said.low, said.high)})</span>"
        )
    elif said.cannot_say != common:
        shown = '<span class="gain">cannot say</span>'
    why = said.why if said.ratio is not None else "" if said.cannot_say == common else f"Cannot say: {said.cannot_say}"
    lines = [
        f"<b>Effect:</b> {text(offer.lever.effect)}",
        f"<b>Cost:</b> {text(offer.lever.cost)}",
        *([f"<b>Prediction:</b> {text(without_folders(why))}"] if why else []),
    ]
    return (
        f'<details class="lever"><summary>{text(offer.lever.title)} {shown}<span class="quiet cost">costs: '
        f"{text(', '.join(offer.lever.costs) or 'nothing known')}</span>"
        f'<div class="quiet when">when: {text(offer.lever.condition)}</div></summary>'
        + "".join(f"<p>{line}</p>" for line in lines)
        + "</details>"
    )


def refused_html(refused: Sequence[Offer]) -> str:
    """The levers of a group that cannot be chosen, with the reason of each; those with the same reason together."""
    by_reason: dict[str, list[Offer]] = {}
    for offer in refused:
        by_reason.setdefault(offer.refusal or "", []).append(offer)
    rows = "".join(
        f"<p><b>{text(', '.join(offer.lever.name for offer in same))}</b>: {text(without_folders(reason))}</p>"
        for reason, same in by_reason.items()
    )
    summary = f'<summary class="quiet">{len(refused)} that cannot be tried here</summary>'
    return f'<details class="refused">{summary}{rows}</details>'


def _live(each: Lever, situation: Situation) -> Offer:
    refusal = each.why_not(situation)
    return Offer(each, Prediction(each.name) if refusal is not None else predict(each, situation), refusal)


def _recorded(each: Lever, recorded: Mapping[str, Experiment], situation: Situation) -> Offer:
    experiment = recorded.get(each.name)
    if experiment is None:
        return Offer(each, Prediction(each.name), each.why_not(situation) or NOT_RECORDED)
    if experiment.prediction is None:
        return Offer(each, Prediction(each.name), experiment.why)
    return Offer(each, experiment.prediction)


def _lever_of(experiment: Experiment) -> Lever:
    """A lever with a number (`streams-3`), or a change of the user's own."""
    try:
        return lever(experiment.lever)
    except ConfigError:
        return custom(experiment.lever, {})


def _group_of(each: Lever, held: set[str]) -> str:
    """What a lever treats: the verdict's class or sub-cause where it treats it, else the class that it names first."""
    if not each.treats:
        return _OWN
    return next((treated for treated in each.treats if treated in held), _class_of(each.treats[0]))


def _class_of(treated: str) -> str:
    return "launch" if treated in (*LAUNCH_CAUSES, FRAMEWORK_OVERHEAD) else treated


def _name(group: str, kind: str) -> str:
    if group in LAUNCH_CAUSES:
        return f"{label('launch', kind)}, {group}"
    return label(group, kind) if group in COLOURS else _OTHER_GROUPS.get(group, group)


def _order(offer: Offer) -> tuple[bool, float]:
    """What can be chosen first; then by prediction, as `workbench.diagnosis.levers.ranked` does."""
    return offer.refusal is not None, 1.0 if offer.prediction.ratio is None else offer.prediction.ratio
