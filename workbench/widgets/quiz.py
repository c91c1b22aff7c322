"""`workbench.quiz`: say what holds a run back before the answer opens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import ipywidgets as widgets

from workbench.diagnosis.result import Diagnosis
from workbench.diagnosis.shares import CLASSES
from workbench.diagnosis.verdict import INCONCLUSIVE
from workbench.errors import ConfigError
from workbench.figures.classes import label
from workbench.figures.units import format_bytes, format_ns, format_percent
from workbench.report import facts as words
from workbench.runs.reader import RunFolder
from workbench.widgets.base import CSS_CLASS, block, card_html, missing_html, table_html, text
from workbench.widgets.quiz_facts import Facts, facts_of
from workbench.widgets.quiz_feedback import CAUSES, confirmed, confirmed_cause, refuted, refuted_cause

_NONE_CLEARLY: Final = "none of them clearly"
_STYLE: Final = """<style>
.wb .widget-html-content { line-height: 1.45; }
.wb .right { border-left: 4px solid #009988; padding: 4px 10px; background: var(--wb-panel); }
.wb .wrong { border-left: 4px solid #CC3311; padding: 4px 10px; background: var(--wb-panel); }
.wb .depth1 { padding-left: 16px; }
.wb .widget-toggle-button.mod-active { background: var(--wb-accent); color: #fff; font-weight: 600; }
.wb .widget-toggle-button:focus-visible { outline: 2px solid var(--wb-accent); outline-offset: 2px; }
</style>"""


@dataclass(frozen=True)
class Case:
    """One run to be judged, with its answer."""

    run: RunFolder
    diagnosis: Diagnosis


@dataclass
class Attempt:
    """What was answered for one run, in order. opened: whether the answer is shown."""

    classes: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    opened: bool = False


class Quiz(widgets.VBox):
    """One run after the other. attempts: what was answered for each, kept while one goes back and forth.

    Raises `ConfigError` without a run.
    """

    def __init__(self, cases: Sequence[Case]) -> None:
        if not cases:
            raise ConfigError("A quiz needs a run: give one, or several.")
        self.cases, self.at = list(cases), 0
        self.attempts = [Attempt() for _ in cases]
        self._facts: dict[int, Facts] = {}
        self.head, self.evidence, self.feedback = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.cause_feedback, self.revealed = widgets.HTML(), widgets.HTML()
        self.question = widgets.HTML()
        wide = {"width": "auto"}
        # No radio buttons: JupyterLab takes their arrow keys for moving between cells. Tab and Space work on these.
        self.classes = widgets.ToggleButtons(options=[("", "")], layout=wide, style={"button_width": "auto"})
        self.answer = widgets.Button(description="Answer", button_style="primary")
        self.reveal = widgets.Button(description="Show the answer", layout=wide)
        self.cause_question = widgets.HTML("<h4>What within launch?</h4>")
        self.causes = widgets.ToggleButtons(
            options=[(said, name) for name, said in CAUSES.items()],
            value=None,
            layout=wide,
            style={"button_width": "auto"},
        )
        self.answer_cause = widgets.Button(description="Answer", button_style="primary")
        self.back, self.forward = (widgets.Button(description=name) for name in ("Previous run", "Next run"))
        self.answer.on_click(lambda _: self._answered())
        self.answer_cause.on_click(lambda _: self._cause_answered())
        self.reveal.on_click(lambda _: self._revealed())
        self.back.on_click(lambda _: self._go(-1))
        self.forward.on_click(lambda _: self._go(1))
        self._cause_part = widgets.VBox([self.cause_question, self.causes, self.answer_cause, self.cause_feedback])
        self._asking = widgets.VBox(
            [self.question, self.classes, widgets.HBox([self.answer, self.reveal]), self.feedback, self._cause_part]
        )
        moving = [widgets.HBox([self.back, self.forward])] if len(self.cases) > 1 else []
        super().__init__([self.head, self.evidence, self._asking, self.revealed, *moving])
        self.add_class(CSS_CLASS)
        self._show()

    @property
    def score(self) -> tuple[int, int]:
        """Runs whose class, and for launch whose cause, was right at the first try; and runs with an answer."""
        judged = [(case, attempt) for case, attempt in zip(self.cases, self.attempts, strict=True) if attempt.classes]
        return sum(_right_at_once(case, attempt) for case, attempt in judged), len(judged)

    @property
    def _case(self) -> Case:
        return self.cases[self.at]

    @property
    def _attempt(self) -> Attempt:
        return self.attempts[self.at]

    def _facts_here(self) -> Facts:
        if self.at not in self._facts:
            self._facts[self.at] = facts_of(self._case.run, self._case.diagnosis)
        return self._facts[self.at]

    def _answered(self) -> None:
        if self.classes.value is None or self._attempt.opened:
            return
        self._attempt.classes.append(self.classes.value)
        if self._right() and _cause_of(self._case) is None:
            self._attempt.opened = True
        self._show_state()

    def _cause_answered(self) -> None:
        if self.causes.value is None or self._attempt.opened:
            return
        self._attempt.causes.append(self.causes.value)
        if self.causes.value == _cause_of(self._case):
            self._attempt.opened = True
        self._show_state()

    def _revealed(self) -> None:
        self._attempt.opened = True
        self._show_state()

    def _go(self, by: int) -> None:
        self.at = min(max(self.at + by, 0), len(self.cases) - 1)
        self._show()

    def _right(self) -> bool:
        return bool(self._attempt.classes) and _is_right(self._case, self._attempt.classes[-1])

    def _show(self) -> None:
        """Another run: its evidence and its choices, as far as it was answered before."""
        kind = self._case.run.manifest.device.kind
        if self._case.diagnosis.pieces is None and self._case.diagnosis.verdict.name == INCONCLUSIVE:
            reason = "; ".join(self._case.diagnosis.missing) or self._case.diagnosis.verdict.reason
            self.evidence.value = missing_html(f"This run cannot be asked about: {reason}")
            self._asking.layout.display = "none"
            self.revealed.value = ""
            self._show_head()
            return
        self._asking.layout.display = ""
        self.question.value = "<h4>What holds this run back?</h4>"
        known = [name for name in CLASSES if name not in self._case.diagnosis.not_applicable]
        options = [(label(name, kind), name) for name in known]
        self.classes.options = [*options, (_NONE_CLEARLY, INCONCLUSIVE)]
        self.classes.value = self._attempt.classes[-1] if self._attempt.classes else None
        self.causes.value = self._attempt.causes[-1] if self._attempt.causes else None
        self.evidence.value = _evidence_html(self._facts_here())
        self._show_state()

    def _show_state(self) -> None:
        case, attempt, truth = self._case, self._attempt, _truth(self._case)
        facts = self._facts_here()
        self.feedback.value = self.cause_feedback.value = self.revealed.value = ""
        if attempt.classes:
            chosen, right = attempt.classes[-1], self._right()
            said = confirmed(truth, facts) if right else refuted(truth, chosen, facts)
            name = _NONE_CLEARLY if chosen == INCONCLUSIVE else label(chosen, facts.kind)
            self.feedback.value = _feedback_html(f"Yes: {name}." if right else f"Not {name}.", right, said)
        cause = _cause_of(case)
        asks_cause = cause is not None and self._right()
        self._cause_part.layout.display = "" if asks_cause else "none"
        if asks_cause and cause is not None and attempt.causes:
            picked, hit = attempt.causes[-1], attempt.causes[-1] == cause
            said = confirmed_cause(cause, facts) if hit else refuted_cause(cause, picked, facts)
            self.cause_feedback.value = _feedback_html(f"{'Yes' if hit else 'Not'}: {picked}.", hit, said)
        for part in (self.classes, self.causes, self.answer, self.answer_cause, self.reveal):
            part.disabled = attempt.opened
        self.reveal.layout.display = "none" if attempt.opened else ""
        if attempt.opened:
            self.revealed.value = _answer_html(case)
        self._show_head()

    def _show_head(self) -> None:
        right, answered = self.score
        manifest = self._case.run.manifest
        where = f"Run {self.at + 1} of {len(self.cases)}: " if len(self.cases) > 1 else ""
        count = f"{right} of {answered} right at the first try" if answered else ""
        self.head.value = block(
            f"{_STYLE}<h4>{where}{text(manifest.model.name)} on {text(manifest.device.name)}</h4>"
            f'<p class="quiet" role="status">{count}</p>'
        )
        self.back.disabled, self.forward.disabled = self.at == 0, self.at == len(self.cases) - 1


def _truth(case: Case) -> str:
    return case.diagnosis.verdict.label


def _is_right(case: Case, chosen: str) -> bool:
    """Of two that hold a run back together, either is right, and so is that none does it alone."""
    pair = case.diagnosis.verdict.pair
    return chosen == case.diagnosis.verdict.name or (pair is not None and chosen in pair)


def _cause_of(case: Case) -> str | None:
    """The sub-cause to ask for: of launch on a GPU."""
    named = case.diagnosis.verdict.name == "launch" and case.diagnosis.sub_cause in CAUSES
    return case.diagnosis.sub_cause if named else None


def _right_at_once(case: Case, attempt: Attempt) -> bool:
    cause = _cause_of(case)
    return _is_right(case, attempt.classes[0]) and (cause is None or attempt.causes[:1] == [cause])


def _feedback_html(headline: str, right: bool, sentences: Sequence[str]) -> str:
    lines = "".join(f"<p>{text(sentence)}</p>" for sentence in sentences)
    return f'<div class="{"right" if right else "wrong"}" role="status"><p><b>{text(headline)}</b></p>{lines}</div>'


def _evidence_html(facts: Facts) -> str:
    """What was measured, before anything is concluded from it."""
    rows = [
        ("time of a call, T", format_ns(facts.latency_ns)),
        ("GPU utilisation (NVML)", None if facts.running is None else format_percent(facts.running)),
        ("memory utilisation (NVML)", None if facts.accessed is None else format_percent(facts.accessed)),
        ("multiprocessors active (counter)", None if facts.sm_active is None else format_percent(facts.sm_active)),
        ("tensor cores active (counter)", None if facts.tensor_active is None else format_percent(facts.tensor_active)),
        ("DRAM bandwidth in use (counter)", None if facts.dram_active is None else format_percent(facts.dram_active)),
        ("kernels in a call", None if facts.kernels is None else f"{facts.kernels:,.0f}"),
        ("median kernel", None if facts.kernel_ns is None else format_ns(facts.kernel_ns)),
        ("copied between host and device", None if facts.copied_bytes is None else format_bytes(facts.copied_bytes)),
        ("arithmetic in a call", None if facts.flops is None else format_bytes(facts.flops).replace("B", "FLOP")),
        ("bytes the nodes read and write", None if facts.moved_bytes is None else format_bytes(facts.moved_bytes)),
    ]
    known = [(name, value) for name, value in rows if value is not None]
    return table_html(("measured", ""), known, numbers=(1,))


def _answer_html(case: Case) -> str:
    """The verdict, and how its shares add up."""
    diagnosis, manifest = case.diagnosis, case.run.manifest
    kind = manifest.device.kind
    rows = "".join(
        f'<tr><td class="depth{line.depth}">{text(line.name)}</td><td class="n">{line.used}</td>'
        f'<td class="n">{line.percent}</td><td>{text(line.counts_as)}</td></tr>'
        for line in words.arithmetic(diagnosis, kind)
    )
    head = "<tr><th>of one call</th><th>ns</th><th>of T</th><th>counts as</th></tr>"
    table = f"<h4>The arithmetic</h4><table><thead>{head}</thead><tbody>{rows}</tbody></table>" if rows else ""
    total = ""
    if diagnosis.pieces is not None and kind == "cuda":
        total = f"<p>{text(words.launch_sum(diagnosis.pieces))}</p>"
    return f"{card_html(diagnosis, manifest)}{table}{total}<p class='quiet'>{text(words.interval(diagnosis))}</p>"
