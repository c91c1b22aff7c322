"""`wb.explore(a, b)`: two runs on one time axis, call beside call, with the nodes of both matched by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import ipywidgets

from workbench.diagnosis.result import Diagnosis
from workbench.runs.reader import RunFolder
from workbench.widgets.base import block, text
from workbench.widgets.explore import card_of, diagnosis_of
from workbench.widgets.explore_find import (
    Choice,
    choice_of,
    lit_by,
    matcher,
    matching_kernels,
    matching_nodes,
    node_named,
)
from workbench.widgets.explore_summary import gap_scale, summary_html
from workbench.widgets.explore_tables import pair_table, paired
from workbench.widgets.explore_trace import passes_of, traced
from workbench.widgets.timeline.marks import Lit, MarkSource
from workbench.widgets.timeline.widget import Picked, Timeline

_MARGIN: Final = 0.04  # of a call, seen on either side of it


class Side(ipywidgets.VBox):
    """One of the two runs: its timeline and the summary of what is in view."""

    def __init__(self, run: RunFolder, pass_name: str, diagnosis: Diagnosis | None) -> None:
        self.shown = traced(run, pass_name)
        self.gaps = gap_scale(self.shown, diagnosis)
        source = MarkSource(self.shown.levels, self.shown.trace, run.manifest.device.kind)
        self.timeline = Timeline(source, self.shown.measured_ns)
        self.summary = ipywidgets.HTML()
        rows = self.shown.calls[self.shown.calls["phase"] == "measured"]
        self.measured = [int(number) for number in rows["call"]]
        name = f"{run.manifest.model.name} on {run.manifest.device.name}: {run.folder.name}, pass {pass_name}"
        heading = ipywidgets.HTML(block(f"<h4>{text(name)}</h4>"))
        super().__init__([heading, self.timeline, self.summary])

    def nth(self, at: int) -> tuple[int, int]:
        """The edges of a measured call, counted from 0: of the last where there are fewer, of all where none is."""
        found = self.shown.call_ns(self.measured[min(at, len(self.measured) - 1)]) if self.measured else None
        return found or self.shown.measured_ns

    def node_named(self, name: str) -> Choice:
        """The choice of the node with this name; of the mere name where the run has no such node."""
        trace = self.shown.trace
        return (None if trace is None else node_named(trace, name)) or Choice(name=name)

    def light(self, choice: Choice, matches: Callable[[str], bool] | None) -> None:
        """Mark a choice, or else what a filter finds."""
        trace = self.shown.trace
        if trace is None or (choice == Choice() and matches is None):
            self.timeline.light(None)
        elif choice != Choice():
            self.timeline.light(lit_by(trace, choice))
        elif matches is not None:
            self.timeline.light(
                Lit.of(trace, matching_nodes(trace, matches), matching_kernels(trace, matches), matches)
            )


class PairExplorer(ipywidgets.VBox):
    """Two runs whose timelines move together; the n-th measured call of the one begins where that of the other does."""

    def __init__(self, first: RunFolder, second: RunFolder) -> None:
        diagnoses = [diagnosis_of(run) for run in (first, second)]
        common = [name for name in passes_of(first) if name in passes_of(second)]
        names = [common[0]] * 2 if common else [passes_of(run)[0] for run in (first, second)]
        self.sides = [Side(run, name, said) for run, name, said in zip((first, second), names, diagnoses, strict=True)]
        self._matches: Callable[[str], bool] | None = None
        self._moving = False
        self.table = pair_table()
        most = max(max(len(side.measured) for side in self.sides) - 1, 0)
        self.call = ipywidgets.BoundedIntText(description="measured call", max=most, layout={"width": "190px"})
        self.call.style.description_width = "initial"
        self.filter = ipywidgets.Text(placeholder="filter nodes and kernels", layout={"width": "230px"})
        self.regular = ipywidgets.Checkbox(description="regular expression", indent=False, layout={"width": "150px"})
        self.message = ipywidgets.HTML()
        cards = [
            ipywidgets.HTML(card_of(run, said), layout={"flex": "1 1 380px", "min_width": "0"})
            for run, said in zip((first, second), diagnoses, strict=True)
        ]
        bar = ipywidgets.HBox([self.call, self.filter, self.regular, self.message])
        row = ipywidgets.HBox(cards, layout={"flex_flow": "row wrap"})
        super().__init__([row, bar, *self.sides, self.table], layout={"width": "100%"})
        for at, side in enumerate(self.sides):
            side.timeline.observe(partial(self._moved, at), "view")
            side.timeline.on_pick(partial(self._picked, at))
        self.table.on_pick(lambda row: self.choose(None if row is None else self._name_of(row)))
        self.call.observe(lambda _: self.show_call(self.call.value), "value")
        self.filter.observe(lambda _: self._refilter(), "value")
        self.regular.observe(lambda _: self._refilter(), "value")
        self.show_call(0)

    def show_call(self, at: int) -> None:
        """Bring the same measured call of both runs into view, counted from 0; the longer one sets the scale."""
        edges = [side.nth(at) for side in self.sides]
        length = max(end - start for start, end in edges)
        margin = int(length * _MARGIN)
        self._moving = True
        for side, (start, _) in zip(self.sides, edges, strict=True):
            side.timeline.look(start - margin, start + length + margin)
        self._moving = False
        self._follow()

    def choose(self, name: str | None) -> None:
        """Mark the node of this name in both runs and in the table; None marks nothing."""
        for side in self.sides:
            side.light(Choice() if name is None else side.node_named(name), self._matches)
        rows = self.table.frame.loc[self.table.frame["name"] == name, "row"]
        self.table.pick(int(rows.iloc[0]) if len(rows) else None)

    def _moved(self, at: int, _: Any) -> None:
        """Move the other timeline by as much as this one, from the beginning of the aligned call on."""
        if self._moving:
            return
        here, there = self.sides[at], self.sides[1 - at]
        shift = there.nth(self.call.value)[0] - here.nth(self.call.value)[0]
        start, end = here.timeline.view_ns
        self._moving = True
        there.timeline.look(start + shift, end + shift)
        self._moving = False
        self._follow()

    def _picked(self, at: int, picked: Picked | None) -> None:
        trace = self.sides[at].shown.trace
        choice = Choice() if picked is None or trace is None else choice_of(trace, picked)
        if trace is not None and choice.node is not None:
            self.choose(str(trace.nodes["name"].iloc[choice.node]))
            return
        self.table.pick(None)
        self.sides[at].light(choice, self._matches)
        self.sides[1 - at].light(Choice(name=choice.name), self._matches)

    def _refilter(self) -> None:
        try:
            words = self.filter.value
            self._matches = matcher(words, regular=self.regular.value) if words else None
        except re.error as error:
            self.message.value = block(f'<p role="status">{text(f"This is no regular expression: {error}.")}</p>')
            return
        self.message.value = ""
        for side in self.sides:
            side.light(Choice(), self._matches)
        self._follow()

    def _follow(self) -> None:
        """Summaries are of what is in view; the table is of the aligned call, so that it compares like with like."""
        tables = []
        for side in self.sides:
            side.summary.value = summary_html(side.shown, side.timeline.view_ns, side.gaps)
            if (trace := side.shown.trace) is not None:
                nodes = trace.node_table(*side.nth(self.call.value))
                tables.append(
                    nodes if self._matches is None else nodes[matching_nodes(trace, self._matches)[nodes["node"]]]
                )
        if len(tables) == len(self.sides):
            self.table.show(paired(*tables))

    def _name_of(self, row: int) -> str | None:
        names = self.table.frame.loc[self.table.frame["row"] == row, "name"]
        return str(names.iloc[0]) if len(names) else None
