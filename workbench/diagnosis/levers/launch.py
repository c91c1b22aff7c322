"""Levers against time in which the device waits to be told what to do, or is told too little at a time."""

from __future__ import annotations

from typing import Final, Literal

from workbench.diagnosis.levers.batches import larger_batch
from workbench.diagnosis.levers.conditions import all_of, on_cpu, on_gpu, one_caller, whole_graph_on_cuda
from workbench.diagnosis.levers.entry import Lever
from workbench.diagnosis.prediction.binding import replayed
from workbench.diagnosis.prediction.crowding import in_flight
from workbench.diagnosis.situation import Situation

CUDA_GRAPH: Final = Lever(
    name="cuda-graph",
    title="Replay a CUDA graph: one launch for all kernels",
    treats=("host", "launch latency"),
    serves=("latency", "throughput"),
    changes={"cuda_graph": True, "binding": "device"},
    condition="every node on CUDA, no control flow, no Memcpy nodes, one call at a time; binds inputs and outputs on "
    "the device",
    effect="host and launch latency shrink to a gap between the kernels; copies of inputs and outputs go",
    cost="shapes and addresses are fixed; the first call captures the graph; the graph keeps its memory",
    costs=("cold start", "memory"),
    unless=all_of(on_gpu, one_caller, whole_graph_on_cuda),
    formula=replayed,
)

SPINNING: Final = Lever(
    name="no-spinning",
    title="Let idle worker threads sleep instead of spin",
    treats=("host", "framework overhead"),
    serves=("latency", "throughput"),
    changes={"session": {"entries": {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}}},
    condition="always",
    effect="host shrinks where spinning threads take cores from those that launch",
    cost="a thread that sleeps takes longer to wake",
    costs=("latency",),
    unknown_because="How the threads share the cores is not recorded.",
)

PARALLEL_NODES: Final = Lever(
    name="parallel-nodes",
    title="Run independent nodes side by side (parallel execution mode)",
    treats=("framework overhead",),
    serves=("latency",),
    changes={"session": {"execution_mode": "parallel"}},
    condition="on a CPU",
    effect="framework overhead and node time overlap where branches of the graph are independent",
    cost="threads are shared among the nodes, so that a chain of nodes gets slower",
    costs=("latency",),
    unless=on_cpu,
    unknown_because="Which nodes could overlap, and how they would share the cores, is not recorded.",
)


def graph_level(level: Literal["disable", "basic", "extended", "layout", "all"]) -> Lever:
    """The graph optimisation level: more of it means fewer and larger nodes."""
    return Lever(
        name=f"graph-level-{level}",
        title=f"Graph optimisation level '{level}'",
        treats=("host", "launch latency", "framework overhead"),
        serves=("latency", "cold start"),
        changes={"session": {"graph_optimization_level": level}},
        condition="always",
        effect="a higher level leaves fewer and larger nodes; a lower one makes the session faster to create",
        cost="a higher level optimises longer when the session is made; fused kernels round differently",
        costs=("accuracy", "cold start"),
        unknown_because="Which nodes another level fuses is not known before the session is made.",
    )


def threads(count: int) -> Lever:
    """Threads inside one node."""
    return Lever(
        name=f"threads-{count}",
        title=f"{count} intra-op thread{'s' if count > 1 else ''}",
        treats=("framework overhead", "host", "compute"),
        serves=("latency", "throughput"),
        changes={"intra_op_threads": count},
        condition="a node that runs on the CPU; at most the cores of the machine",
        effect="fewer threads take less from each other; more share a large node",
        cost="other work on the machine, with more threads",
        unless=lambda situation: _no_use(situation, count),
        unknown_because="How a node's time falls with the threads is not recorded.",
    )


def concurrency(calls: int) -> Lever:
    """Calls in flight on one session."""
    return Lever(
        name=f"concurrency-{calls}",
        title=f"{calls} calls in flight on one session",
        treats=("host", "launch latency", "under-filled", "framework overhead", "pcie"),
        serves=("throughput",),
        changes={"concurrency": calls},
        condition="no CUDA graph, which one call replays at a time",
        effect="idle time of one call is filled by the others; device work does not shrink",
        cost="each call takes longer; activations for every call in flight",
        costs=("latency", "memory"),
        formula=in_flight(calls),
    )


def sessions(count: int) -> Lever:
    """Sessions side by side, one caller each."""
    return Lever(
        name=f"sessions-{count}",
        title=f"{count} sessions side by side",
        treats=("host", "launch latency", "under-filled"),
        serves=("throughput",),
        changes={"sessions": count},
        condition="always; with a CUDA graph too",
        effect="idle time of one session is filled by the others, which share no lock of ONNX Runtime",
        cost="weights and arenas once for every session; each call takes longer",
        costs=("latency", "memory", "cold start"),
        formula=in_flight(count),
    )


LEVERS: Final = (
    CUDA_GRAPH,
    *(larger_batch(times) for times in (2, 4, 8, 16)),
    *(concurrency(calls) for calls in (2, 4, 8)),
    *(sessions(count) for count in (2, 4)),
    *(graph_level(level) for level in ("disable", "basic", "extended", "layout", "all")),
    *(threads(count) for count in (1, 2, 4, 8)),
    SPINNING,
    PARALLEL_NODES,
)


def _no_use(situation: Situation, count: int) -> str | None:
    if situation.on_gpu and situation.cpu_nodes == ():
        return "Every node runs on the GPU, which these threads do not serve."
    cores = situation.device.cores
    return None if cores is None or count <= cores else f"The machine has {cores} cores only."
