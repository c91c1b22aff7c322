"""`manifest.json`: what was run, where, with what, and which sources answered."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.runs.schema import SCHEMA_VERSION

FELL_BACK = "Measured on the CPU, as allowed"
"""How the note begins of a run whose GPU could not be used; the cause follows."""

WHOLE_WINDOW = "the whole window"
"""What marks the call of a capture in which nothing else does."""

SourceState = Literal["present", "absent", "failed"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")  # a newer minor version may add fields


class TensorInfo(_Part):
    """One input or output of the model: ONNX Runtime's type name and the declared shape."""

    name: str
    type: str
    shape: list[int | str | None]


class ModelInfo(_Part):
    """The model as it was run; of an import only the name is known.

    sha256, file_bytes: of the user's file, without external data.
    part: the node or block that was run alone. conversions: what was made of the model first, in this order.
    """

    name: str
    sha256: str = ""
    file_bytes: int | None = None
    inputs: list[TensorInfo] = []
    outputs: list[TensorInfo] = []
    rebatched_to: int | None = None
    part: dict[str, Any] | None = None
    conversions: list[str] = []
    feed_shapes: dict[str, list[int]] = {}
    feed_dtypes: dict[str, str] = {}


class DeviceInfo(_Part):
    """The device that executed the run; `kind` is `cuda` or `cpu`. Unknown values are None, never 0."""

    kind: Literal["cuda", "cpu"]
    name: str
    compute_capability: str | None = None
    sm_count: int | None = None
    memory_bytes: int | None = None
    driver: str | None = None
    cuda_driver_version: str | None = None
    pcie_generation: int | None = None
    pcie_width: int | None = None
    max_sm_clock_mhz: int | None = None
    cores: int | None = None


class PassInfo(_Part):
    """One execution of the worker. Dilation is the median call of this pass over the bare median.

    Peaks: resident memory of the worker, and device memory above what was in use before it began (NVML, sampled).
    """

    name: str
    state: Literal["complete", "failed", "skipped"]
    reason: str = ""
    calls: int = 0
    measured_calls: int = 0
    median_ns: float | None = None
    dilation: float | None = None
    wall_ns: int = 0
    peak_host_bytes: int | None = None
    peak_device_bytes: int | None = None


class SourceInfo(_Part):
    """Where rows come from, and why they are missing when they are."""

    state: SourceState
    reason: str = ""


class LatencyInfo(_Part):
    """How the latency pass ended. `stopped_by`: `precise` (interval narrow enough), `budget` or `max calls`.

    `ci_low_ns` and `ci_high_ns` bound the median with 95 % confidence (binomial order statistics). traced: the times
    come from an imported capture, so that a profiler was attached. callers: calls in flight at once; with several,
    `median_ns` is T, the measured window over the calls that ended in it, bounded by batch means.
    """

    median_ns: float
    ci_low_ns: float
    ci_high_ns: float
    measured_calls: int
    warmup_calls: int
    stopped_by: str
    callers: int = 1
    traced: bool = False
    notes: list[str] = []


class Ceilings(_Part):
    """Measured limits of the device. A limit that was not measured is None.

    `flops_per_s` is keyed by unit and dtype: `tensor:float16`, `tensor:bfloat16`, `tensor:tf32`, `tensor:float32`
    (matrix products without TF32), `fp:float32`, `special:float32`. Bandwidths are bytes per second; times are
    nanoseconds.
    """

    flops_per_s: dict[str, float] = {}
    memory_bytes_per_s: float | None = None
    h2d_pageable_bytes_per_s: float | None = None
    d2h_pageable_bytes_per_s: float | None = None
    h2d_pinned_bytes_per_s: float | None = None
    d2h_pinned_bytes_per_s: float | None = None
    launch_ns: float | None = None
    shortest_kernel_ns: float | None = None
    replay_gap_ns: float | None = None
    node_overhead_ns: float | None = None
    key: dict[str, str] = {}
    measured_at: str = ""
    notes: list[str] = []


class ImportedFile(_Part):
    """One file that a run was imported from; `version` is of its schema, as it says itself."""

    name: str
    kind: Literal["nsight", "ort profile", "kineto", "cupti rows"]
    size_bytes: int
    version: str = ""


class ClockJoinInfo(_Part):
    """How an ONNX Runtime profile was put on the clock of an Nsight Systems export.

    offset_ns: added to the profile's times. residual_ns: how far it could be moved with the same fit. inside: fraction
    of the host calls made during the profile's calls that lie in a node. When `joined` is False, `reason` says why.
    """

    profile: str
    joined: bool
    reason: str = ""
    offset_ns: int | None = None
    residual_ns: int | None = None
    inside: float | None = None


class ImportInfo(_Part):
    """Where an imported run comes from, and which part of it was taken.

    window_ns: [start, end) on the Unix epoch, None for everything. process, device: whose rows were taken, None for
    all. subject_process, subject_device: whom the shares are about, None where there is only one. skipped: what the
    files hold and the run does not, a sentence each.
    """

    files: list[ImportedFile]
    range: str | None = None
    calls: str | None = None
    calls_marked_by: str = ""
    window_ns: tuple[int, int] | None = None
    process: int | None = None
    device: int | None = None
    subject_process: int | None = None
    subject_device: int | None = None
    clocks: list[ClockJoinInfo] = []
    skipped: list[str] = []


class Manifest(_Part):
    """Everything about a run that is not a table."""

    schema_version: tuple[int, int] = SCHEMA_VERSION
    workbench_version: str
    created_ns: int
    complete: bool
    config: dict[str, Any]
    model: ModelInfo
    device: DeviceInfo
    software: dict[str, str] = {}
    providers: list[str] = []
    provider_options: dict[str, dict[str, str]] = {}
    latency: LatencyInfo | None = None
    passes: dict[str, PassInfo] = {}
    sources: dict[str, SourceInfo] = {}
    ceilings: Ceilings = Field(default_factory=Ceilings)
    imported: ImportInfo | None = None
    notes: list[str] = []

    @property
    def uses_tf32(self) -> bool:
        """Whether the CUDA provider, as read back, lets float32 matrix work use TF32 tensor cores."""
        return self.provider_options.get("CUDAExecutionProvider", {}).get("use_tf32") == "1"
