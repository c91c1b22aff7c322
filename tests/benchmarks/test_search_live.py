"""How close a search that measures a tenth of the cells comes to the best of all of them, live on this CPU."""

import numpy as np

from workbench import zoo
from workbench.config import Budget, RunConfig
from workbench.tuning.blocks import BASE
from workbench.tuning.executors import LocalExecutor
from workbench.tuning.measure import Job, measure_block
from workbench.tuning.metric import throughput
from workbench.tuning.objective import Objective
from workbench.tuning.rounds import Arm, Settings, measure_interleaved
from workbench.tuning.search import search
from workbench.tuning.space import Choice, Space, key_of

BLOCK = Budget(seconds=0.5, min_seconds=0.1, min_calls=20, relative_ci=0.02)
BATCHES, THREADS, LEVELS = (1, 2, 4, 8, 16, 32), (1, 2), ("all", "basic", "disable")
AT_LEAST = 0.95


def test_a_tenth_of_the_cells_finds_a_configuration_as_good_as_the_best(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    model = zoo.write("encoder", tmp_path / "encoder.onnx", layers=2, hidden=128, heads=4, feed_forward=512)
    base = RunConfig(model=str(model), provider="cpu", dims={"sequence": 32}, batch=1, intra_op_threads=1, budget=BLOCK)
    space = Space(
        base,
        {
            "batch": [Choice(str(size), {"batch": size}) for size in BATCHES],
            "threads": [Choice(str(count), {"intra_op_threads": count}) for count in THREADS],
            "level": [Choice(name, {"session": {"graph_optimization_level": name}}) for name in LEVELS],
            "conversion": [Choice("none", {}), Choice("int8", {"conversions": ["int8_dynamic"]})],
        },
    )
    metric = throughput()
    with LocalExecutor("cpu") as executor:

        def evaluate(config, folder, index):
            job = Job(folder.name, config, index, index, folder / "blocks", 60)
            return executor.submit(measure_block, job).result()

        most = space.size() // 10
        found = search(
            space, evaluate, Objective(metric), folder=tmp_path / "search", max_trials=most, rounds=2, seed=0
        )
        assert len([trial for trial in found.trials if trial.state != "impossible"]) <= most
        cells = {}
        for assignment in space.grid():
            config = space.config_of(assignment)
            cells[key_of(config)] = (metric.of(evaluate(config, tmp_path / f"cell-{len(cells)}", 0)), config)
        best = max(cells.values(), key=lambda cell: cell[0])[1]
        if key_of(best) == key_of(found.best.config):
            ratio = 1.0
        else:  # one block of each cell says who may be the best, several of both say by how much
            again = measure_interleaved(
                [Arm(BASE, best), Arm("found", found.best.config)], metric, tmp_path / "again", executor,
                Settings(rounds=5, block=BLOCK),
            )  # fmt: skip
            ratio = float(np.median(metric.values(again.of("found"))) / np.median(metric.values(again.of(BASE))))
    print(
        f"\n{len(found.trials)} of {space.size()} cells measured: {dict(found.best.assignment)} reaches {ratio:.1%} of "
        "the throughput of the best cell"
    )
    assert ratio >= AT_LEAST

