"""Damaged captures: each ends in a run that can be looked at, or in one clear sentence and nothing left behind.

In the folder `tests`, `WORKBENCH_FUZZ_COUNT=10000 python -m runs.test_import_fuzz` runs more cases than the test does,
and `python -m runs.test_import_fuzz 17 42` those two: a case is the same whenever its number is.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest
from runs.corpus import make_corpus
from runs.mutated_exports import MARK
from runs.mutations import make_case

from workbench.api import Run
from workbench.errors import WorkbenchError
from workbench.runs.imports import import_files

CAPTURES = Path(__file__).parents[1] / "data" / "captures"
SEED = 20261121
COUNT = int(os.environ.get("WORKBENCH_FUZZ_COUNT", "300"))
WORKERS = 2
LIMIT_S = 20.0  # a case takes a fifth of a second
LIMIT_BYTES = 1 << 30
TOO_LARGE = "took"
LONGEST_SENTENCE = 400
LOOKED_AT, REPORTED = 2, 8  # every which run; what is looked at costs more than the import


class BrokenPromiseError(Exception):
    """A result that is neither a run nor a clear sentence."""


def outcome_of(number: int, corpus: Path, folder: Path) -> str:
    """`run`, or the class of the error and its sentence; raises whatever else comes out."""
    given, made = folder / "given", folder / "made"
    given.mkdir(parents=True)
    made.mkdir()
    case = make_case(number, SEED, corpus, given)
    try:
        try:
            run = Run(import_files(case.files, made / "run", case.selection))
        except WorkbenchError:
            left = sorted(path.name for path in made.iterdir())
            if left:
                raise BrokenPromiseError(f"left behind: {left}") from None
            raise
        _look_at(run, number, folder)
    except WorkbenchError as error:
        _check_sentence(str(error))
        return f"{type(error).__name__}: {error}"
    if [path.name for path in made.iterdir()] != ["run"]:
        raise BrokenPromiseError("more than a run was made")
    return "run"


def _look_at(run: Run, number: int, folder: Path) -> None:
    if number % LOOKED_AT:
        return
    run.diagnosis.verdict  # noqa: B018  (worked out when it is asked for)
    run.summary()
    run.export("csv", folder / "csv")
    for sentence in (*run.manifest.notes, *(run.manifest.imported.skipped if run.manifest.imported else ())):
        if not sentence.isprintable():
            raise BrokenPromiseError(f"a note is no sentence: {sentence[:200]!r}")
    if number % REPORTED == 0 and MARK in run.report(folder / "report.html").read_text(encoding="utf-8"):
        raise BrokenPromiseError("a name became part of the page")


def _check_sentence(text: str) -> None:
    plain = len(text) < LONGEST_SENTENCE and text.isprintable() and text.endswith((".", "?"))
    if not plain or re.search(r"Traceback|<class|<\w+ object|Error\(", text):
        raise BrokenPromiseError(f"no clear sentence: {text[:600]!r}")


def _work(numbers: Connection, corpus: Path, folder: Path) -> None:
    """Answer each number with `(number, outcome, failure)`, until None comes."""
    while (number := numbers.recv()) is not None:
        outcome, failure = "", ""
        try:
            outcome = outcome_of(number, corpus, folder / str(number))
        except BaseException as error:  # Rust libraries raise their panics beside Exception
            ours = [f for f in traceback.extract_tb(error.__traceback__) if "workbench" in Path(f.filename).parts]
            at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "the test"
            failure = f"{type(error).__name__} at {at}: {str(error)[:300]}"
        shutil.rmtree(folder / str(number), ignore_errors=True)
        peak_bytes = _peak_bytes()
        if peak_bytes > LIMIT_BYTES:
            failure = failure or f"{TOO_LARGE} {peak_bytes >> 20} MB"
        numbers.send((number, outcome, failure))


def _peak_bytes() -> int:
    """The most memory that this process ever held; what Linux counts as `ru_maxrss` begins with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


class _Worker:
    """A process that may crash, hang or swell without taking the others with it."""

    def __init__(self, corpus: Path, folder: Path) -> None:
        context = get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_work, args=(other, corpus, folder), daemon=True)
        self.process.start()
        other.close()
        self.number: int | None = None
        self.until = 0.0
        self.lost = False

    def give(self, number: int) -> None:
        self.number, self.until = number, time.monotonic() + LIMIT_S
        self.pipe.send(number)

    def answer(self) -> tuple[int, str, str] | None:
        """What came of its case; None while there is nothing yet."""
        number = self.number
        assert number is not None
        try:
            if self.pipe.poll():
                found: tuple[int, str, str] = self.pipe.recv()
                return found
        except (EOFError, ConnectionResetError):
            self.process.join()
            self.lost = True
            return number, "", f"the process died ({self.process.exitcode})"
        self.lost = time.monotonic() > self.until
        return (number, "", f"no end after {LIMIT_S:.0f} s") if self.lost else None

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run_cases(numbers: list[int], corpus: Path, folder: Path) -> tuple[Counter[str], dict[int, str]]:
    """How often each outcome came, and the failures by their number."""
    outcomes: Counter[str] = Counter()
    failures: dict[int, str] = {}
    left = iter(numbers)
    workers = [_Worker(corpus, folder) for _ in range(min(WORKERS, len(numbers)))]
    for worker in workers:
        worker.give(next(left))
    busy = list(workers)
    while busy:
        wait([worker.pipe for worker in busy], timeout=1)
        for worker in list(busy):
            answer = worker.answer()
            if answer is None:
                continue
            number, outcome, failure = answer
            outcomes[outcome if not failure else "failure"] += 1
            busy.remove(worker)
            if failure:
                failures[number] = failure
            if worker.lost or failure.startswith(TOO_LARGE):
                worker.end()
                worker = _Worker(corpus, folder)  # noqa: PLW2901
            following = next(left, None)
            if following is None:
                worker.end()
            else:
                worker.give(following)
                busy.append(worker)
    return outcomes, failures


@pytest.mark.slow
def test_a_damaged_capture_is_a_run_or_one_sentence(tmp_path):
    make_corpus(CAPTURES, tmp_path / "corpus")
    outcomes, failures = run_cases(list(range(COUNT)), tmp_path / "corpus", tmp_path / "cases")
    assert not failures, failures
    # Most damage leaves something to read; and a corpus that nothing can be made of would test nothing.
    assert outcomes["run"] > COUNT / 4
    assert len(outcomes) > COUNT / 30


def main(numbers: list[int]) -> int:
    """Print every outcome, the most frequent first, and the failures with their numbers."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        make_corpus(CAPTURES, Path(folder) / "corpus")
        outcomes, failures = run_cases(numbers, Path(folder) / "corpus", Path(folder) / "cases")
    kinds: Counter[str] = Counter()
    for outcome, count in outcomes.items():
        kinds[re.sub(r"\S*(?:/|nsight_|profile_|kineto_|strange)[^\s:]*", "…", outcome)] += count
    for outcome, count in kinds.most_common():
        print(f"{count:6} {outcome}")
    for number, failure in sorted(failures.items()):
        print(f"case {number}: {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main([int(number) for number in sys.argv[1:]] or list(range(COUNT))))
