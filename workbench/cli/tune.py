"""`workbench tune` and `workbench levers`: what helps a model, tried for real.

A limit that nothing keeps is a result: the closest is given and said to be so, in JSON by `feasible`, and the exit
status is 0. It is 1 where nothing could be measured.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workbench.cli.options import check_timeout, with_run_options
from workbench.cli.output import Json, kept, print_json, share_bar
from workbench.errors import ConfigError

if TYPE_CHECKING:
    from workbench.api import Search, Sweep, Tuning
    from workbench.diagnosis.levers import Lever
    from workbench.tuning.experiment import OutputCheck

_MODES: Final = {
    **dict.fromkeys(("search", "trials", "seconds"), ("--search",)),
    **dict.fromkeys(("batches", "callers"), ("--sweep",)),
    **dict.fromkeys(("lever", "set_", "objective", "rounds", "tolerance", "order_seed"), ("--search", "")),
    "most": ("",),
}
"""The ways of tuning that each option is for; the one without a flag is the experiments."""


@with_run_options
def tune(
    given: dict[str, Any],
    context: typer.Context,
    lever: Annotated[
        list[str] | None, typer.Option(help="Lever to try (`workbench levers`); default: those for the verdict.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A change of your own, as cuda.use_tf32=0.")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="latency, latency:p99, throughput, memory, host-memory or cold-start.")
    ] = "latency",
    constraint: Annotated[
        list[str] | None, typer.Option(metavar="'p99<10ms'", help="Limit that the best has to keep; repeatable.")
    ] = None,
    most: Annotated[int, typer.Option(help="Levers to try when none is named.")] = 8,
    rounds: Annotated[int | None, typer.Option(help="Processes of each configuration; 6, or 3 in a search.")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Largest error of an output over its scale; default by precision.")
    ] = None,
    search: Annotated[bool, typer.Option("--search", help="Search the combinations of the levers.")] = False,
    trials: Annotated[int | None, typer.Option(help="Most trials of a search.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Most seconds of a search.")] = None,
    sweep: Annotated[bool, typer.Option("--sweep", help="Measure every batch with every number of callers.")] = False,
    batches: Annotated[str, typer.Option(help="Batches of a sweep.")] = "1,2,4,8,16,32",
    callers: Annotated[str, typer.Option(help="Numbers of callers of a sweep.")] = "1,2,4",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Time limit of each process.")] = 600.0,
    order_seed: Annotated[int, typer.Option(help="Seed of the order in which configurations are measured.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make, or of a search to go on with; default runs/<model>-….")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the result to this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Try what may help a model, and say what each change gave, with intervals."""
    from workbench import api

    _check_mode(context, "--sweep" if sweep else "--search" if search else "")
    check_timeout(timeout)
    check = None if tolerance is None else _output_check(tolerance)
    limits, changes = constraint or [], _changes(set_ or [])
    chosen: list[str | Lever | Mapping[str, Any]] = [*(lever or []), *([changes] if changes else [])]
    with share_bar() as progress:
        if sweep:
            found: Any = api.sweep(
                given, _numbers(batches), _numbers(callers), constraints=limits, out=out, timeout_s=timeout,
                progress=progress,
            )  # fmt: skip
        elif search:
            found = api.search(
                given, objective=objective, constraints=limits, levers=chosen or None, max_trials=trials,
                budget_s=seconds, rounds=3 if rounds is None else rounds, seed=order_seed, check=check, out=out,
                timeout_s=timeout, progress=progress,
            )  # fmt: skip
        else:
            found = api.tune(
                given, levers=chosen or None, objective=objective, constraints=limits, most=most,
                rounds=6 if rounds is None else rounds, seed=order_seed, check=check, out=out, timeout_s=timeout,
                progress=progress,
            )  # fmt: skip
    with kept(found.folder):
        if not as_json:
            typer.echo(found.summary(*limits) if sweep else found.summary())
            typer.echo(f"\nFolder: {found.folder}")
            if (best := found.folder / api.BEST_FILE).is_file():
                typer.echo(f"To run the best: {shlex.join(['workbench', 'profile', '--config', str(best)])}")
        if report is not None:
            found.report(report, *(limits if sweep else ()))
            if not as_json:
                typer.echo(f"Report: {report}")
    shown = _of_sweep(found, limits) if sweep else _of_search(found) if search else _of_tuning(found)
    if as_json:
        print_json({"folder": str(found.folder), **shown})
    if shown["feasible"] is None:
        typer.echo(f"Nothing was measured: {found.folder} says why.", err=True)
        raise typer.Exit(1)


def levers(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Run or sample that they are to help.")] = None,
    as_json: Json = False,
) -> None:
    """List the levers; with a run, those that apply to it and what each should give."""
    from workbench.api import load
    from workbench.diagnosis.levers import levers as every
    from workbench.diagnosis.levers import ranked, situation_of
    from workbench.report.levers import lever_lines

    if run is None:
        rows: list[dict[str, Any]] = [
            {"name": each.name, "title": each.title, "treats": list(each.treats), "condition": each.condition}
            for each in every()
        ]
        lines = [f"{each.name:<24} {each.title} ({', '.join(each.treats)})" for each in every()]
    else:
        opened = load(run)
        found = ranked(situation_of(opened, opened.diagnosis))
        rows = [
            {
                "name": each.lever.name,
                "title": each.lever.title,
                "treats_verdict": each.treats_verdict,
                "ratio": each.prediction.ratio,
                "interval": None if each.prediction.ratio is None else [each.prediction.low, each.prediction.high],
                "why": each.prediction.why or each.prediction.cannot_say,
            }
            for each in found
        ]
        lines = lever_lines(found)
    if as_json:
        print_json({"levers": rows})
    else:
        typer.echo("\n".join(lines))


def _check_mode(context: typer.Context, mode: str) -> None:
    """Raise `ConfigError` for an option that was given and that this way of tuning would ignore."""
    for name, modes in _MODES.items():
        source = context.get_parameter_source(name)
        if mode not in modes and source is not None and source.name == "COMMANDLINE":
            option = f"--{name.strip('_').replace('_', '-')}"
            other = f"does not go with {mode}: drop one" if mode else f"goes with {modes[0]} alone: add that or drop it"
            raise ConfigError(f"Option {option} {other}.")


def _output_check(tolerance: float) -> OutputCheck:
    from workbench.tuning.experiment import OutputCheck
    from workbench.tuning.tolerance import Tolerance

    if not 0 <= tolerance < math.inf:
        raise ConfigError(f"Option 'tolerance' cannot be {tolerance:g}: give a share of the scale, such as 0.01.")
    return OutputCheck(Tolerance(tolerance, "the tolerance that was asked for"))


def _changes(texts: list[str]) -> dict[str, Any]:
    """`cuda.use_tf32=0` and the like as a mapping of options; what follows a known group is one key, dots and all."""
    from workbench.config import flags

    found: dict[str, Any] = {}
    for path, value in flags.pairs(texts).items():
        group, dot, key = path.partition(".")
        if not dot:
            found[path] = value
        elif group in ("session", "run"):
            flags.merge(found, group, flags.with_entries({key: value}))
        else:
            flags.merge(found, group, {key: value})
    return found


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ConfigError(f"{text!r} is no list of numbers: write it as 1,2,4.") from None


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _of_tuning(found: Tuning) -> dict[str, Any]:
    rows = [{str(name): _plain(value) for name, value in row.items()} for row in found.to_frame().to_dict("records")]
    record = found.record
    return {
        "best": record.best,
        "best_because": record.best_because,
        "feasible": record.feasible,
        "values": record.values,
        "experiments": rows,
    }


def _of_search(found: Search) -> dict[str, Any]:
    best = found.best
    return {
        "best": None if best is None else {"trial": best.number, "choices": best.assignment, "values": best.metrics},
        "best_because": found.result.sentence,
        "feasible": None if best is None else best.feasible,
        "confirmed": None if found.confirmation is None else _of_tuning(found.confirmation),
        "trials": [
            {"number": each.number, "state": each.state, "choices": each.assignment, "values": each.metrics,
             "error": None if each.error is None else each.error[1]}
            for each in found.result.trials
        ],
    }  # fmt: skip


def _of_sweep(found: Sweep, limits: list[str]) -> dict[str, Any]:
    import json

    best, knee = found.best(*limits), found.knee()
    return {
        "best": None if best is None else best.cell._asdict(),
        "best_because": None if best is None else best.sentence,
        "feasible": None if best is None else best.feasible,
        "knee": None if knee is None else knee._asdict(),
        "cells": json.loads(found.cells.to_json(orient="records")),
    }
