"""What changed between two runs of one model, as their tables show it: nodes, kernels, host copies, graph replays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pandas as pd

from workbench.analysis.kernel_times import KernelTimes, kernel_times
from workbench.analysis.subject import WholeRun
from workbench.analysis.tables import measured_calls

CPU: Final = "CPUExecutionProvider"
TRACED: Final = ("activity", "nodes")
"""Passes that record device work, the one with less attached first."""
_SHOWN: Final = 5  # names in a sentence
_TRACERS: Final = ("cupti", "nsys")
"""Sources of kernels. The same function is spelt differently by each, as `(bool)1` and as `true`."""


@dataclass(frozen=True)
class Observed:
    """Differences of a variant's run from its base's.

    nodes, kernels, copies, replays: whether these differ; None where one of the runs did not record them.
    sentences: each difference, and what was not recorded. on_cpu: by operator the nodes that the variant places on the
    CPU and the base does not, where the base used a GPU.
    """

    nodes: bool | None
    kernels: bool | None
    copies: bool | None
    replays: bool | None
    sentences: list[str] = field(default_factory=list)
    on_cpu: dict[str, list[str]] = field(default_factory=dict)


def observed(base: WholeRun, variant: WholeRun) -> Observed:
    """Compare placement, operators, kernels per call, host copies per call and replays; raises `RunFolderError`."""
    nodes, node_sentences, on_cpu = _nodes(_placed(base), _placed(variant))
    same_tracer = _tracers(base) == _tracers(variant)
    kernels, kernel_sentences = _kernels(kernel_times(base), kernel_times(variant), same_tracer)
    traced = _traced_pass(base, variant)
    copies, copy_sentences = _copies(host_copies(base, traced), host_copies(variant, traced))
    replays, replay_sentences = _replays(_replay_count(base, traced), _replay_count(variant, traced))
    sentences = [*node_sentences, *kernel_sentences, *copy_sentences, *replay_sentences]
    return Observed(nodes, kernels, copies, replays, sentences, on_cpu)


def _placed(run: WholeRun) -> pd.DataFrame:
    """One row per node: `name` as index, `op_type`, `provider`."""
    nodes = run.table("nodes", ["name", "op_type", "provider"]).drop_duplicates("name")
    return nodes.astype(str).set_index("name")


def _nodes(base: pd.DataFrame, variant: pd.DataFrame) -> tuple[bool | None, list[str], dict[str, list[str]]]:
    if base.empty or variant.empty:
        return None, ["Nodes cannot be compared: one of the two runs recorded none."], {}
    sentences = []
    both = variant.join(base["provider"].rename("before"), how="inner")
    moved = both[both["before"] != both["provider"]]
    for (before, after), group in moved.groupby(["before", "provider"], sort=True):
        sentences.append(f"{len(group)} nodes moved from {before} to {after}: {some(group.index.tolist())}.")
    changes = _changes(Counter(base["op_type"]), Counter(variant["op_type"]))
    if changes:
        sentences.append(f"Nodes by operator: {changes}.")
    same_names = set(base.index) == set(variant.index)
    if not same_names and not changes:
        sentences.append(f"{len(variant.index.difference(base.index))} nodes have other names.")
    on_gpu = (base["provider"] != CPU).any()
    on_cpu_before = base.index[base["provider"] == CPU]
    fell = variant[(variant["provider"] == CPU) & ~variant.index.isin(on_cpu_before)] if on_gpu else variant.iloc[:0]
    on_cpu = {str(op): group.index.tolist() for op, group in fell.groupby("op_type", sort=True)}
    return bool(sentences), sentences, on_cpu


def _tracers(run: WholeRun) -> set[str]:
    sources = run.manifest.sources
    return {name for name in _TRACERS if name in sources and sources[name].state == "present"}


def _kernels(
    base: KernelTimes | None, variant: KernelTimes | None, same_tracer: bool
) -> tuple[bool | None, list[str]]:
    if base is None or variant is None:
        return None, ["Kernels cannot be compared: one of the two runs recorded none in its measured calls."]
    sentences = []
    changes = _changes(_per_call(base, "family"), _per_call(variant, "family"))
    if changes:
        sentences.append(f"Kernels per call by family: {changes}.")
    ours, theirs = set(base.kernels["name"]), set(variant.kernels["name"])
    if same_tracer and ours != theirs:
        sentences.append(f"{len(ours - theirs)} kernel functions went and {len(theirs - ours)} came.")
    before, after = (_per_call(times, "tensor_cores").get("True", 0) for times in (base, variant))
    if before != after:
        sentences.append(f"Kernels per call that are proven to use tensor cores: {before} → {after}.")
    if not same_tracer and not sentences:
        return None, ["Kernel functions cannot be compared: two different tools traced them and spell their names."]
    return bool(sentences), sentences


def _per_call(times: KernelTimes, column: str) -> dict[str, int]:
    """Kernels per call; a call that differs from the others does not change the rounded mean of all."""
    sums = times.kernels.groupby(times.kernels[column].astype(str))["count"].sum()
    return {str(key): round(count / times.calls) for key, count in sums.items()}


def _traced_pass(*runs: WholeRun) -> str:
    """The pass with the least attached that all runs made; where there is none, the first."""
    made = (name for name in TRACED if all(len(measured_calls(run, name)) for run in runs))
    return next(made, TRACED[0])


def host_copies(run: WholeRun, pass_name: str | None = None) -> dict[str, int] | None:
    """Bytes per measured call by direction and memory; None where the pass recorded no device work.

    pass_name: by default the one with the least attached.
    """
    pass_name = pass_name or _traced_pass(run)
    calls = measured_calls(run, pass_name)["call"]
    if not len(calls) or not _tracers(run):
        return None
    copies = run.table("copies", ["pass", "call", "kind", "source", "target", "bytes"])
    mine = copies[(copies["pass"] == pass_name) & copies["call"].isin(calls) & copies["kind"].isin(["h2d", "d2h"])]
    kinds = mine[["kind", "source", "target"]].astype(str)
    label = kinds["kind"] + " from " + kinds["source"] + " to " + kinds["target"]
    return {str(name): round(total / len(calls)) for name, total in mine.groupby(label)["bytes"].sum().items()}


def _copies(base: Mapping[str, int] | None, variant: Mapping[str, int] | None) -> tuple[bool | None, list[str]]:
    if base is None or variant is None:
        return None, ["Host copies cannot be compared: the two runs have no pass in common that recorded them."]
    changes = _changes(base, variant)
    return bool(changes), [f"Bytes per call copied: {changes}."] if changes else []


def _replay_count(run: WholeRun, pass_name: str) -> int | None:
    """Replays in the measured calls of a pass: recorded whole, or as kernels that name their place in a graph."""
    calls = measured_calls(run, pass_name)["call"]
    if not len(calls) or not _tracers(run):
        return None
    graphs = run.table("graphs", ["pass", "call"])
    whole = int(((graphs["pass"] == pass_name) & graphs["call"].isin(calls)).sum())
    kernels = run.table("kernels", ["pass", "call", "correlation", "graph_node"])
    inside = kernels[(kernels["pass"] == pass_name) & kernels["call"].isin(calls) & kernels["graph_node"].notna()]
    return whole or len(inside[["call", "correlation"]].drop_duplicates())


def _replays(base: int | None, variant: int | None) -> tuple[bool | None, list[str]]:
    if base is None or variant is None:
        return None, []
    changed = (base > 0) != (variant > 0)
    return changed, [f"CUDA graph replays in the traced calls: {base} → {variant}."] if changed else []


def _changes(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """`MatMul 48 → 0, MatMulInteger 0 → 48`; empty when nothing differs."""
    keys = sorted(before.keys() | after.keys())
    pairs = [(key, before.get(key, 0), after.get(key, 0)) for key in keys]
    return ", ".join(f"{key} {old:,} → {new:,}" for key, old, new in pairs if old != new)


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
