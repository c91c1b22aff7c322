"""The part of a lab in which levers, metric, limits and rounds are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import ipywidgets as widgets

from workbench.figures.metrics import metric_name
from workbench.tuning.objective import metric_of
from workbench.widgets.base import text
from workbench.widgets.lab_bench import Choice
from workbench.widgets.lab_levers import Group, offer_html, refused_html, said_once

_METRICS: Final = ("latency", "latency:p99", "throughput", "memory", "host-memory", "cold-start")
_MOST_ROUNDS: Final = 50
_WIDE: Final = {"description_width": "initial"}


class LeverList(widgets.VBox):
    """Levers in groups with a box each. boxes: by the lever's name, of those that can be chosen."""

    def __init__(self, groups: Sequence[Group], *, chosen: bool) -> None:
        self.boxes: dict[str, widgets.Checkbox] = {}
        self._for_verdict: set[str] = set()
        common = said_once(groups)
        verdict, none = (widgets.Button(description=name) for name in ("Tick those for the verdict", "Tick none"))
        for button in (verdict, none):
            button.layout.width = "auto"
        verdict.on_click(lambda _: self._tick(self._for_verdict))
        none.on_click(lambda _: self._tick(set()))
        parts: list[widgets.Widget] = [widgets.HBox([verdict, none])]
        if common is not None:
            parts.append(widgets.HTML(f"<p><b>No lever has a prediction.</b> {text(common)}</p>"))
        for group in groups:
            parts += self._rows(group, common, chosen)
        super().__init__(parts)
        self.add_class("wb-levers")

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the levers that are ticked, as they stand."""
        return tuple(name for name, box in self.boxes.items() if box.value)

    def _tick(self, names: set[str]) -> None:
        for name, box in self.boxes.items():
            box.value = name in names

    def _rows(self, group: Group, common: str | None, chosen: bool) -> list[widgets.Widget]:
        swatch = f'<span class="swatch" style="--class: {group.colour}"></span>' if group.colour else ""
        words = f"For the verdict: {group.name}" if group.for_verdict else group.name
        rows = [widgets.HTML(f'<h4 class="group">{swatch}{text(words)}</h4>')]
        for offer in (each for each in group.offers if each.refusal is None):
            name = offer.lever.name
            box = widgets.Checkbox(
                value=chosen, description=name, indent=False, layout={"width": "210px", "flex": "0 0 auto"}
            )
            self.boxes[name] = box
            if group.for_verdict:
                self._for_verdict.add(name)
            said = widgets.HTML(offer_html(offer, common), layout={"flex": "1 1 auto", "min_width": "0"})
            rows.append(widgets.HBox([box, said], layout={"align_items": "flex-start"}))
        if refused := [each for each in group.offers if each.refusal is not None]:
            rows.append(widgets.HTML(refused_html(refused)))
        return rows


class Judging(widgets.HBox):
    """Metric, limits and rounds."""

    def __init__(self, objective: str, rounds: int, *, most_rounds: int = _MOST_ROUNDS, on_gpu: bool) -> None:
        asked = metric_of(objective).name
        words = [word for word in _METRICS if on_gpu or word != "memory"]  # of the GPU
        start = next((word for word in words if metric_of(word).name == asked), objective)
        options = [(metric_name(metric_of(word).name), word) for word in dict.fromkeys([*words, start])]
        self.metric = widgets.Dropdown(options=options, value=start, description="metric")
        self.limits = widgets.Text(
            description="limits", placeholder="p99<10ms, memory<4GB", continuous_update=False, style=_WIDE
        )
        self.rounds = widgets.BoundedIntText(
            value=min(rounds, most_rounds), min=1, max=most_rounds, description="rounds", layout={"width": "150px"}
        )
        super().__init__([self.metric, self.limits, self.rounds], layout={"flex_flow": "row wrap"})

    def choice(self, levers: tuple[str, ...]) -> Choice:
        """What is set; raises `ConfigError` where it means nothing."""
        limits = tuple(part.strip() for part in self.limits.value.split(",") if part.strip())
        return Choice(levers, self.metric.value, limits, self.rounds.value).checked()
