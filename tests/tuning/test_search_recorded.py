"""The search on ResNet-50 as recorded on an H200, begun where the diagnosis of its recorded run says."""

import pandas as pd
import pytest

from workbench.api.base import purpose_of
from workbench.diagnosis.levers import lever, ranked
from workbench.tuning.dimensions import dimensions_of, suggestions
from workbench.tuning.objective import Objective
from workbench.tuning.replay import replay
from workbench.tuning.search import search
from workbench.tuning.space import Space
from workbench.tuning.trials import column_of

DIMENSION_OF = {"batch": "batch", "callers": "concurrency", "binding": "binding", "precision": "conversions"}
CHOICE_OF = {
    "batch": {1: "base", **{size: f"batch-x{size}" for size in (4, 8, 16, 32, 64)}},
    "callers": {1: "base", 2: "concurrency-2", 4: "concurrency-4"},
    "binding": {"numpy": "base", "device": "io-binding-device", "graph": "cuda-graph"},
    "precision": {"tf32": "base", "float16": "float16"},
}
AT_LEAST = 0.95


@pytest.fixture(scope="module")
def ours(situation):
    """The levers whose combinations were recorded, in the order of the diagnosis, and the space they span."""
    names = [name for choices in CHOICE_OF.values() for name in choices.values() if name != "base"]
    base = situation("resnet50_b1_numpy")
    found = ranked(base, among=[lever(name) for name in names])
    assert {each.lever.name for each in found} == set(names)
    return found, Space(base.config, dimensions_of([each.lever for each in found], base))


@pytest.fixture(scope="module")
def grid(h200_experiments):
    """Every cell, with the names that the space has for them."""
    rows = pd.read_csv(h200_experiments / "grid" / "grid.csv")
    metrics = {name: column_of(name) for name in rows.columns if name.startswith("latency") or name == "throughput"}
    named = {DIMENSION_OF[name]: rows[name].map(names) for name, names in CHOICE_OF.items()}
    return rows.drop(columns=list(CHOICE_OF)).rename(columns={**metrics, "memory": "peak_device_bytes"}).assign(**named)


@pytest.mark.parametrize("objective", ["throughput", "latency", "latency:p99"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_a_tenth_of_the_cells_finds_the_best(ours, grid, tmp_path, objective, seed):
    ranks, space = ours
    assert space.size() == len(grid) == 108
    goal = Objective.parse(objective)
    serving = [each for each in ranks if purpose_of(goal.metric) in each.lever.serves]
    found = search(
        space, replay(grid, space), goal, folder=tmp_path, max_trials=len(grid) // 10, rounds=1, seed=seed,
        first=suggestions(serving, space, 6),
    )  # fmt: skip
    cells = grid[column_of(goal.metric.name)].dropna()
    value = found.best.metrics[goal.metric.name]
    reached = cells.min() / value if goal.metric.smaller_is_better else value / cells.max()
    assert len([trial for trial in found.trials if trial.state != "impossible"]) <= len(grid) // 10
    assert reached >= AT_LEAST
