"""The command line: `workbench profile | import | export | diagnose | report | doctor | zoo | demo`.

With `--json` a command prints one JSON object on standard output and nothing else there; progress and messages go to
standard error. Exit status: 0 on success, 1 on a failed run, 2 on wrong usage, 130 when interrupted.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, cast

import typer

from workbench.errors import ConfigError, WorkbenchError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find out why ONNX Runtime inference is slow, with evidence.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or the name of a sample.")]
_PROGRESS_STEPS: Final = 5  # latency, counters, activity, nodes, ceilings
# typer may carry a copy of click, whose base of every usage error has no public name there
_UsageError = cast(type[typer.BadParameter], typer.BadParameter.__base__)


@app.command()
def profile(
    model: Annotated[str | None, typer.Argument(help="ONNX file, or a model of the zoo such as resnet50.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML or JSON file of options; flags win over it.")] = None,
    batch: Annotated[int | None, typer.Option(help="Size of the batch dimension.")] = None,
    shape: Annotated[list[str] | None, typer.Option(metavar="INPUT:1,3,…", help="Shape of one input.")] = None,
    dim: Annotated[list[str] | None, typer.Option(metavar="NAME=SIZE", help="Size of a symbolic dimension.")] = None,
    feeds: Annotated[
        str | None, typer.Option(help=".npz file or folder of input_0.pb, instead of made inputs.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="auto, cuda or cpu.")] = None,
    binding: Annotated[str | None, typer.Option(help="numpy, device or pinned.")] = None,
    cuda_graph: Annotated[bool, typer.Option("--cuda-graph", help="Capture and replay a CUDA graph.")] = False,
    cuda: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="CUDA provider option.")] = None,
    session: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Session option or entry.")] = None,
    run_option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Run option or entry.")] = None,
    threads: Annotated[int | None, typer.Option(help="Intra-op threads.")] = None,
    inter_threads: Annotated[int | None, typer.Option(help="Inter-op threads.")] = None,
    budget: Annotated[float | None, typer.Option(metavar="SECONDS", help="Longest latency measurement.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the inputs.")] = None,
    allow_cpu: Annotated[bool, typer.Option("--allow-cpu", help="Accept the CPU when the GPU cannot be used.")] = False,
    activity: Annotated[str, typer.Option(help="Source of device work: auto, cupti, nsys or none.")] = "auto",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Time limit of each pass.")] = 600.0,
    out: Annotated[Path | None, typer.Option(help="Folder to make; default runs/<model>-<time>.")] = None,
    report: Annotated[Path | None, typer.Option(help="Also write the report to this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Profile a model: what does a call wait for?"""
    from workbench.capture.resolve import check_activity
    from workbench.config import flags
    from workbench.config.run_config import read_options

    given = {} if config is None else read_options(config)
    plain = {
        "model": model,
        "batch": batch,
        "feeds": feeds,
        "provider": provider,
        "binding": binding,
        "intra_op_threads": threads,
        "inter_op_threads": inter_threads,
        "seed": seed,
    }
    given.update({name: value for name, value in plain.items() if value is not None})
    given.update({name: True for name, on in (("cuda_graph", cuda_graph), ("allow_cpu", allow_cpu)) if on})
    flags.merge(given, "shapes", dict(flags.shape(text) for text in shape or ()))
    flags.merge(given, "dims", flags.pairs(dim))
    flags.merge(given, "cuda", flags.pairs(cuda))
    flags.merge(given, "session", flags.with_entries(flags.pairs(session)))
    flags.merge(given, "run", flags.with_entries(flags.pairs(run_option)))
    flags.merge(given, "budget", {} if budget is None else {"seconds": budget})
    if "model" not in given:
        raise typer.BadParameter("name a model: an ONNX file, or one of `workbench zoo`.")
    _profile(given, out, check_activity(activity), timeout, report, as_json)


def _profile(
    given: dict[str, Any], out: Path | None, activity: Any, timeout: float, report: Path | None, as_json: bool
) -> None:
    from workbench.api import profile as make_run

    if not 0 < timeout <= threading.TIMEOUT_MAX:
        raise ConfigError(f"Option 'timeout' cannot be {timeout:g}: give a number of seconds above 0.")
    with _progress_bar() as progress:
        run = make_run(config=given, out=out, activity=activity, timeout_s=timeout, progress=progress)
    if report is not None:
        run.report(report)
    if as_json:
        _print_json({"run": str(run.folder), "complete": run.manifest.complete, **run.diagnosis.to_dict()})
    else:
        typer.echo(run.summary())
        typer.echo(f"\nRun folder: {run.folder}" + (f"\nReport: {report}" if report else ""))
    if not run.manifest.complete:
        failed = next(info for info in run.manifest.passes.values() if info.state == "failed")
        typer.echo(f"The run is incomplete: {failed.reason}", err=True)
        raise typer.Exit(1)


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

    with _progress_bar(1) as progress:
        run = import_run(
            files, out=out, range=range_, calls=calls, call=call, process=process, device=device, progress=progress
        )
    if report is not None:
        run.report(report)
    if as_json:
        _print_json({"run": str(run.folder), **run.diagnosis.to_dict()})
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
        _print_json({"files": [str(path) for path in written]})
    else:
        for path in written:
            typer.echo(path)


@app.command()
def diagnose(run: RunArgument, as_json: Json = False) -> None:
    """Print the verdict of a run."""
    from workbench.api import load

    opened = load(run)
    if as_json:
        _print_json(opened.diagnosis.to_dict())
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
        _print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        typer.echo(f"Report: {path}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can provide, and how to get the rest."""
    from workbench.capture.doctor import examine, to_rows

    checks = examine()
    if as_json:
        _print_json({"checks": to_rows(checks)})
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
            _print_json({"model": str(path), "bytes": path.stat().st_size})
        else:
            typer.echo(f"Model: {path} ({path.stat().st_size / 1e6:.1f} MB)")
        return
    entries = models.models()
    if as_json:
        _print_json({"models": [{k: v for k, v in vars(entry).items() if k[0] != "_"} for entry in entries]})
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

    with _progress_bar() as progress:
        here = make_run(RESNET50, progress=progress)
    recorded = load(RESNET50)
    written = {}
    for run, file, title in (
        (here, "report.html", "ResNet-50 on this machine"),
        (recorded, "report-h200.html", "ResNet-50 recorded on an H200"),
    ):
        path = run.report(out / file)
        written[str(path)] = {"run": str(run.folder), **run.diagnosis.to_dict()}
        if not as_json:
            typer.echo(f"\n{title}\n{'=' * len(title)}\n{run.summary()}\n\nReport: {path}")
    if as_json:
        _print_json({"reports": written})


@contextmanager
def _progress_bar(steps: int = _PROGRESS_STEPS) -> Iterator[Callable[[str, float], None]]:
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


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")


class _Interrupted(BaseException):
    """Ctrl-C or SIGTERM; typer would answer a `KeyboardInterrupt` itself, without a word."""


def _interrupt(number: int, frame: object) -> None:
    raise _Interrupted


def main() -> None:
    """Run the command line; a user's mistake is one sentence on standard error, without a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        sys.exit(app(standalone_mode=False))
    except WorkbenchError as error:
        _fail(type(error).__name__, str(error), 2 if isinstance(error, ConfigError) else 1)
    except _UsageError as error:
        _fail("UsageError", error.format_message(), 2)
    except _Interrupted:
        _fail("Interrupted", "Interrupted: the worker was ended and nothing was kept.", 130)


def _fail(kind: str, message: str, status: int) -> NoReturn:
    if "--json" in sys.argv:
        _print_json({"error": kind, "message": message})
    sys.stderr.write(f"{message}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
