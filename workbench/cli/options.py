"""The options of a run, as `profile` and `tune` take them: declared once, laid over a configuration file."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from workbench.errors import ConfigError


def run_options(
    model: Annotated[str | None, typer.Argument(help="ONNX file, or a model of the zoo such as resnet50.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML or JSON file of options; flags win over it.")] = None,
    batch: Annotated[int | None, typer.Option(help="Size of the batch dimension.")] = None,
    shape: Annotated[list[str] | None, typer.Option(metavar="INPUT:1,3,…", help="Shape of one input.")] = None,
    dim: Annotated[list[str] | None, typer.Option(metavar="NAME=SIZE", help="Size of a symbolic dimension.")] = None,
    feeds: Annotated[
        str | None, typer.Option(help=".npz file or folder of input_0.pb, instead of made inputs.")
    ] = None,
    node: Annotated[str | None, typer.Option(help="Run one node of the model alone, on its real inputs.")] = None,
    block: Annotated[
        str | None, typer.Option(metavar="IN,…:OUT,…", help="Run the part between these tensors alone.")
    ] = None,
    convert: Annotated[
        list[str] | None, typer.Option(help="Convert the model first: float16, int8_static, …; repeatable.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="auto, cuda, cpu or tensorrt.")] = None,
    binding: Annotated[str | None, typer.Option(help="numpy, device or pinned.")] = None,
    cuda_graph: Annotated[bool, typer.Option("--cuda-graph", help="Capture and replay a CUDA graph.")] = False,
    concurrency: Annotated[int | None, typer.Option(help="Calls in flight on one session.")] = None,
    sessions: Annotated[int | None, typer.Option(help="Sessions side by side.")] = None,
    later_shape: Annotated[
        list[str] | None, typer.Option(metavar="INPUT:1,3,…", help="Shape met after the first call; repeatable.")
    ] = None,
    cuda: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="CUDA provider option.")] = None,
    session: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Session option or entry.")] = None,
    run_option: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Run option or entry.")] = None,
    threads: Annotated[int | None, typer.Option(help="Intra-op threads.")] = None,
    inter_threads: Annotated[int | None, typer.Option(help="Inter-op threads.")] = None,
    budget: Annotated[float | None, typer.Option(metavar="SECONDS", help="Longest latency measurement.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the inputs.")] = None,
    allow_cpu: Annotated[bool, typer.Option("--allow-cpu", help="Accept the CPU when the GPU cannot be used.")] = False,
) -> dict[str, Any]:
    """The options of `RunConfig` that were given; raises `ConfigError`."""
    from workbench.config import flags
    from workbench.config.run_config import read_options

    given = {} if config is None else read_options(config)
    plain = {
        "model": model,
        "batch": batch,
        "feeds": feeds,
        "conversions": convert,
        "provider": provider,
        "binding": binding,
        "concurrency": concurrency,
        "sessions": sessions,
        "intra_op_threads": threads,
        "inter_op_threads": inter_threads,
        "seed": seed,
    }
    given.update({name: value for name, value in plain.items() if value is not None})
    given.update({name: True for name, on in (("cuda_graph", cuda_graph), ("allow_cpu", allow_cpu)) if on})
    if node is not None:
        given["part"] = {"node": node}
    if block is not None:
        given["part"] = flags.block(block)
    if later_shape:
        given["later_shapes"] = [dict([flags.shape(text)]) for text in later_shape]
    flags.merge(given, "shapes", dict(flags.shape(text) for text in shape or ()))
    flags.merge(given, "dims", flags.pairs(dim))
    flags.merge(given, "cuda", flags.pairs(cuda))
    flags.merge(given, "session", flags.with_entries(flags.pairs(session)))
    flags.merge(given, "run", flags.with_entries(flags.pairs(run_option)))
    flags.merge(given, "budget", {} if budget is None else {"seconds": budget})
    if "model" not in given:
        raise typer.BadParameter("name a model: an ONNX file, or one of `workbench zoo`.")
    return given


def check_timeout(seconds: float) -> None:
    """Raise `ConfigError` for what is no time limit."""
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ConfigError(f"Option 'timeout' cannot be {seconds:g}: give a number of seconds above 0.")


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of `run_options` before its own; it is given what they make as its first argument."""
    shared = inspect.signature(run_options).parameters
    own = list(inspect.signature(command).parameters.values())[1:]

    @functools.wraps(command)
    def whole(**values: Any) -> None:
        given = run_options(**{name: values.pop(name) for name in shared})
        command(given, **values)

    hints = get_type_hints(run_options, include_extras=True) | get_type_hints(command, include_extras=True)
    parameters = [each.replace(annotation=hints[each.name]) for each in (*shared.values(), *own)]
    parameters.sort(key=lambda each: each.default is not each.empty)  # the context, which typer fills in, comes first
    whole.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    whole.__annotations__ = {each.name: each.annotation for each in parameters}
    return whole
