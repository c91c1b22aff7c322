"""What is picked and what is found: nodes, kernels and other names, by a click, a text or a regular expression."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.analysis.window import NO_ROW, PassTrace
from workbench.diagnosis.findings import Finding
from workbench.widgets.timeline.marks import DEVICE_LANES, NODE_LANES, Lit
from workbench.widgets.timeline.widget import Picked

Matches = Callable[[str], bool]
_NODE_COLUMNS = ("name", "longest_node")


@dataclass(frozen=True)
class Choice:
    """What is picked: a node (row of `PassTrace.nodes`), or a kernel (row of its rules), or any other name."""

    node: int | None = None
    kernel: int | None = None
    name: str | None = None


def matcher(words: str, *, regular: bool) -> Matches:
    """Whether a name holds the words, in any case; or the regular expression. Raises `re.error` for a broken one."""
    if regular:
        pattern = re.compile(words, re.IGNORECASE)
        return lambda name: pattern.search(name) is not None
    wanted = words.casefold()
    return lambda name: wanted in name.casefold()


def matching_nodes(trace: PassTrace, matches: Matches) -> NDArray[np.bool_]:
    """Which nodes match by name or operator: bool[nodes]."""
    pairs = zip(trace.nodes["name"], trace.nodes["op_type"], strict=True)
    return np.array([matches(str(name)) or matches(str(op)) for name, op in pairs], np.bool_)


def matching_kernels(trace: PassTrace, matches: Matches) -> NDArray[np.bool_]:
    """Which kernels match by name or family: bool[rules]."""
    rules = trace.kernels.rules
    pairs = zip(rules["name"], rules["family"], strict=True)
    return np.array([matches(str(name)) or matches(str(family)) for name, family in pairs], np.bool_)


def lit_by(trace: PassTrace, choice: Choice) -> Lit:
    """What is marked for a choice."""
    nodes, kernels = np.zeros(len(trace.nodes), np.bool_), np.zeros(len(trace.kernels.rules), np.bool_)
    if choice.node is not None:
        nodes[choice.node] = True
    if choice.kernel is not None:
        kernels[choice.kernel] = True
    return Lit.of(trace, nodes, kernels, lambda name: name == choice.name)


def choice_of(trace: PassTrace, picked: Picked) -> Choice:
    """What a picked mark stands for: a node where the work leads to one, else the kernel, else its name."""
    if picked.lane.startswith(NODE_LANES):
        return node_named(trace, picked.name) or Choice(name=picked.name)
    if not picked.lane.startswith(DEVICE_LANES):
        return Choice(name=picked.name)
    pieces = trace.pieces
    if picked.single:
        mine = (pieces.starts == picked.start_ns) & (pieces.ends == picked.end_ns) & (pieces.node != NO_ROW)
        if mine.any():
            return Choice(node=int(pieces.node[np.flatnonzero(mine)[0]]))
    else:
        busiest = trace.node_table(picked.start_ns, picked.end_ns)
        if len(busiest) and busiest["time_ns"].iloc[0]:
            return Choice(node=int(busiest["node"].iloc[0]))
    kernel = np.flatnonzero((trace.kernels.rules["name"] == picked.name).to_numpy())
    return Choice(kernel=int(kernel[0])) if len(kernel) else Choice(name=picked.name)


def kernel_of(trace: PassTrace, node: int) -> int | None:
    """The kernel that takes most of a node's time; None where no kernel leads to it."""
    kernels = trace.kernels
    mine = np.flatnonzero(kernels.node == node)
    if not len(mine):
        return None
    own = np.bincount(kernels.name[mine], kernels.ends[mine] - kernels.starts[mine])
    return int(own.argmax())


def place_of(trace: PassTrace, finding: Finding, after_ns: int) -> tuple[Choice, int, int] | None:
    """The first node or call that a finding's evidence names: what to mark, and its first moment after `after_ns`.

    None where the evidence names neither.
    """
    if not len(finding.evidence):
        return None
    first = finding.evidence.iloc[0]
    name = next((first[column] for column in _NODE_COLUMNS if column in finding.evidence), None)
    choice = None if name is None or pd.isna(name) else node_named(trace, str(name))
    if choice is not None:
        return (choice, *_span_of(trace, choice, after_ns))
    if "carries" in finding.evidence and len(trace.copies.starts):
        at = min(int(np.searchsorted(trace.copies.starts, after_ns)), len(trace.copies.starts) - 1)
        return Choice(), int(trace.copies.starts[at]), int(trace.copies.ends[at])
    return None


def node_named(trace: PassTrace, name: str) -> Choice | None:
    """The first node with this name; None where there is none."""
    rows = np.flatnonzero((trace.nodes["name"].astype(object) == name).to_numpy())
    return Choice(node=int(rows[0])) if len(rows) else None


def _span_of(trace: PassTrace, choice: Choice, after_ns: int) -> tuple[int, int]:
    """The first work of a node after a moment, or its first execution where it had no work."""
    pieces = trace.pieces if (trace.pieces.node == choice.node).any() else trace.executions
    rows = np.flatnonzero(pieces.node == choice.node)
    later = rows[pieces.starts[rows] >= after_ns]
    at = (later if len(later) else rows)[0]
    return int(pieces.starts[at]), int(pieces.ends[at])
