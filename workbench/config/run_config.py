"""`RunConfig`: one model under one set of options, checked before anything is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from workbench.config.cuda import CudaOptions, TensorrtOptions
from workbench.config.model import Conversion, Part
from workbench.config.session import RunOptions, SessionOptions
from workbench.config.strict import Strict
from workbench.errors import ConfigError


class Budget(Strict):
    """How long each pass may measure.

    The latency pass ends when the 95 % interval of the median is narrower than ±`relative_ci` of it, or after
    `seconds` or `max_calls`; it goes on for `min_seconds` and `min_calls` at least, so that clocks settle. The other
    passes make a fixed number of calls after their warm-up; `counters_seconds` is the length of the counters pass, in
    which GPM averages.
    """

    seconds: float = Field(10.0, gt=0)
    min_seconds: float = Field(0.5, ge=0)
    min_calls: int = Field(30, ge=3)
    max_calls: int = Field(20_000, ge=3)
    relative_ci: float = Field(0.01, gt=0, lt=1)
    activity_calls: int = Field(20, ge=1)
    nodes_calls: int = Field(10, ge=1)
    counters_seconds: float = Field(1.5, ge=1.0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_calls > self.max_calls:
            raise ConfigError(f"Option 'budget.min_calls' ({self.min_calls}) is above 'max_calls' ({self.max_calls}).")
        return self


class RunConfig(Strict):
    """What to run and how.

    model: path of the ONNX file, or the name of a model of the zoo.
    shapes: input name → dimensions, for inputs that the signature leaves open.
    dims: symbolic dimension → size. batch: size of the first dimension of every input that carries the batch.
    feeds: `.npz` file, or a folder of `input_<i>.pb` as in the ONNX tests; without it, inputs are made with `seed`.
    part: run only one node or block of the model. conversions: what is made of the model first, in this order.
    provider: `auto` takes the GPU when this machine has one, else the CPU; `tensorrt` leaves
    to CUDA what it cannot run.
    binding: `numpy` copies in and out each call, `device` keeps inputs and outputs on the device, `pinned` holds
    them in page-locked host memory.
    concurrency: calls in flight on one session, each from a thread of its own; sessions: how many sessions do that.
    cuda_module_loading: CUDA loads kernels when they are first used (`LAZY`, its default), or all at once (`EAGER`).
    later_shapes: shapes of the inputs that a session meets after its first call; each costs a cold start of its own.
    """

    model: str
    shapes: dict[str, list[int]] = {}
    dims: dict[str, int] = {}
    batch: int | None = Field(None, ge=1)
    feeds: str | None = None
    part: Part | None = None
    conversions: list[Conversion] = []
    provider: Literal["auto", "cuda", "cpu", "tensorrt"] = "auto"
    cuda: CudaOptions = CudaOptions()
    tensorrt: TensorrtOptions = TensorrtOptions()
    session: SessionOptions = SessionOptions()
    run: RunOptions = RunOptions()
    binding: Literal["numpy", "device", "pinned"] = "numpy"
    cuda_graph: bool = False
    concurrency: int = Field(1, ge=1, le=256)
    sessions: int = Field(1, ge=1, le=64)
    cuda_module_loading: Literal["LAZY", "EAGER"] | None = None
    later_shapes: list[dict[str, list[int]]] = []
    intra_op_threads: int | None = Field(None, ge=1)
    inter_op_threads: int | None = Field(None, ge=1)
    budget: Budget = Budget()
    seed: int = Field(0, ge=0)
    allow_cpu: bool = False

    @field_validator("model", "feeds", mode="before")
    @classmethod
    def _path_to_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Path) else value

    @field_validator("shapes")
    @classmethod
    def _positive_shapes(cls, value: dict[str, list[int]]) -> dict[str, list[int]]:
        for name, shape in value.items():
            if any(size < 0 for size in shape):
                raise ConfigError(f"Shape {shape} of input {name!r} has a negative size: give every dimension.")
        return value

    @property
    def callers(self) -> int:
        """How many threads call the model at once."""
        return self.concurrency * self.sessions

    @field_validator("dims")
    @classmethod
    def _positive_dims(cls, value: dict[str, int]) -> dict[str, int]:
        for name, size in value.items():
            if size < 0:
                raise ConfigError(f"Dimension {name!r} cannot be {size}: give a size of 0 or more.")
        return value

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.cuda.enable_cuda_graph and not self.cuda_graph:
            raise ConfigError("Set 'cuda_graph: true' instead of 'cuda.enable_cuda_graph', so that it is checked.")
        if self.cuda_graph and self.binding != "device":
            raise ConfigError(
                f"Option 'cuda_graph' cannot go with binding {self.binding!r}: a replayed graph reads and writes "
                "fixed device addresses, so use binding 'device'."
            )
        if self.cuda_graph and self.provider == "cpu":
            raise ConfigError("Option 'cuda_graph' needs the CUDA provider, but provider is 'cpu': drop one of them.")
        if self.cuda_graph and self.session.execution_mode == "parallel":
            raise ConfigError("Option 'cuda_graph' needs sequential execution: drop 'execution_mode: parallel'.")
        if self.cuda_graph and "disable_synchronize_execution_providers" in self.run.entries:
            raise ConfigError("Option 'cuda_graph' cannot be timed without synchronisation: drop that run option.")
        if self.cuda_graph and self.concurrency > 1:
            raise ConfigError(
                "Option 'cuda_graph' cannot go with 'concurrency': a captured graph is replayed by one call at a time, "
                "so use 'sessions' instead."
            )
        if self.binding == "pinned" and self.provider == "cpu":
            raise ConfigError("Binding 'pinned' needs a GPU to copy to, but provider is 'cpu': use 'numpy'.")
        if self.later_shapes and (self.feeds or self.cuda_graph):
            other = "feeds" if self.feeds else "cuda_graph"
            raise ConfigError(f"Option 'later_shapes' cannot go with '{other}', which fixes the shapes: drop one.")
        if self.feeds and (self.shapes or self.dims or self.batch):
            raise ConfigError(
                "Options 'shapes', 'dims' and 'batch' size made inputs, but 'feeds' reads them from a file: give one."
            )
        return self

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML (`.yaml`, `.yml`) or JSON (`.json`) file; raises `ConfigError`."""
        return cls(**read_options(Path(path)))

    def save(self, path: str | Path) -> None:
        """Write what is set, as YAML or JSON by the file's suffix; `load` reads it back to an equal config."""
        import yaml

        file = Path(path)
        data = self.model_dump(mode="json", exclude_unset=True)
        text = json.dumps(data, indent=2) if file.suffix == ".json" else yaml.safe_dump(data, sort_keys=False)
        file.write_text(text, encoding="utf-8")


def read_options(file: Path) -> dict[str, Any]:
    """The options that a YAML or JSON file holds, not yet validated, so that others may be laid over them.

    Raises `ConfigError` when the file cannot be read or holds something else.
    """
    import yaml  # here, because a bare GPU host gets its configuration as JSON

    as_json = file.suffix == ".json"
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text) if as_json else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {file}: {error.strerror}.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        cause = " ".join(str(error).split())
        raise ConfigError(f"The configuration {file} is not valid {'JSON' if as_json else 'YAML'}: {cause}.") from None
    if not isinstance(data, dict) or not all(isinstance(name, str) for name in data):
        raise ConfigError(f"The configuration {file} holds no mapping of options: start it with 'model: …'.")
    return data
