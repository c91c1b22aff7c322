"""What is tuned: a model, a configuration, or a run, made into one configuration that can be run here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.api.run import config_of, resolve_model
from workbench.capture.resolve import Device, resolve_device
from workbench.config import RunConfig
from workbench.diagnosis.levers import Lever, custom, lever
from workbench.diagnosis.levers.entry import Objective as Purpose
from workbench.errors import ConfigError
from workbench.runs.reader import RunFolder
from workbench.tuning.metric import Metric

Base = str | Path | RunConfig | Mapping[str, Any] | RunFolder
AnyLever = str | Lever | Mapping[str, Any]


def ready(base: Base) -> RunConfig:
    """The configuration of a base with its model's path and its provider settled; raises `ConfigError`."""
    if isinstance(base, RunFolder):
        if base.manifest.imported is not None:
            raise ConfigError("An imported capture holds no model to run: give the model that it was made with.")
        config = RunConfig(**base.manifest.config)
    else:
        config = config_of(None, base) if isinstance(base, (RunConfig, Mapping)) else config_of(base, None)
    device = resolve_device(config)
    provider = config.provider if config.provider == "tensorrt" else device
    return config.changed(model=str(resolve_model(config.model)), provider=provider)


def device_of(config: RunConfig) -> Device:
    """The device of a configuration that is ready."""
    return "cpu" if config.provider == "cpu" else "cuda"


def lever_of(given: AnyLever, at: int = 0) -> Lever:
    """The lever that a name, a lever or a mapping of options means; raises `ConfigError`."""
    if isinstance(given, Mapping):
        return custom(f"change-{at + 1}", given)
    return lever(given) if isinstance(given, str) else given


def purpose_of(metric: Metric) -> Purpose:
    """The objective of levers that a metric stands for."""
    words: dict[str, Purpose] = {"ns": "latency", "items/s": "throughput", "bytes": "memory"}
    return "cold start" if metric.name.startswith("cold-start") else words[metric.unit]
