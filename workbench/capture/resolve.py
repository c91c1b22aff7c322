"""What a run is made with here: the device, and the source of device work."""

from __future__ import annotations

from typing import Literal, cast, get_args

from workbench.capture.cupti import cupti_problem
from workbench.capture.machine import gpu_present
from workbench.capture.nsys import nsys_problem
from workbench.config import RunConfig
from workbench.config.strict import nearest
from workbench.errors import ConfigError, NoDriverError, SourceError

Activity = Literal["auto", "cupti", "nsys", "none"]
Device = Literal["cuda", "cpu"]


def resolve_device(config: RunConfig) -> Device:
    """`cuda` or `cpu`. Raises `NoDriverError` when the configuration needs a GPU and there is none."""
    if config.provider == "cpu":
        return "cpu"
    if gpu_present():
        return "cuda"
    needs = "cuda_graph" if config.cuda_graph else None
    needs = f"provider {config.provider!r}" if config.provider != "auto" else needs
    needs = needs or ("binding 'pinned'" if config.binding == "pinned" else None)
    if needs and not config.allow_cpu:
        raise NoDriverError(
            f"{needs} needs an NVIDIA GPU, and no NVIDIA driver answers here: install the driver, start the container "
            "with its GPUs, or accept the CPU with --allow-cpu."
        )
    return "cpu"


def resolve_activity(activity: Activity, device: Device) -> tuple[Literal["cupti", "nsys", "none"], str]:
    """The source of device work, and why there is none; raises `SourceError` when the one asked for is missing."""
    if device == "cpu":
        return "none", "the run is on the CPU"
    problems = {"cupti": cupti_problem, "nsys": nsys_problem}
    if activity == "none":
        return "none", "switched off"
    if activity != "auto":
        problem = problems[activity]()
        if problem:
            raise SourceError(f"{problem}, or use --activity auto.")
        return activity, ""
    if not cupti_problem():
        return "cupti", ""
    if not nsys_problem():
        return "nsys", ""
    return "none", f"{cupti_problem()}; {nsys_problem()}"


def check_activity(name: str) -> Activity:
    """The name as an `Activity`; raises `ConfigError`."""
    if name not in get_args(Activity):
        raise ConfigError(f"Unknown activity source {name!r}: {nearest(name, get_args(Activity))}")
    return cast(Activity, name)
