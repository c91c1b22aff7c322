"""How results show themselves as the last line of a cell: HTML in a notebook, plain text in a terminal.

Classes of `workbench.api` inherit `Displayed`; those of the layers below know no HTML, so IPython is told about them.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.api.run import Run
    from workbench.api.searching import Search
    from workbench.api.sweeping import Sweep
    from workbench.diagnosis.result import Diagnosis
    from workbench.diagnosis.verdict import Verdict
    from workbench.tuning.comparison import Comparison
    from workbench.tuning.experiment import Experiment
    from workbench.tuning.record import TuningRecord

Bundle = dict[str, str]
"""Texts by MIME type, as IPython takes them."""
_MOST_FINDINGS: Final = 3
_MOST_TRIALS: Final = 8


class Displayed(ABC):
    """Shows itself by `summary()` in a terminal and by `_html()` in a notebook; a damaged file is said, not raised."""

    @abstractmethod
    def summary(self) -> str:
        """For a terminal."""

    @abstractmethod
    def _html(self) -> str:
        """For a notebook, with a style of its own and every name escaped."""

    def __str__(self) -> str:
        return self.summary()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        try:
            return _bundle(self.summary(), self._html())
        except WorkbenchError as error:
            from workbench.widgets.base import missing_html

            return _bundle(str(error), missing_html(str(error)))


def register() -> None:
    """Tell IPython, where it runs, how to show what the layers below work out."""
    if "IPython" not in sys.modules:
        return
    from IPython import get_ipython  # type: ignore[attr-defined,unused-ignore]

    shell = get_ipython()
    if shell is None:
        return
    formatter = shell.display_formatter.mimebundle_formatter
    formatter.for_type_by_name("workbench.diagnosis.result", "Diagnosis", _diagnosis)
    formatter.for_type_by_name("workbench.diagnosis.verdict", "Verdict", _verdict)
    formatter.for_type_by_name("workbench.tuning.experiment", "Experiment", _experiment)
    formatter.for_type_by_name("workbench.tuning.comparison", "Comparison", _comparison)


def run_html(run: Run) -> str:
    """The verdict card, and below it the findings that would save most."""
    from workbench.report.findings import shown
    from workbench.widgets.base import block, card_html, table_html

    card = card_html(run.diagnosis, run.manifest)
    found = shown(run.findings, run.diagnosis.latency.median_ns)
    if not found:
        return card
    rows = [(each.saves, each.said, each.remedy) for each in found[:_MOST_FINDINGS]]
    title = f"Findings, the first {len(rows)} of {len(found)}" if len(found) > len(rows) else "Findings"
    table = table_html(("saves at most", "what is so", "what to do"), rows, numbers=(0,))
    return card + block(f"<h4>{title}</h4>{table}")


def tuning_html(record: TuningRecord) -> str:
    """The lever to take, and below it every lever that was tried."""
    from workbench.figures.metrics import metric_name
    from workbench.report import tuned_rows
    from workbench.widgets.base import block, table_html

    best = tuned_rows.headline(record)
    subject = f"{record.model} on {record.device.name} · {tuned_rows.subject(record)}"
    head = ("lever", "outcome", "ratio", f"{tuned_rows.LEVEL} interval", "base → variant", "predicted", "outputs")
    rows = [
        (each.name, each.outcome, each.main.ratio, each.main.interval, each.main.change, each.predicted, each.outputs)
        for each in tuned_rows.tried(record)
        if each.main is not None
    ]
    lost = [f"{each.name}: {each.outcome}. {each.why}" for each in tuned_rows.tried(record) if each.main is None]
    table = table_html(head, rows, numbers=(2, 3, 4, 5)) if rows else ""
    title = f"<h4>Measured against the base, {metric_name(record.objective)}</h4>" if rows else ""
    return _card(subject, best.name, best.colour, [best.gain, *best.sentences]) + block(title + table + _lines(lost))


def sweep_html(sweep: Sweep) -> str:
    """The best cell and the knee, and below them every cell."""
    from workbench.report import sweep_rows
    from workbench.widgets.base import block, table_html

    cells, best = sweep.cells, sweep.best()
    said = [sweep_rows.best_sentence(cells, best, ()), sweep_rows.knee_sentence(cells, sweep.knee())]
    name = "Nothing was measured" if best is None else sweep_rows.cell_words(best.cell)
    rows = [(*numbers, klass, why) for numbers, klass, why in sweep_rows.cell_rows(cells, sweep.device_kind)]
    head = (*sweep_rows.HEAD, "held back by", "")
    table = table_html(head, rows, numbers=range(len(sweep_rows.HEAD)))
    return _card(f"Best of {len(cells):,} cells, for throughput", name, _colour("better"), said) + block(table)


def search_html(search: Search) -> str:
    """The best trial, and below it the first trials in the order of their values."""
    from workbench.figures.metrics import metric_name
    from workbench.report import search_rows
    from workbench.widgets.base import block, table_html

    result = search.result
    anew = None if search.confirmation is None else search.confirmation.record
    name = "Nothing was measured" if result.best is None else search_rows.words_of(result.best, result)
    metrics = search_rows.metrics_of(result)
    trials = search_rows.trial_rows(result)
    rows = [(str(each.number), each.words, each.state, *each.values) for each in trials[:_MOST_TRIALS]]
    head = ("trial", "choices", "state", *map(metric_name, metrics))
    table = table_html(head, rows, numbers=range(3, len(head)))
    subject = f"Best of {len(trials):,} trials, for {metric_name(result.objective.metric.name)}"
    return _card(subject, name, _colour("better"), search_rows.best_sentences(result, anew)) + block(table)


def _diagnosis(diagnosis: Diagnosis) -> Bundle:
    from workbench.figures.units import format_ns
    from workbench.widgets.base import shares_html

    kind = "cpu" if diagnosis.not_applicable else "cuda"  # classes that need a GPU are left out on a CPU alone
    name, colour = _name_of(diagnosis.verdict, kind)
    subject = f"{format_ns(diagnosis.latency.median_ns)} a call"
    html = _card(subject, name, colour, [diagnosis.verdict.reason], shares_html(diagnosis.shares, kind))
    return _bundle(str(diagnosis), html)


def _verdict(verdict: Verdict) -> Bundle:
    name, colour = _name_of(verdict, "cuda")
    return _bundle(str(verdict), _card("verdict", name, colour, [verdict.reason]))


def _experiment(experiment: Experiment) -> Bundle:
    from workbench.figures.metrics import format_interval, format_ratio

    said = [experiment.why]
    predicted = experiment.prediction
    if predicted is not None and predicted.ratio is not None:
        bounds = format_interval(predicted.low, predicted.high)
        said.append(f"Predicted {format_ratio(predicted.ratio)}, {bounds}: {predicted.why}")
    elif predicted is not None and predicted.cannot_say is not None:
        said.append(f"Predicted: cannot say. {predicted.cannot_say}")
    if experiment.parity is not None and experiment.parity.why not in experiment.why:
        said.append(experiment.parity.why)
    if experiment.readback is not None:
        said += experiment.readback.findings
    name = f"{experiment.title}: {experiment.outcome}"
    return _bundle("\n  ".join([name, *said]), _card(experiment.lever, name, _colour(experiment.outcome), said))


def _comparison(comparison: Comparison) -> Bundle:
    from workbench.figures.metrics import format_change, format_interval, format_ratio, metric_name

    subject = f"{comparison.variant} against {comparison.base} · {metric_name(comparison.metric)}"
    ratio = comparison.ratio if comparison.ratio is not None else math.nan
    name = f"{format_ratio(ratio)} ({format_interval(comparison.low, comparison.high)}): {comparison.outcome}"
    change = format_change(comparison.base_value, comparison.variant_value, comparison.unit)
    html = _card(subject, name, _colour(comparison.outcome), [change, comparison.why, *comparison.notes])
    return _bundle("\n  ".join([f"{subject}: {name}", change, comparison.why, *comparison.notes]), html)


def _name_of(verdict: Verdict, device_kind: str) -> tuple[str, str]:
    """A verdict's name for people, and its colour."""
    from workbench.figures.classes import COLOURS, label_of_verdict

    first = verdict.pair[0] if verdict.pair is not None else verdict.name
    return label_of_verdict(verdict.label, device_kind), COLOURS.get(first, COLOURS["other"])


def _colour(outcome: str) -> str:
    """Of what an outcome means, as in the figure of experiments."""
    from workbench.figures.experiments import OUTCOMES

    known = (look.colour for name, look in OUTCOMES.items() if outcome == name or outcome.startswith(look.words))
    return next(known, OUTCOMES["no verdict"].colour)


def _card(subject: str, name: str, colour: str, sentences: Sequence[str], more: str = "") -> str:
    from workbench.widgets.base import block, text

    lines = "".join(f"<p>{text(sentence)}</p>" for sentence in sentences if sentence)
    head = f'<div class="quiet">{text(subject)}</div><div class="name">{text(name)}</div>'
    return block(f'<div class="card" style="--class: {colour}">{head}{lines}{more}</div>')


def _lines(sentences: Sequence[str]) -> str:
    from workbench.widgets.base import text

    return "".join(f'<p class="quiet">{text(sentence)}</p>' for sentence in sentences)


def _bundle(plain: str, html: str) -> Bundle:
    return {"text/plain": plain, "text/html": html}
