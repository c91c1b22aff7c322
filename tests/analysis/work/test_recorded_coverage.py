"""How much of the node time is counted, recomputed from the raw tables of every recorded run."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.analysis.work import count_work, coverage
from workbench.runs.reader import RunFolder

DATA = Path(__file__).parents[2] / "data"
RUNS = sorted(file.parent.relative_to(DATA).as_posix() for file in DATA.glob("h200*/**/manifest.json"))


@pytest.mark.parametrize("name", RUNS)
def test_all_but_a_hundredth_of_the_node_time_is_counted(name: str) -> None:
    run = RunFolder(DATA / name)
    nodes = run.table("nodes", ["name", "op_type", "duration_ns", "input_shapes", "output_shapes"])
    if nodes.empty:
        pytest.skip("the run has no pass that records nodes")
    work = count_work(nodes, run.graph)
    uncounted = sorted(set(nodes.loc[work["how"] == "unknown", "op_type"]))
    assert coverage(work, nodes) >= 0.99, uncounted
    # on a GPU `duration_ns` is the time to enqueue: what a node takes there may lie in any of its executions
    assert (work["how"] != "unknown").mean() >= 0.99, uncounted


def test_there_are_recorded_runs_of_every_family_and_graph() -> None:
    seen = " ".join(RUNS)
    assert all(f"{name}" in seen for name in ("compute", "memory", "pcie", "launch", "resnet50", "encoder", "decoder"))
