"""One sentence for what a tool raised, with the node that it stumbled on where its words or its frames tell."""

from __future__ import annotations

import errno
import re
import traceback
from typing import Final

from onnx import NodeProto

from workbench.errors import DiskFullError, ModelError, OutOfMemoryError, WorkbenchError

_MOST_LETTERS: Final = 200
# how ONNX Runtime and the onnx package name a node in their errors
_NODE: Final = re.compile(
    r"node with name '(?P<a>[^']+)'|in node \((?P<b>[^)]+)\)|Node \((?P<c>[^)]+)\) Op|node name: (?P<d>[^)\s]+)"
)
_OPERATOR: Final = re.compile(
    r"implementation for (?P<a>\w+)|Op(?:type)? \((?P<b>\w+)\)|of operator \((?P<c>\w+)\)|op_type: ?(?P<d>\w+)"
    r"|Provider type for (?P<e>\w+) node"
)
# how ONNX Runtime says that no provider has a kernel for the types that a node was given
_NO_KERNEL: Final = re.compile(r"Provider type for \w+ node .* is not set|could not find an implementation", re.I)
# the status, the file that was loaded, and the place in the source
_NOISE: Final = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |Load model from \S+ failed: ?|/onnxruntime_src/\S+:\d+ .*?\) (?:const )?"
)


def failure(conversion: str, error: BaseException) -> WorkbenchError:
    """The error to report for what the tool of `conversion` raised; a `WorkbenchError` stays as it is."""
    if isinstance(error, WorkbenchError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemoryError(f"Conversion {conversion!r} needs more memory than this host has: leave it out.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError("The disk of the cache is full: free some space, or set WORKBENCH_CACHE to another disk.")
    text = _NOISE.sub("", " ".join(str(error).split()))
    node = _first(_NODE, text)
    op_type = _first(_OPERATOR, text)
    if not node and (held := _node_in_frames(error)):
        node, op_type = held.name or held.output[0], held.op_type
    place = f" at node {node!r}" if node else ""
    place += f" ({op_type})" if op_type else ""
    cause = "no provider has a kernel of it for these types: " if _NO_KERNEL.search(text) else ""
    cause += text[:_MOST_LETTERS].rstrip(". ") or type(error).__name__
    return ModelError(f"The model cannot be converted to {conversion!r}{place}, because {cause}: leave it out.")


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return next(filter(None, found.groups()), "") if found else ""


def _node_in_frames(error: BaseException) -> NodeProto | None:
    """The node that the innermost function of a Python tool was at work on: most raise without naming it."""
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in frame.f_locals.values():
            if isinstance(value, NodeProto) and value.output:
                return value
    return None
