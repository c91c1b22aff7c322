"""`RunConfig`: one model under one set of options, checked before anything is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from workbench.config.cuda import CudaOptions, TensorrtOptions
from workbench.config.model import Conversion, Part
from workbench.config.session import RunOptions, SessionOptions
from workbench.config.strict import Strict
from workbench.errors import ConfigError

MOST_THREADS: Final = 4096
"""More than any host has cores; ONNX Runtime would start them all before it says anything."""


class Budget(Strict):
    """How long each pass may measure.

    The latency pass ends when the 95 % interval of the median is narrower than ±`relative_ci` of it, or after
    `seconds` or `max_calls`; it goes on for `min_seconds` and `min_calls` at least, so that clocks settle. The other
    passes make a fixed number of calls after their warm-up; `counters_seconds` is the length of the counters pass, in
    which GPM averages.
    """

    seconds: float = Field(10.0, gt=0, allow_inf_nan=False)
    min_seconds: float = Field(0.5, ge=0, allow_inf_nan=False)
    min_calls: int = Field(30, ge=3)
    max_calls: int = Field(20_000, ge=3)
    relative_ci: float = Field(0.01, gt=0, lt=1)
    activity_calls: int = Field(20, ge=1)
    nodes_calls: int = Field(10, ge=1)
    counters_seconds: float = Field(1.5, ge=1.0, allow_inf_nan=False)

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
    intra_op_threads, inter_op_threads: of each session; None leaves ONNX Runtime's own choice.
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
    intra_op_threads: int | None = Field(None, ge=1, le=MOST_THREADS)
    inter_op_threads: int | None = Field(None, ge=1, le=MOST_THREADS)
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

    @field_validator("later_shapes")
    @classmethod
    def _positive_later_shapes(cls, value: list[dict[str, list[int]]]) -> list[dict[str, list[int]]]:
        return [cls._positive_shapes(shapes) for shapes in value]

    @field_validator("dims")
    @classmethod
    def _positive_dims(cls, value: dict[str, int]) -> dict[str, int]:
        for name, size in value.items():
            if size < 0:
                raise ConfigError(f"Dimension {name!r} cannot be {size}: give a size of 0 or more.")
        return value

    @property
    def callers(self) -> int:
        """How many threads call the model at once."""
        return self.concurrency * self.sessions

    @model_validator(mode="after")
    def _possible_graph(self) -> Self:
        asked = {
            "cuda.enable_cuda_graph": self.cuda.enable_cuda_graph,
            "tensorrt.trt_cuda_graph_enable": self.tensorrt.trt_cuda_graph_enable,
        }
        for name, value in asked.items():
            if value and not self.cuda_graph:
                raise ConfigError(f"Set 'cuda_graph: true' instead of {name!r}, so that it is checked.")
        if not self.cuda_graph:
            return self
        if self.binding != "device":
            raise ConfigError(
                f"Option 'cuda_graph' cannot go with binding {self.binding!r}: a replayed graph reads and writes "
                "fixed device addresses, so use binding 'device'."
            )
        if self.provider == "cpu":
            raise ConfigError("Option 'cuda_graph' needs the CUDA provider, but provider is 'cpu': drop one of them.")
        if self.session.execution_mode == "parallel":
            raise ConfigError("Option 'cuda_graph' needs sequential execution: drop 'execution_mode: parallel'.")
        if "disable_synchronize_execution_providers" in self.run.entries:
            raise ConfigError("Option 'cuda_graph' cannot be timed without synchronisation: drop that run option.")
        if "memory.enable_memory_arena_shrinkage" in self.run.entries:
            raise ConfigError(
                "Option 'cuda_graph' cannot go with arena shrinkage, which gives away the memory that a replay writes "
                "to: drop one of them."
            )
        if self.concurrency > 1:
            raise ConfigError(
                "Option 'cuda_graph' cannot go with 'concurrency': a captured graph is replayed by one call at a time, "
                "so use 'sessions' instead."
            )
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.binding == "pinned" and self.provider == "cpu":
            raise ConfigError("Binding 'pinned' needs a GPU to copy to, but provider is 'cpu': use 'numpy'.")
        if "optimized" in self.conversions[:-1]:
            raise ConfigError("Conversion 'optimized' saves the graph that is run: put it last.")
        if repeated := next((each for each in self.conversions if self.conversions.count(each) > 1), None):
            raise ConfigError(f"Conversion {repeated!r} is named twice: drop one.")
        if self.later_shapes and self.binding == "pinned":
            raise ConfigError(
                "Option 'later_shapes' cannot go with binding 'pinned', which runs the model to learn the size of its "
                "outputs before the first call is timed: use 'numpy' or 'device'."
            )
        fixed_shapes = "fixed_shapes" in self.conversions
        fixing = {"feeds": self.feeds, "cuda_graph": self.cuda_graph, "part": self.part, "fixed_shapes": fixed_shapes}
        if self.later_shapes and (other := next((name for name, given in fixing.items() if given), None)):
            raise ConfigError(f"Option 'later_shapes' cannot go with {other!r}, which fixes the shapes: drop one.")
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
