"""The kernels of a run with the nodes that launched them: what the rules about kernels start from."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from workbench.analysis.kernel_names import kernel_rules
from workbench.analysis.node_times import NodeTimes

_NODE_KEY: Final = ["node_index", "name", "op_type"]
_OF_NODE: Final = ["name", "op_type", "dtype"]
_COLUMNS: Final = (
    "kernel", "node", "limit", "kernels", "time_ns", "family", "tensor_cores", *_OF_NODE,
)  # fmt: skip


def node_kernels(found: NodeTimes | None) -> pd.DataFrame:
    """One row per kernel name, node and limit, most time first; empty where no device work was recorded.

    Columns: `kernel`; `node`, row in `found.nodes`, -1 for none; `limit`; `kernels`, how many a call, and `time_ns`,
    their own time a call; `family` and `tensor_cores` by the kernel's name (`workbench.analysis.kernel_names`); `name`,
    `op_type` and `dtype` of the node, null for none.
    """
    if found is None or not len(found.device):
        return pd.DataFrame(columns=_COLUMNS)
    recorded = found.device[found.device["table"] == "kernels"]
    numbered = found.nodes[_NODE_KEY].assign(node=np.arange(len(found.nodes)))
    owner = found.executions[_NODE_KEY].merge(numbered, how="left", on=_NODE_KEY)["node"].to_numpy(np.int64)
    work = pd.DataFrame(
        {
            "kernel": recorded["name"].astype(object).fillna("").to_numpy(),
            "node": np.append(owner, -1)[recorded["node"].to_numpy()],  # no execution is -1, the last
            "limit": recorded["limit"].astype(object).to_numpy(),
            "own_ns": recorded["own_ns"].to_numpy(),
        }
    )
    grouped = work.groupby(["kernel", "node", "limit"], dropna=False, sort=False)["own_ns"]
    table = (grouped.agg(kernels="size", time_ns="sum") / found.calls).reset_index()
    names = table["kernel"].unique()
    table = table.merge(kernel_rules(list(names)).rename(columns={"name": "kernel"}), on="kernel")
    nodes = found.nodes[_OF_NODE].astype(object).reindex(table["node"]).reset_index(drop=True)
    return table.join(nodes)[[*_COLUMNS]].sort_values("time_ns", ascending=False, ignore_index=True)
