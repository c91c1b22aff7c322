"""`workbench confirm`: does the verdict of a run hold when what it blames is changed?

The exit status tells the outcomes apart: 0 when the verdict is confirmed, 3 when it is refuted, 4 when the rounds could
not decide or the verdict cannot be put to the test. 1 and 2 stay what they are everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from workbench.cli.options import check_timeout
from workbench.cli.output import Json, kept, print_json, share_bar

_REFUTED_STATUS: Final = 3
_UNDECIDED_STATUS: Final = 4


def confirm(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run of a GPU.")],
    rounds: Annotated[int, typer.Option(help="Processes of each configuration; 3 at least.")] = 6,
    activity: Annotated[str, typer.Option(help="Source of device work: auto, cupti or nsys.")] = "auto",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Time limit of each process.")] = 600.0,
    order_seed: Annotated[int, typer.Option(help="Seed of the order in which configurations are measured.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder to make; default runs/<model>-confirmation-<time>.")] = None,
    as_json: Json = False,
) -> None:
    """Put the verdict of a run to the test: what it blames is taken away, and T must follow."""
    from workbench import api
    from workbench.capture.resolve import check_activity
    from workbench.tuning.confirm import CONFIRMED, REFUTED

    source = check_activity(activity)
    check_timeout(timeout)
    with share_bar() as progress:
        found = api.confirm(
            run, out=out, rounds=rounds, seed=order_seed, activity=source, timeout_s=timeout, progress=progress
        )
    with kept(found.folder):
        if as_json:
            print_json({"folder": str(found.folder), **found.to_dict()})
        else:
            typer.echo(found.summary())
            typer.echo(f"\nFolder: {found.folder}")
    if found.outcome != CONFIRMED:
        raise typer.Exit(_REFUTED_STATUS if found.outcome == REFUTED else _UNDECIDED_STATUS)
