"""What a lab has found so far: every experiment with before and after, and the best configuration of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.figures.experiments import before_after
from workbench.figures.metrics import format_change, format_interval, format_ratio, metric_name
from workbench.report.tuned_rows import LEVEL, Tried, round_notes, tried
from workbench.tuning.blocks import BASE
from workbench.tuning.comparison import Comparison
from workbench.tuning.objective import Objective
from workbench.tuning.record import TuningRecord
from workbench.widgets.base import text
from workbench.widgets.lab_bench import Measured

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_HEAD = ("#", "lever", "outcome", "ratio", f"{LEVEL} interval", "base → variant", "predicted", "outputs")


@dataclass(frozen=True)
class Best:
    """The best so far. number: of its experiment, from 1. comparison: against the base that was measured with it."""

    number: int
    record: TuningRecord
    comparison: Comparison

    @property
    def sentence(self) -> str:
        """What it is, and how sure that is."""
        found = self.comparison
        title = next(each.title for each in self.record.experiments if each.lever == self.record.best)
        limits = f" with {' and '.join(self.record.constraints)}" if self.record.constraints else ""
        interval = f", {LEVEL} interval {format_interval(found.low, found.high)}" if found.low is not None else ""
        return (
            f"{title} ({self.record.best}): {metric_name(found.metric)}{limits} "
            f"{format_change(found.base_value, found.variant_value, found.unit)}, {format_ratio(found.ratio)} the base"
            f"{interval}."
        )


def best_so_far(history: Sequence[Measured]) -> Best | None:
    """The largest improvement in the objective and under the limits of the last experiment; None where there is none.

    Each counts by its ratio to the base of its own rounds, because the machine may have changed between two of them.
    """
    found = []
    for number, measured in enumerate(history, start=1):
        record, last = measured.record, history[-1].record
        if record.best == BASE or (record.objective, record.constraints) != (last.objective, last.constraints):
            continue
        main = next(each.comparison for each in record.experiments if each.lever == record.best)
        if main is not None and main.ratio is not None and record.feasible:
            found.append(Best(number, record, main))
    if not found:
        return None
    smaller = Objective.parse(history[-1].record.objective).metric.smaller_is_better
    return (min if smaller else max)(found, key=lambda each: each.comparison.ratio or 0.0)


def history_figure(history: Sequence[Measured]) -> go.Figure:
    """Before and after of all experiments, one row each, over what was predicted."""
    import pandas as pd

    frames = []
    for number, measured in enumerate(history, start=1):
        frame: pd.DataFrame = measured.record.to_frame()
        if len(history) > 1:
            frame["name"] = f"#{number} " + frame["name"]
        frames.append(frame)
    return before_after(pd.concat(frames, ignore_index=True))


def history_html(history: Sequence[Measured]) -> str:
    """A table of all experiments, the last first; below a row its outputs, its read-back and other metrics."""
    numbered = [*enumerate(history, start=1)]
    rows = "".join(_rows(number, measured.record) for number, measured in reversed(numbered))
    head = "".join(f"<th>{text(name)}</th>" for name in _HEAD)
    notes = [
        f"<p class='quiet'>#{number}: {text(note)}</p>"
        for number, measured in reversed(numbered)
        for note in [*measured.record.notes, *round_notes(measured.record), *_cancelled(measured.record)]
    ]
    return (
        f'<div class="wide"><table class="history"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        + "".join(notes)
    )


def _rows(number: int, record: TuningRecord) -> str:
    return "".join(_row(number, each) for each in tried(record))


def _row(number: int, each: Tried) -> str:
    dot = f'<span class="swatch" style="--class: {each.colour}"></span>' if each.colour else ""
    cells = [f"<td>{number}</td>", f"<td>{text(each.name)}</td>", f"<td>{dot}{text(each.outcome)}</td>"]
    if each.main is not None:
        cells += [f'<td class="n">{text(value)}</td>' for value in (each.main.ratio, each.main.interval)]
        cells += [f'<td class="n">{text(each.main.change)}</td>']
    else:
        cells += ["<td></td>"] * 3
    cells += [f"<td>{text(each.predicted)}</td>", f"<td>{text(each.outputs)}</td>"]
    said = [each.why, *_labelled("Outputs", [each.outputs_why]), *_labelled("Read back", each.findings + each.readback)]
    said += [f"{one.metric}: {one.change} ({one.ratio}, {one.interval}): {one.outcome}" for one in each.others]
    lines = "".join(f"<p>{text(line)}</p>" for line in said if line)
    options = f"<pre>{text(each.changes)}</pre>" if each.changes else ""
    detail = f'<details><summary class="quiet">{text(each.title)}</summary>{lines}{options}</details>'
    return f'<tr class="result">{"".join(cells)}</tr><tr><td></td><td colspan="{len(_HEAD) - 1}">{detail}</td></tr>'


def _labelled(name: str, sentences: Sequence[str]) -> list[str]:
    return [f"{name}: {sentence}" for sentence in sentences if sentence]


def _cancelled(record: TuningRecord) -> list[str]:
    return ["It was cancelled: what is shown was measured until then."] if record.cancelled else []
