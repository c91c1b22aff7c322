"""What commands print: one JSON object on standard output with `--json`, and a progress bar on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM, with notes of what is kept; typer would answer a `KeyboardInterrupt` without a word."""


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]


def print_json(value: dict[str, Any]) -> None:
    """One line of JSON; NaN and infinity, which JSON lacks, raise `ValueError`."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


@contextmanager
def kept(folder: Path) -> Iterator[None]:
    """What lies in the folder is whole, whenever the block is interrupted."""
    try:
        yield
    except Interrupted as stop:
        stop.add_note(f"What was measured is kept in {folder}.")
        raise


@contextmanager
def progress_bar(steps: int) -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error, one unit for each of so many steps."""
    from tqdm import tqdm

    done: dict[str, float] = {}
    with tqdm(total=1.0, bar_format="{desc:<12}{percentage:3.0f} % |{bar}| {elapsed}", leave=False) as bar:

        def progress(name: str, share: float) -> None:
            done[name] = share
            bar.set_description_str(name, refresh=False)
            bar.n = min(1.0, sum(done.values()) / steps)
            bar.refresh()

        yield progress


@contextmanager
def share_bar() -> Iterator[Callable[[str, float | None], None]]:
    """A bar on standard error that shows the share it is told, and a count where there is none."""
    from tqdm import tqdm

    with tqdm(total=1.0, bar_format="{percentage:3.0f} % |{bar:20}| {elapsed} {desc}", leave=False) as bar:

        def progress(text: str, share: float | None) -> None:
            bar.set_description_str(text, refresh=False)
            bar.n = bar.n if share is None else min(1.0, share)
            bar.refresh()

        yield progress
