"""`workbench.lab`: levers on a model, what each should give, what it gave, and the best of them as a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any, Final, TypeVar

import ipywidgets as widgets
import plotly.graph_objects as go

from workbench.diagnosis.levers import Situation, situation_of
from workbench.errors import WorkbenchError
from workbench.report.redact import without_folders
from workbench.runs.reader import RunFolder
from workbench.runs.writer import full_disk_is_said
from workbench.widgets.base import CSS_CLASS, block, card_html, missing_html, text
from workbench.widgets.lab_bench import Bench, Choice, Measured
from workbench.widgets.lab_choice import Judging, LeverList
from workbench.widgets.lab_history import best_so_far, history_figure, history_html
from workbench.widgets.lab_job import Job, Progress
from workbench.widgets.lab_levers import offers

Result = TypeVar("Result")

_LOG_LINES: Final = 200
_LEAST_STEP: Final = 0.01  # of the progress that is worth a message to the browser
_STYLE: Final = """<style>
.wb .widget-html-content { line-height: 1.45; }
.wb .lever summary, .wb .refused summary, .wb .history summary { cursor: pointer; }
.wb .lever { padding: 3px 0; } .wb .lever p, .wb .refused p { margin-left: 14px; }
.wb .gain { border: 1px solid var(--wb-line); border-radius: 9px; padding: 0 8px; margin: 0 6px; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.wb .gain.less { border-color: #009988; } .wb .gain.more { border-color: #CC3311; }
.wb .cost { font-size: 12px; white-space: nowrap; } .wb .when { font-size: 12px; padding-left: 14px; }
.wb h4.group::first-letter { text-transform: uppercase; }
.wb .recorded { border-left: 4px solid #E69F00; padding: 4px 10px; background: var(--wb-panel); }
.wb .failed { border-left: 4px solid #CC3311; padding: 4px 10px; background: var(--wb-panel); }
.wb .best { border-left: 4px solid #009988; padding: 4px 10px; background: var(--wb-panel); }
.wb .wide { overflow-x: auto; } .wb pre { white-space: pre-wrap; font-size: 12px; max-height: 14em; overflow: auto; }
.wb .history tr.result td { border-bottom: none; white-space: nowrap; }
.wb-levers input:focus-visible, .wb summary:focus-visible { outline: 2px solid var(--wb-accent); outline-offset: 1px; }
</style>"""


class Lab(widgets.VBox):
    """A bench with its levers, one experiment at a time, and all that was found so far.

    history: what was measured. levers, judging: the choice, None until the base is recorded. best: the largest
    improvement so far.
    """

    _job: Job[Any] | None = None

    def __init__(self, bench: Bench, *, subject: str, recorded: str | None = None) -> None:
        self._bench, self._recorded = bench, recorded
        self.history: list[Measured] = []
        self.levers: LeverList | None = None
        self.judging: Judging | None = None
        self._stepped: tuple[Choice, int] | None = None
        self._lines: list[str] = []
        self._shown, self._begun_s = ("", 0.0), 0.0
        self.card, self.status, self.log_html = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.measure = widgets.Button(description="Show all" if recorded else "Measure", button_style="primary")
        self.step = widgets.Button(description="Round by round")
        self.cancel = widgets.Button(description="Cancel", disabled=True)
        self.again = widgets.Button(description="Record the base again", layout={"width": "auto", "display": "none"})
        self.bar = widgets.FloatProgress(min=0.0, max=1.0, layout={"width": "320px"})
        self.bar.layout.display = "none" if recorded else ""
        self._choosing, self._found = widgets.VBox(), widgets.VBox()
        self.table, self.best_html, self.written = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.path = widgets.Text(value="best.yaml", description="file", layout={"width": "320px"})
        self.write = widgets.Button(description="Write the configuration", layout={"width": "auto"})
        self.measure.on_click(lambda _: self._measure(None))
        self.step.on_click(lambda _: self._step())
        self.cancel.on_click(lambda _: self._cancel())
        self.again.on_click(lambda _: self._record_base())
        self.write.on_click(lambda _: self._write())
        note = f"<p class='recorded'><b>Recorded on {text(recorded)}.</b> Nothing is measured here: results come from "
        note += "the record, in the order in which they were measured.</p>"
        head = f"{_STYLE}<h4>Lab: {text(subject)}</h4>{note if recorded else ''}"
        super().__init__([
            widgets.HTML(block(head)), self.card, self._choosing,
            widgets.HBox([self.bar, self.cancel, self.again], layout={"display": "none" if recorded else "flex"}),
            self.status, self._found, self.log_html,
        ])  # fmt: skip
        self.add_class(CSS_CLASS)
        self._record_base()

    @property
    def running(self) -> bool:
        """Whether something is going on beside the notebook."""
        return self._job is not None and not self._job.wait(0)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for what is going on, such as in a script; False when the time ran out first."""
        return self._job is None or self._job.wait(timeout_s)

    def close(self) -> None:
        """End what is going on at once, and take the widget away."""
        if self._job is not None:
            self._job.stop()
        super().close()

    def _record_base(self) -> None:
        self.again.layout.display = "none"

        def work(progress: Progress, cancelled: Event) -> tuple[RunFolder, Situation]:
            run = self._bench.base(progress, cancelled)
            return run, situation_of(run)

        self._begin("Recording the base", work, self._base_recorded)

    def _base_recorded(self, found: tuple[RunFolder, Situation] | None, problem: str) -> None:
        if found is None:
            self.card.value = missing_html("Without a recorded base there is nothing to compare levers with.")
            self.again.layout.display = ""
            return
        run, situation = found
        if situation.diagnosis is not None:
            self.card.value = card_html(situation.diagnosis, run.manifest)
        tried = self._bench.tried
        objective = "latency" if tried is None else self._objective_of_record()
        self.levers = LeverList(offers(situation, tried), chosen=tried is not None)
        self.judging = Judging(
            objective, self._bench.rounds, on_gpu=situation.on_gpu,
            **({} if tried is None else {"most_rounds": self._bench.rounds}),
        )  # fmt: skip
        buttons = [self.measure, *([self.step] if tried is not None else [])]
        self._choosing.children = [self.levers, self.judging, widgets.HBox(buttons)]

    def _objective_of_record(self) -> str:
        first = next((each.comparison for each in self._bench.tried or [] if each.comparison is not None), None)
        return "latency" if first is None else first.metric

    def _measure(self, rounds: int | None) -> None:
        """Try what is ticked. rounds: of a record, in the place of those that are set."""
        if self.running or self.levers is None or self.judging is None:
            return
        try:
            choice = self.judging.choice(self.levers.chosen)
        except WorkbenchError as error:
            self._say(str(error), failed=True)
            return
        asked = choice if rounds is None else Choice(choice.levers, choice.objective, choice.constraints, rounds)
        replaced = self._stepped is not None and self._stepped[0] == choice
        self._stepped = None if rounds is None else (choice, rounds)

        def ended(found: Measured | None, problem: str) -> None:
            if found is None:
                return
            if replaced:
                self.history[-1] = found
            else:
                self.history.append(found)
            self._show_history()
            self._say(self._outcome(found, asked))

        self._begin("Measuring", lambda *given: self._bench.measure(asked, *given), ended)

    def _step(self) -> None:
        """Show one more round of a record."""
        if self.levers is None or self.judging is None:
            return
        try:
            choice = self.judging.choice(self.levers.chosen)
        except WorkbenchError as error:
            self._say(str(error), failed=True)
            return
        before = self._stepped[1] if self._stepped is not None and self._stepped[0] == choice else 0
        self._measure(1 if before >= self._bench.rounds else before + 1)

    def _outcome(self, found: Measured, asked: Choice) -> str:
        if self._recorded:
            return f"{asked.rounds} of {self._bench.rounds} rounds, as recorded. {found.record.best_because}"
        kept = f" Kept in {found.folder}." if found.folder is not None else ""
        return f"{'Cancelled. ' if found.record.cancelled else ''}{found.record.best_because}{kept}"

    def _begin(
        self,
        name: str,
        work: Callable[[Progress, Event], Result],
        ended: Callable[[Result | None, str], None],
    ) -> None:
        """Do something beside the notebook; what comes from a record is there at once."""

        def end(result: Result | None, problem: str) -> None:
            self._say(problem or f"{name}: done.", failed=result is None)
            try:
                ended(result, problem)
            except Exception as error:  # in a thread nobody would see it
                self._say(f"What was measured cannot be shown: {type(error).__name__}: {error}", failed=True)
            self.bar.value, self.bar.bar_style = (1.0, "success") if result is not None else (0.0, "danger")
            self.cancel.disabled, self.cancel.description = True, "Cancel"
            self.measure.disabled = False

        if self._recorded:
            try:
                found = work(lambda name, share: None, Event())
            except WorkbenchError as error:
                end(None, str(error))
            else:
                end(found, "")
            return
        self._begun_s, self._shown = time.monotonic(), ("", 0.0)
        self.measure.disabled, self.cancel.disabled = True, False
        self.bar.value, self.bar.bar_style = 0.0, ""
        self._say(f"{name} …")
        self._job = Job(work, on_progress=self._progress, on_end=end)
        self._job.start()

    def _progress(self, name: str, share: float) -> None:
        last, at = self._shown
        if name == last and abs(share - at) < _LEAST_STEP:
            return
        self._shown = name, share
        self.bar.value = share
        elapsed = time.monotonic() - self._begun_s
        cancelling = self._job is not None and self._job.cancelling
        ending = "Cancelling after this step (Stop now ends it at once): " if cancelling else ""
        self.status.value = f'<p role="status">{ending}{text(name)}, {share:.0%}, {elapsed:.0f} s</p>'
        if name != last:
            self._note(name)

    def _cancel(self) -> None:
        if self._job is None or not self.running:
            return
        if self.levers is None or self._job.cancelling:  # a base that is not whole is worth nothing
            self._job.stop()
            return
        self._job.cancel()
        self.cancel.description = "Stop now"
        self._say("Cancelling: the running step ends, and what was measured is kept. Stop now ends it at once.")

    def _say(self, sentence: str, *, failed: bool = False) -> None:
        plain = without_folders(sentence) if failed else sentence
        mark = ' class="failed" role="alert"' if failed else ' role="status"'
        self.status.value = f"<p{mark}>{text(plain)}</p>"
        self._note(plain)

    def _note(self, line: str) -> None:
        self._lines = [f"{time.strftime('%H:%M:%S')}  {line}", *self._lines][:_LOG_LINES]
        shown = text("\n".join(self._lines))
        summary = '<summary class="quiet">Log, the last first</summary>'
        self.log_html.value = f"<details>{summary}<pre>{shown}</pre></details>"

    def _show_history(self) -> None:
        found = best_so_far(self.history)
        words = "No lever improves on the base beyond doubt so far." if found is None else found.sentence
        number = f" (experiment {found.number} of {len(self.history)})" if found is not None else ""
        self.best_html.value = f"<p class='best'><b>Best so far{number}:</b> {text(words)}</p>"
        self.table.value = history_html(self.history)
        figure = go.FigureWidget(history_figure(self.history), layout_autosize=True)
        figure._config = {**(figure._config or {}), "responsive": True, "displaylogo": False}  # as wide as the output
        self._found.children = [
            self.best_html, widgets.HBox([self.path, self.write, self.written], layout={"flex_flow": "row wrap"}),
            figure, self.table,
        ]  # fmt: skip

    def _write(self) -> None:
        """Write the best configuration, or the base where nothing improves it, to a file that is not there yet."""
        if not self.history:
            return
        found = best_so_far(self.history)
        config = found.record.config_of(found.record.best) if found else self.history[-1].record.config_of("base")
        file = Path(self.path.value.strip() or "best.yaml")
        try:
            if file.exists():
                raise FileExistsError(f"{file} exists already")
            with full_disk_is_said(file):
                config.save(file)
        except (OSError, WorkbenchError) as error:
            said = f"Not written: {error}. Choose another name.".replace("..", ".")
            self.written.value = f'<p class="failed" role="alert">{text(said)}</p>'
            return
        which = "the best" if found else "the base, which nothing improves"
        command = f"<code>workbench profile --config {text(file)}</code>"
        self.written.value = f'<p role="status">Written: {which}. Run it with {command}</p>'
