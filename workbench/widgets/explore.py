"""`wb.explore(run)`: verdict, timeline, tables and figures of a run, linked by what is picked and what is in view."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import ipywidgets
import numpy as np

from workbench.diagnosis.findings import Finding, findings
from workbench.diagnosis.result import Diagnosis
from workbench.errors import RunFolderError
from workbench.figures.units import format_ns
from workbench.report.findings import shown as shown_findings
from workbench.runs.reader import RunFolder
from workbench.widgets.base import block, card_html, diagnosed, missing_html, table_html, text
from workbench.widgets.explore_figures import Counters, KernelChart, Roofline
from workbench.widgets.explore_find import (
    Choice,
    choice_of,
    kernel_of,
    lit_by,
    matcher,
    matching_kernels,
    matching_nodes,
    place_of,
)
from workbench.widgets.explore_summary import gap_scale, summary_html
from workbench.widgets.explore_tables import kernel_table, node_table
from workbench.widgets.explore_trace import passes_of, traced
from workbench.widgets.timeline.marks import Lit, MarkSource
from workbench.widgets.timeline.widget import Picked, Timeline

_TABS: Final = ("Nodes", "Kernels", "Roofline", "Longest kernels", "Clocks and counters", "Findings")
_NODES, _KERNELS = 0, 1
_GAPS: Final = 50  # that "longest gap" goes through
_MARGIN: Final = 0.04  # of a call, seen on either side of it


class Explorer(ipywidgets.VBox):
    """Everything about one run. choice: what is picked. shown: the pass in view."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.choice = run, Choice()
        self.diagnosis = diagnosis_of(run)
        self.findings: list[Finding] = [] if self.diagnosis is None else findings(run, self.diagnosis)
        self._matches: Callable[[str], bool] | None = None
        self._gap = self._finding = -1
        names = passes_of(run)
        self.shown = traced(run, names[0])
        kind = run.manifest.device.kind
        self.timeline = Timeline(self._source(), self.shown.measured_ns)
        self.nodes, self.kernels = node_table(kind), kernel_table()
        self.summary = ipywidgets.HTML()
        self.message = ipywidgets.HTML()
        self.passes = ipywidgets.Dropdown(options=names, description="pass", layout={"width": "170px"})
        self.call = ipywidgets.BoundedIntText(description="call", layout={"width": "150px"})
        self.filter = ipywidgets.Text(placeholder="filter nodes and kernels", layout={"width": "230px"})
        self.regular = ipywidgets.Checkbox(description="regular expression", indent=False, layout={"width": "150px"})
        self.longest_gap = _button("Longest gap", "Show the longest time without device work, then the next longest")
        self.next_finding = _button("Next finding", "Show where the next finding lies")
        self.measured = _button("Measured calls", "Show the calls that were measured")
        self.tabs = ipywidgets.Tab([self.nodes, self.kernels, *(ipywidgets.VBox() for _ in _TABS[2:])], titles=_TABS)
        self._wire()
        controls = [
            self.passes,
            self.call,
            self.measured,
            self.longest_gap,
            self.next_finding,
            self.filter,
            self.regular,
        ]
        bar = ipywidgets.HBox(controls, layout={"flex_flow": "row wrap", "align_items": "center"})
        card = ipywidgets.HTML(card_of(run, self.diagnosis))
        super().__init__([card, bar, self.message, self.timeline, self.summary, self.tabs], layout={"width": "100%"})
        self._begin()

    # what is in view

    def show_pass(self, name: str) -> None:
        """Show another pass of the run."""
        self.shown, self.choice, self._gap = traced(self.run, name), Choice(), -1
        self.timeline.show(self._source(), self.shown.measured_ns)
        self._begin()
        self._light()

    def show_call(self, number: int) -> None:
        """Bring a call of the pass into view."""
        edges = self.shown.call_ns(number)
        if edges is None:
            self.say(f"Pass {self.shown.pass_name} has no call {number}.")
            return
        margin = int((edges[1] - edges[0]) * _MARGIN)
        self.timeline.look(edges[0] - margin, edges[1] + margin)

    def show_longest_gap(self) -> None:
        """Bring the longest gap inside a call into view, and each time it is asked again the next longest."""
        gaps = None if self.shown.trace is None else self.shown.trace.longest_gaps(*self.shown.measured_ns, _GAPS)
        if gaps is None or not len(gaps):
            self.say("No gap is known in this pass: nothing recorded what the device did.")
            return
        self._gap = (self._gap + 1) % len(gaps)
        gap = gaps.iloc[self._gap]
        start, end = int(gap["start_ns"]), int(gap["end_ns"])
        self.say(f"Gap {self._gap + 1} of the {len(gaps)} longest: {format_ns(end - start)}, {gap['cause']}.")
        self.timeline.look(start - (end - start), end + (end - start))

    def show_next_finding(self) -> None:
        """Say the next finding, and bring what it is about into view where it lies in a place."""
        if not self.findings:
            self.say("There are no findings in this run.")
            return
        self._finding = (self._finding + 1) % len(self.findings)
        found = self.findings[self._finding]
        self.say(f"Finding {self._finding + 1} of {len(self.findings)}: {found.said} {found.remedy}")
        place = None if self.shown.trace is None else place_of(self.shown.trace, found, self.shown.measured_ns[0])
        if place is not None:
            choice, start, end = place
            self.choose(choice)
            self.timeline.look(start - 5 * (end - start), end + 5 * (end - start))

    # what is picked

    def choose(self, choice: Choice) -> None:
        """Mark something in every part; an empty choice marks nothing."""
        self.choice = choice
        trace = self.shown.trace
        self.nodes.pick(choice.node)
        kernel = choice.kernel if trace is None or choice.node is None else kernel_of(trace, choice.node)
        self.kernels.pick(kernel)
        for part in self._built(Roofline):
            part.mark(choice.node)
        self._light()

    def say(self, sentence: str) -> None:
        """One line above the timeline."""
        self.message.value = block(f'<p role="status">{text(sentence)}</p>') if sentence else ""

    # how it is wired

    def _wire(self) -> None:
        self.timeline.observe(lambda _: self._follow(), "view")
        self.timeline.on_pick(self._picked_mark)
        self.nodes.on_pick(lambda node: self.choose(Choice(node=node)))
        self.kernels.on_pick(lambda kernel: self.choose(Choice(kernel=kernel)))
        self.passes.observe(lambda change: self.show_pass(change["new"]), "value")
        self.call.observe(lambda change: self.show_call(change["new"]), "value")
        self.filter.observe(lambda _: self._refilter(), "value")
        self.regular.observe(lambda _: self._refilter(), "value")
        self.longest_gap.on_click(lambda _: self.show_longest_gap())
        self.next_finding.on_click(lambda _: self.show_next_finding())
        self.measured.on_click(lambda _: self.timeline.look(*self.shown.measured_ns))
        self.tabs.observe(lambda change: self._build(change["new"]), "selected_index")

    def _picked_mark(self, picked: Picked | None) -> None:
        trace = self.shown.trace
        self.choose(Choice() if picked is None or trace is None else choice_of(trace, picked))

    def _refilter(self) -> None:
        words = self.filter.value
        try:
            self._matches = matcher(words, regular=self.regular.value) if words else None
        except re.error as error:
            self.say(f"This is no regular expression: {error}.")
            return
        self.say("")
        self._light()
        self._follow()

    def _follow(self) -> None:
        """Recompute what depends on the window in view."""
        window = self.timeline.view_ns
        self.summary.value = summary_html(self.shown, window, self._gaps)
        for part in self._built(Counters):
            part.mark(*window)
        self._fill()

    def _fill(self) -> None:
        """The table that is open, of the window in view; the other one has time until it is opened."""
        trace, window, matches = self.shown.trace, self.timeline.view_ns, self._matches
        if trace is None:
            return
        if self.tabs.selected_index == _NODES:
            nodes = trace.node_table(*window)
            self.nodes.show(nodes if matches is None else nodes[matching_nodes(trace, matches)[nodes["node"]]])
        elif self.tabs.selected_index == _KERNELS:
            kernels = trace.kernel_table(*window)
            self.kernels.show(
                kernels if matches is None else kernels[matching_kernels(trace, matches)[kernels["kernel"]]]
            )

    def _light(self) -> None:
        trace = self.shown.trace
        if trace is None or (self.choice == Choice() and self._matches is None):
            self.timeline.light(None)
        elif self.choice != Choice():
            self.timeline.light(lit_by(trace, self.choice))
        elif self._matches is not None:
            found = matching_nodes(trace, self._matches), matching_kernels(trace, self._matches)
            self.timeline.light(Lit.of(trace, *found, self._matches))

    def _build(self, tab: int) -> None:
        """Fill the table of a tab; make its figure when it is first opened: a hidden one would not know its width."""
        place = self.tabs.children[tab]
        if tab in (_NODES, _KERNELS):
            self._fill()
            return
        if place.children:
            return
        made: list[Callable[[], ipywidgets.Widget]] = [
            lambda: Roofline(self.run, self.diagnosis, self.shown.trace, lambda node: self.choose(Choice(node=node))),
            lambda: KernelChart(self.run, self._picked_kernel),
            lambda: Counters(self.run),
            lambda: ipywidgets.HTML(_findings_html(self.findings, self.diagnosis)),
        ]
        place.children = [ipywidgets.HTML(block('<p class="quiet">Drawing …</p>'))]
        place.children = [made[tab - 2]()]
        self.choose(self.choice)
        self._follow()

    def _built(self, kind: type) -> list[Any]:
        return [
            place.children[0]
            for place in self.tabs.children[2:]
            if place.children and isinstance(place.children[0], kind)
        ]

    def _picked_kernel(self, name: str) -> None:
        if self.shown.trace is not None:
            at = np.flatnonzero((self.shown.trace.kernels.rules["name"] == name).to_numpy())
            self.choose(Choice(kernel=int(at[0])) if len(at) else Choice())

    def _source(self) -> MarkSource:
        return MarkSource(self.shown.levels, self.shown.trace, self.run.manifest.device.kind)

    def _begin(self) -> None:
        """What follows from the pass in view."""
        numbers = self.shown.calls["call"]
        self.call.max = int(numbers.max()) if len(numbers) else 0
        self._gaps = gap_scale(self.shown, self.diagnosis)
        self._follow()
        if self.shown.trace is not None and self.tabs.selected_index == _NODES and not self.nodes.total:
            self.tabs.selected_index = _KERNELS  # this pass knows no nodes


def diagnosis_of(run: RunFolder) -> Diagnosis | None:
    """The diagnosis of a run; None where it holds no latency, so that the rest can still be looked at."""
    try:
        return diagnosed(run)
    except RunFolderError:
        return None


def card_of(run: RunFolder, diagnosis: Diagnosis | None) -> str:
    """The verdict card as HTML, and what is missing."""
    if diagnosis is None:
        return missing_html("This run holds no latency, so that there is no verdict: profile the model again.")
    lines = "".join(f"<li>{text(each)}</li>" for each in diagnosis.missing)
    details = f"<details><summary>What is missing ({len(diagnosis.missing)})</summary><ul>{lines}</ul></details>"
    return card_html(diagnosis, run.manifest) + (block(details) if lines else "")


def _findings_html(found: list[Finding], diagnosis: Diagnosis | None) -> str:
    if not found or diagnosis is None:
        return missing_html("There are no findings in this run.")
    parts = [
        f"<h4>{text(each.rule)} · saves at most {text(each.saves)}</h4><p>{text(each.said)} {text(each.remedy)}</p>"
        + f'<div style="overflow-x:auto">{table_html(each.columns, each.rows)}</div>'
        for each in shown_findings(found, diagnosis.latency.median_ns)
    ]
    return block("".join(parts))


def _button(words: str, told: str) -> ipywidgets.Button:
    return ipywidgets.Button(description=words, tooltip=told, layout={"width": "auto"})
