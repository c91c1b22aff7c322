"""The command line: `workbench profile | tune | levers | confirm | import | export | diagnose | report | doctor | …`.

With `--json` a command prints one JSON object on standard output and nothing else there; progress and messages go to
standard error. Exit status: 0 on success, 1 on a failed run, 2 on wrong usage, 130 when interrupted; `confirm` adds 3
and 4.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, cast

import typer

from workbench.cli.confirm import confirm
from workbench.cli.options import check_timeout, with_run_options
from workbench.cli.output import Interrupted, Json, kept, print_json, progress_bar
from workbench.cli.tune import levers, tune
from workbench.cli.validate import validate
from workbench.errors import ConfigError, WorkbenchError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find out why ONNX Runtime inference is slow, with evidence.",
)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or the name of a sample.")]
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
PASSES: Final = 5  # latency, counters, activity, nodes, ceilings
# typer may carry a copy of click, whose base of every usage error has no public name there
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__base__)


@app.command()
@with_run_options
def profile(
    given: dict[str, Any],
    activity: Annotated[str, typer.Option(help="Source of device work: auto, cupti, nsys or none.")] = "auto",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Time limit of each pass.")] = 600.0,
    out: Annotated[Path | None, typer.Option(help="Folder to make; default runs/<model>-<time>.")] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the report to this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Profile a model: what does a call wait for?"""
    from workbench.api import profile as make_run
    from workbench.capture.resolve import check_activity

    source = check_activity(activity)
    check_timeout(timeout)
    with progress_bar(PASSES) as progress:
        run = make_run(config=given, out=out, activity=source, timeout_s=timeout, progress=progress)
    if report is not None:
        with kept(run.folder):
            run.report(report)
    if as_json:
        print_json({"run": str(run.folder), "complete": run.manifest.complete, **run.to_dict()})
    else:
        typer.echo(run.summary())
        typer.echo(f"\nRun folder: {run.folder}" + (f"\nReport: {report}" if report else ""))
    if not run.manifest.complete:
        failed = next(info for info in run.manifest.passes.values() if info.state == "failed")
        typer.echo(f"The run is incomplete: {failed.reason}", err=True)
        raise typer.Exit(1)


app.command()(tune)
app.command()(levers)
app.command()(validate)
app.command()(confirm)


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(help="Nsight Systems report or export, ONNX Runtime profiles, a PyTorch trace or CUPTI rows."),
    ],
    range_: Annotated[str | None, typer.Option("--range", metavar="NAME", help="NVTX range to import.")] = None,
    calls: Annotated[str | None, typer.Option(metavar="20..30", help="Calls to import, counted from 0.")] = None,
    call: Annotated[str | None, typer.Option(metavar="NAME", help="NVTX range that marks one call.")] = None,
    process: Annotated[int | None, typer.Option(metavar="PID", help="Process to import.")] = None,
    device: Annotated[int | None, typer.Option(metavar="N", help="CUDA device to import.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make; default runs/<file>-<time>.")] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the report to this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Make a run of a capture that another tool made, and print its verdict."""
    from workbench.api import import_run

    with progress_bar(1) as progress:
        run = import_run(
            files, out=out, range=range_, calls=calls, call=call, process=process, device=device, progress=progress
        )
    if report is not None:
        run.report(report)
    if as_json:
        print_json({"run": str(run.folder), **run.to_dict()})
    else:
        typer.echo(run.summary())
        typer.echo(f"\nRun folder: {run.folder}" + (f"\nReport: {report}" if report else ""))


@app.command()
def export(
    run: RunArgument,
    format_: Annotated[str, typer.Option("--format", help="perfetto (ui.perfetto.dev), csv or parquet.")] = "perfetto",
    out: Annotated[Path | None, typer.Option(help="File or folder to make; default beside the run.")] = None,
    as_json: Json = False,
) -> None:
    """Write the tables of a run for other tools."""
    from workbench.api import load

    written = load(run).export(cast(Any, format_), out)
    if as_json:
        print_json({"files": [str(path) for path in written]})
    else:
        for path in written:
            typer.echo(path)


@app.command()
def diagnose(run: RunArgument, as_json: Json = False) -> None:
    """Print the verdict of a run."""
    from workbench.api import load

    opened = load(run)
    if as_json:
        print_json(opened.to_dict())
    else:
        typer.echo(opened.summary())


@app.command()
def report(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    as_json: Json = False,
) -> None:
    """Write the report of a run: one HTML file that opens offline."""
    from workbench.api import load

    path = load(run).report(out)
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        typer.echo(f"Report: {path}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can provide, and how to get the rest."""
    from workbench.capture.doctor import examine, to_rows

    checks = examine()
    if as_json:
        print_json({"checks": to_rows(checks)})
        return
    width = max(len(check.name) for check in checks)
    state_width = max(len(check.state) for check in checks)
    for check in checks:
        typer.echo(f"{check.name:<{width}}  {check.state:<{state_width}}  {check.detail}")
        if check.remedy:
            typer.echo(f"{'':<{width}}  {'':<{state_width}}  → {check.remedy}")


@app.command()
def zoo(
    name: Annotated[str | None, typer.Argument(help="Model to write; without it, all are listed.")] = None,
    parameter: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Size parameter.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default <name>.onnx.")] = None,
    as_json: Json = False,
) -> None:
    """List the models made by construction, or write one."""
    from workbench import zoo as models
    from workbench.config import flags

    if name is not None:
        given = {key: int(text) if text.isdecimal() else text for key, text in flags.pairs(parameter).items()}
        path = models.write(name, out or Path(f"{name}.onnx"), **given)
        if as_json:
            print_json({"model": str(path), "bytes": path.stat().st_size})
        else:
            typer.echo(f"Model: {path} ({path.stat().st_size / 1e6:.1f} MB)")
        return
    entries = models.models()
    if as_json:
        print_json({"models": [{k: v for k, v in vars(entry).items() if k[0] != "_"} for entry in entries]})
        return
    for entry in entries:
        sizes = " ".join(f"{key}={value}" for key, value in entry.parameters.items())
        typer.echo(f"{entry.name:<8}  shows {entry.shows} with binding {entry.binding}: {entry.summary}")
        typer.echo(f"{'':<8}  {sizes}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run and the reports.")] = Path(),
    as_json: Json = False,
) -> None:
    """Profile ResNet-50 on the best device here, then show the same model as recorded on an H200."""
    from workbench.api import RESNET50, load
    from workbench.api import profile as make_run

    with progress_bar(PASSES) as progress:
        here = make_run(RESNET50, progress=progress)
    recorded = load(RESNET50)
    written = {}
    for run, file, title in (
        (here, "report.html", "ResNet-50 on this machine"),
        (recorded, "report-h200.html", "ResNet-50 recorded on an H200"),
    ):
        path = run.report(out / file)
        written[str(path)] = {"run": str(run.folder), **run.to_dict()}
        if not as_json:
            typer.echo(f"\n{title}\n{'=' * len(title)}\n{run.summary()}\n\nReport: {path}")
    if as_json:
        print_json({"reports": written})


def _interrupt(number: int, frame: object) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # a second one would end the tidying-up half-way
    raise Interrupted


def main() -> None:
    """Run the command line; a user's mistake is one sentence on standard error, without a traceback."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        sys.exit(app(standalone_mode=False))
    except WorkbenchError as error:
        message = " ".join([str(error), *_notes(error)])
        _fail(type(error).__name__, message, 2 if isinstance(error, ConfigError) else 1)
    except _UsageError as error:
        _fail("UsageError", error.format_message(), 2)
    except Interrupted as stop:
        said = next(iter(_notes(stop)), "Nothing was kept.")
        _fail("Interrupted", f"Interrupted: the worker was ended; {said[0].lower()}{said[1:]}", 130)


def _notes(error: BaseException) -> list[str]:
    """What `add_note` added."""
    return list(getattr(error, "__notes__", ()))


def _fail(kind: str, message: str, status: int) -> NoReturn:
    if "--json" in sys.argv:
        print_json({"error": kind, "message": message})
    sys.stderr.write(f"{message}\n")
    sys.exit(status)
