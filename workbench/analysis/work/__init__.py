"""The work of each executed node: flops by unit and bytes moved, on the optimised graph with run-time shapes.

`rule` states the conventions; `matrix`, `attention`, `elementwise`, `normalise` and `movement` hold the formulas, a
registry from operator type to rule each; `shapes` joins profile rows with the graph.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
import pandas as pd

from workbench.analysis.work import attention, elementwise, matrix, movement, normalise
from workbench.analysis.work.rule import UNKNOWN, Rule, Work
from workbench.analysis.work.shapes import GraphNodes, NodeShapes, parse_shapes

__all__ = ["AMOUNTS", "count_work", "coverage"]

AMOUNTS: Final = ("tensor_flops", "fp_flops", "special_flops", "read_bytes", "written_bytes")

_RULES: Final[dict[str, Rule]] = {
    **matrix.RULES,
    **attention.RULES,
    **elementwise.RULES,
    **normalise.RULES,
    **movement.RULES,
}

_CONTROL_FLOW: Final = ("If", "Loop", "Scan")

_KEY: Final = ["name", "op_type", "input_shapes", "output_shapes"]


def count_work(nodes: pd.DataFrame, graph: onnx.ModelProto | None) -> pd.DataFrame:
    """Work of each row of table `nodes`, on the same index.

    `graph` is ORT's optimised graph; weights may be replaced by typed graph inputs. Without it, or where a row
    cannot be told from others of its name, the row's own shapes are used and rules that need attributes give up.

    Columns: `AMOUNTS` (float64, exact up to 2⁵³, NaN where unknown), `dtype` (NumPy-style name of the type that
    decides the unit, missing where unknown) and `how`: `formula:<rule>`, `data movement`, `view` (zero bytes) or
    `unknown`. Each distinct node is counted once. Raises `RunFolderError` on damaged shapes.
    """
    code = nodes.groupby(_KEY, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    _, first = np.unique(code, return_index=True)
    known = GraphNodes(graph)
    distinct = nodes[_KEY].iloc[first].astype(object)
    distinct = distinct.where(distinct.notna(), None)
    works = [
        _count(known.bind(name or "", op_type or "", parse_shapes(inputs), parse_shapes(outputs)))
        for name, op_type, inputs, outputs in distinct.itertuples(index=False)
    ]
    table = pd.DataFrame(works, columns=list(Work._fields))
    table = table.astype(dict.fromkeys(AMOUNTS, np.float64))
    result = table.take(code)
    result.index = nodes.index
    return result


def coverage(work: pd.DataFrame, nodes: pd.DataFrame) -> float:
    """Share of the nodes' `duration_ns` that is counted, 0 to 1; NaN when there is no duration.

    `work` is `count_work(nodes, …)`. Control-flow nodes are left out: their bodies' nodes have rows of their own.
    """
    duration_ns = nodes["duration_ns"].where(~nodes["op_type"].isin(_CONTROL_FLOW), 0)
    total_ns = duration_ns.sum()
    return float(duration_ns[work["how"] != "unknown"].sum() / total_ns) if total_ns else float("nan")


def _count(node: NodeShapes) -> Work:
    rule = _RULES.get(node.op_type)
    if rule is None:
        return UNKNOWN
    try:
        return rule(node)
    except (LookupError, ValueError, TypeError, AttributeError, ZeroDivisionError):
        # shapes or attributes that the operator cannot have had
        return UNKNOWN
