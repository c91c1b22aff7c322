"""What is tuned: a model, a configuration, or a run, made into one configuration that can be run here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from workbench.api.run import config_of, resolve_model
from workbench.capture.libraries import missing_cuda_libraries
from workbench.capture.resolve import Device, resolve_device
from workbench.capture.tensorrt import tensorrt_problem
from workbench.config import RunConfig
from workbench.diagnosis.levers import Lever, Ranked, Situation, custom, lever, ranked
from workbench.diagnosis.levers.entry import Objective as Purpose
from workbench.diagnosis.levers.entry import laid_over
from workbench.errors import ConfigError
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import BASE
from workbench.tuning.metric import Metric

Base = str | Path | RunConfig | Mapping[str, Any] | RunFolder
AnyLever = str | Lever | Mapping[str, Any]
_FOLDER_NAME: Final = re.compile(r"\w[\w.+-]{0,99}")  # of the run of a lever, under any system


def ready(base: Base) -> RunConfig:
    """The configuration of a base with its model's path and its provider settled; raises `ConfigError`."""
    if isinstance(base, RunFolder):
        if base.manifest.imported is not None:
            raise ConfigError("An imported capture holds no model to run: give the model that it was made with.")
        config = RunConfig(**base.manifest.config)
    else:
        config = config_of(None, base) if isinstance(base, (RunConfig, Mapping)) else config_of(base, None)
    device = resolve_device(config)
    if device == "cuda" and config.allow_cpu and missing_cuda_libraries():
        device = "cpu"  # a run finds that out by itself, but every block would anew
    provider = config.provider if config.provider == "tensorrt" and device == "cuda" else device
    return config.changed(model=str(resolve_model(config.model)), provider=provider)


def device_of(config: RunConfig) -> Device:
    """The device of a configuration that is ready."""
    return "cpu" if config.provider == "cpu" else "cuda"


def levers_of(given: Sequence[AnyLever], base: RunConfig) -> list[Lever]:
    """The levers that names, levers or mappings of options mean.

    Raises `ConfigError` for an unknown name, for one that stands twice or can name no folder, and for a mapping that
    makes no configuration with the base.
    """
    found = []
    for at, each in enumerate(given, start=1):
        if isinstance(each, Mapping):
            RunConfig(**laid_over(base.model_dump(exclude_unset=True), each))
            found.append(custom(f"change-{at}", each))
        else:
            found.append(lever(each) if isinstance(each, str) else each)
    names = [BASE, *(each.name for each in found)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"Each lever needs a name of its own, but {', '.join(twice)} stands twice: give it once.")
    if odd := next((name for name in names if not _FOLDER_NAME.fullmatch(name)), None):
        raise ConfigError(f"Lever {odd!r} cannot name a folder: take up to 100 letters, digits, '.', '_', '+' and '-'.")
    return found


def check_measurable(metrics: Iterable[Metric], config: RunConfig) -> None:
    """Raise `ConfigError` for a metric that no process of this configuration would yield."""
    if device_of(config) == "cpu" and any(metric.name == "memory" for metric in metrics):
        raise ConfigError("Metric 'memory' is of the GPU, and this run is on the CPU: take 'host-memory'.")


def worth_trying(situation: Situation, metric: Metric) -> list[Ranked]:
    """The levers that apply, serve the metric and can run on this machine, in the order of `ranked`.

    Raises `ConfigError` where there are none.
    """
    without = {"tensorrt"} if situation.on_gpu and tensorrt_problem() else set()
    found = [each for each in ranked(situation, purpose_of(metric)) if each.lever.name not in without]
    if not found:
        raise ConfigError(f"No lever that serves {metric.name} applies to this run: name one, or a change of your own.")
    return found


def purpose_of(metric: Metric) -> Purpose:
    """The objective of levers that a metric stands for."""
    words: dict[str, Purpose] = {"ns": "latency", "items/s": "throughput", "bytes": "memory"}
    return "cold start" if metric.name.startswith("cold-start") else words[metric.unit]
