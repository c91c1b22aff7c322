"""`workbench validate`: how often the verdict is right, recomputed from a labelled set or recorded first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.output import Json, kept, print_json, share_bar
from workbench.errors import ConfigError


def validate(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A labelled set; default: that of this checkout.")
    ] = None,
    live: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Record the set on the GPU at hand first, or go on with it.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds to record; default 3.")] = None,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Also write figures and scores here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say how often the verdict is right on labelled runs, and which cells it fails on."""
    from workbench.api import validating

    if folder is not None and live is not None:
        raise ConfigError("--live records into its own folder: give FOLDER or --live, not both.")
    if rounds is not None and live is None:
        raise ConfigError("--rounds says how much --live records: give it with --live FOLDER.")
    if live is not None:
        _record(live, validating.ROUNDS if rounds is None else rounds)
    with share_bar() as progress:
        found = validating.validate(live or folder, processes=validating.processors(), progress=progress)
    if figure is not None:
        found.report(figure)
    if as_json:
        print_json({"folder": str(found.folder), **found.to_dict()})
        return
    typer.echo(found.summary())
    if figure is not None:
        typer.echo(f"\nFigures: {figure}")


def _record(folder: Path, rounds: int) -> None:
    from workbench.api import validating

    validating.check_recordable(folder, rounds)
    typer.echo(validating.recording_takes(rounds), err=True)
    with kept(folder), share_bar() as progress:
        failures = validating.record_labelled(folder, rounds=rounds, progress=progress)
    for each in failures:
        typer.echo(each, err=True)
