"""What a lever is judged in: the configuration in force, the device, the graph that ran, and what its calls spent."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import helper

from workbench.capture.subgraph import all_nodes
from workbench.config import RunConfig
from workbench.diagnosis.diagnosis import diagnose
from workbench.diagnosis.result import Diagnosis
from workbench.diagnosis.trace import CallTrace, trace_calls
from workbench.errors import ConfigError
from workbench.runs.manifest import Ceilings, DeviceInfo, Manifest, ModelInfo
from workbench.runs.reader import RunFolder

CONTROL_FLOW: Final = frozenset(("If", "Loop", "Scan"))
MEMCPY: Final = frozenset(("MemcpyFromHost", "MemcpyToHost"))
BATCH_NORM: Final = "BatchNormalization"
CPU_PROVIDER: Final = "CPUExecutionProvider"
CUDA_PROVIDER: Final = "CUDAExecutionProvider"
_FOLDED: Final = "ConvBnFusion_W_"  # how ONNX Runtime names the weights that it folds a BatchNormalization into
_FLOATS: Final = frozenset(("float16", "bfloat16", "float32", "float64"))


@dataclass(frozen=True)
class GraphFacts:
    """What the optimised graph says, weights by the type and shape that stand for them.

    op_types: all of the graph and its subgraphs. weights: bytes of the floating-point weights that each node reads, by
    node name. weight_dtypes: types of the floating-point weights. conv_ranks: ranks of the weights of convolutions, 3
    for one spatial dimension. batch_norm: the model's file has batch normalisation, be it a node still or folded into
    the weights of a convolution.
    """

    op_types: frozenset[str]
    weights: dict[str, int]
    weight_dtypes: frozenset[str]
    conv_ranks: frozenset[int]
    batch_norm: bool = False


@dataclass(frozen=True)
class Situation:
    """Where a lever is to be applied. What is None is not known, and then holds no lever back.

    configured: whether `config` is what the run was made with; of an imported capture it is not known. cpu_nodes: names
    of the nodes that ran on the CPU provider although the run was on a GPU. matrix_dtypes: types in which matrix work
    was computed. peak_device_bytes: of the bare pass. trace: what each traced call spent; None of an imported capture,
    whose T was traced as well.
    """

    config: RunConfig
    device: DeviceInfo
    model: ModelInfo
    provider_options: dict[str, dict[str, str]] = field(default_factory=dict)
    ceilings: Ceilings = field(default_factory=Ceilings)
    configured: bool = True
    diagnosis: Diagnosis | None = None
    graph: GraphFacts | None = None
    cpu_nodes: tuple[str, ...] | None = None
    matrix_dtypes: frozenset[str] | None = None
    peak_device_bytes: int | None = None
    trace: CallTrace | None = field(default=None, repr=False)

    @property
    def on_gpu(self) -> bool:
        """Whether the run is on a CUDA device."""
        return self.device.kind == "cuda"

    @property
    def batch(self) -> int | None:
        """Items in one call: the first dimension that the inputs share; None where there is none.

        The inputs of a part need not begin with the batch, so that of a part only the configuration tells it.
        """
        if self.config.part is not None:
            return self.config.batch
        firsts = {shape[0] for shape in self.model.feed_shapes.values() if shape}
        return firsts.pop() if len(firsts) == 1 else None

    @property
    def open_dimensions(self) -> tuple[str, ...]:
        """Dimensions of the inputs that the model leaves open, as `input.name`."""
        return tuple(
            f"{given.name}.{axis if dim is None else dim}"
            for given in self.model.inputs
            for axis, dim in enumerate(given.shape)
            if not isinstance(dim, int)
        )

    @cached_property
    def cuda_options(self) -> dict[str, str]:
        """Options of the CUDA provider in force: read back where the run says so, else as configured."""
        return {**self.provider_options.get(CUDA_PROVIDER, {}), **self.config.cuda.to_provider_options()}


def situation_of(run: RunFolder, diagnosis: Diagnosis | None = None) -> Situation:
    """The situation that a run was recorded in. diagnosis: of this run, where it is worked out already.

    Raises `RunFolderError` when the run is damaged or holds no latency.
    """
    manifest = run.manifest
    found = diagnosis if diagnosis is not None else diagnose(run)
    nodes = found.nodes.nodes if found.nodes is not None and len(found.nodes.nodes) else None
    on_gpu = manifest.device.kind == "cuda"
    config, configured = _config(manifest)
    matrix = nodes[nodes["tensor_flops"] > 0]["dtype"].dropna().unique() if nodes is not None else None
    return Situation(
        config=config,
        device=manifest.device,
        model=manifest.model,
        provider_options=manifest.provider_options,
        ceilings=manifest.ceilings,
        configured=configured,
        diagnosis=found,
        graph=None if run.graph is None else graph_facts(run.graph, {given.name for given in manifest.model.inputs}),
        cpu_nodes=(
            tuple(nodes.loc[nodes["provider"] == CPU_PROVIDER, "name"].astype(str))
            if on_gpu and nodes is not None
            else None
        ),
        matrix_dtypes=None if matrix is None else frozenset(map(str, matrix)),
        peak_device_bytes=manifest.passes["latency"].peak_device_bytes if "latency" in manifest.passes else None,
        trace=trace_calls(run, found) if on_gpu and manifest.imported is None else None,
    )


def graph_facts(model: onnx.ModelProto, fed: set[str]) -> GraphFacts:
    """What a lever needs to know of a graph whose weights are typed graph inputs; fed: the model's own inputs."""
    sizes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for value in model.graph.input:
        shape = value.type.tensor_type.shape
        if value.name not in fed and all(dim.HasField("dim_value") for dim in shape.dim):
            dims = tuple(dim.dim_value for dim in shape.dim)
            sizes[value.name] = (_dtype(value.type.tensor_type.elem_type), dims)
    for tensor in model.graph.initializer:
        sizes[tensor.name] = (_dtype(tensor.data_type), tuple(tensor.dims))
    floats = {name: size for name, size in sizes.items() if size[0] in _FLOATS}
    op_types = frozenset(node.op_type for node in all_nodes(model.graph))
    convolutions = [node.input[1] for node in model.graph.node if "Conv" in node.op_type and len(node.input) > 1]
    return GraphFacts(
        op_types=op_types,
        weights={
            node.name: sum(_bytes(*floats[name]) for name in set(node.input) & floats.keys())
            for node in model.graph.node
        },
        weight_dtypes=frozenset(dtype for dtype, _ in floats.values()),
        conv_ranks=frozenset(len(sizes[name][1]) for name in convolutions if name in sizes),
        batch_norm=BATCH_NORM in op_types or any(name.startswith(_FOLDED) for name in sizes),
    )


def _config(manifest: Manifest) -> tuple[RunConfig, bool]:
    """The configuration of a run; of an import, or one of another version, only the model's name."""
    try:
        return RunConfig(**manifest.config), True
    except ConfigError:
        return RunConfig(model=Path(manifest.model.name).name or "model"), False


def _dtype(onnx_type: int) -> str:
    try:
        return helper.tensor_dtype_to_np_dtype(onnx_type).name
    except KeyError:  # a type that NumPy lacks, or a damaged graph
        return "unknown"


def _bytes(dtype: str, dims: tuple[int, ...]) -> int:
    return int(np.prod(dims, dtype=np.int64)) * (2 if dtype == "bfloat16" else np.dtype(dtype).itemsize)
