"""Records experiments on a GPU host, for tests/data/h200-experiments: `python tests/gpu/record_experiments.py FOLDER
SECTION …`.

Each section is a folder with `blocks.parquet` (every call of every process) and what its name says; one that fails is
reported and the next is made. `--cpu` makes a short one on the CPU, to try the script.
"""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from itertools import product
from pathlib import Path

import pandas as pd

from workbench import zoo
from workbench.api.sweeping import sweep as measure_sweep
from workbench.api.tuning import experiment
from workbench.config import Budget, RunConfig
from workbench.errors import ConfigError, WorkbenchError
from workbench.tuning.blocks import BASE
from workbench.tuning.executors import LocalExecutor
from workbench.tuning.measure import Job, measure_block
from workbench.tuning.metric import latency, memory, throughput
from workbench.tuning.rounds import Arm, Settings, measure_interleaved
from workbench.tuning.store import save_blocks

CPU = "--cpu" in sys.argv
DEVICE = "cpu" if CPU else "cuda"
BLOCK = Budget(seconds=1.0, min_seconds=0.2, min_calls=20, max_calls=1500, relative_ci=0.01)


def models(folder: Path) -> dict[str, Path]:
    """The models by name; those of the zoo small on a CPU."""
    sizes = {"compute": {"n": 64}, "memory": {"elements": 1 << 16}, "pcie": {"elements": 1 << 16}} if CPU else {}
    made = {}
    for name in ("compute", "memory", "pcie", "launch", "encoder", "decoder"):
        path = folder / f"{name}.onnx"
        made[name] = path if path.exists() else zoo.write(name, path, **sizes.get(name, {}))
    made["resnet50"] = folder / "resnet50.onnx"
    if not made["resnet50"].exists():
        zoo.write_resnet50(made["resnet50"])
    return made


def false_alarms(out: Path, made: dict[str, Path]) -> None:
    """Experiments of a base against itself, six rounds each."""
    decoder = {"batch": 1, "dims": {"past_sequence": 128}}
    kinds = {"launch": ({}, 4), "decoder": (decoder, 4), "resnet50": ({}, 4)}
    for name, (options, count) in kinds.items():
        config = RunConfig(model=str(made[name]), provider=DEVICE, binding="device", **options)
        for number in range(1 if CPU else count):
            target = out / f"{name}-{number}"
            target.mkdir(parents=True)
            with LocalExecutor(DEVICE) as executor:
                found = measure_interleaved(
                    [Arm(BASE, config), Arm("same", config)], latency(), target / "blocks", executor,
                    Settings(rounds=6, block=BLOCK, seed=number),
                )  # fmt: skip
            save_blocks(target, found.blocks)
            shutil.rmtree(target / "blocks")


def grid(out: Path, made: dict[str, Path]) -> None:
    """Every cell of batch × callers × binding × precision of ResNet-50, one process each."""
    budget = BLOCK.changed(seconds=3.0, min_calls=100)  # a P99 takes 100 calls
    batches = (1, 2) if CPU else (1, 4, 8, 16, 32, 64)
    bindings = {"numpy": {}, "device": {"binding": "device"}, "graph": {"binding": "device", "cuda_graph": True}}
    rows, blocks = [], []
    with LocalExecutor(DEVICE) as executor:
        for batch, callers, binding, precision in product(batches, (1, 2, 4), bindings, ("tf32", "float16")):
            row = {"batch": batch, "callers": callers, "binding": binding, "precision": precision}
            try:
                config = RunConfig(
                    model=str(made["resnet50"]), provider=DEVICE, batch=batch, concurrency=callers, budget=budget,
                    cuda={"cudnn_conv_algo_search": "HEURISTIC"},
                    conversions=["float16"] if precision == "float16" else [],
                    **bindings[binding],
                )  # fmt: skip
            except ConfigError as error:
                rows.append({**row, "error": f"ConfigError: {error}"})
                continue
            job = Job(f"cell-{len(blocks)}", config, 0, len(blocks), out / "blocks" / f"{batch}-{precision}", 120)
            block = executor.submit(measure_block, job).result()
            blocks.append(block)
            metrics = {metric.name: metric.of(block) for metric in (latency(50), latency(99), throughput(), memory())}
            rows.append({**row, **metrics, "error": ": ".join(block.error) if block.error else None})
            pd.DataFrame(rows).to_csv(out / "grid.csv", index=False)  # at once: the machine may be taken away
    save_blocks(out, blocks)
    shutil.rmtree(out / "blocks")


SHAPES = [{"gpu_0/data_0": [batch, 3, 224, 224]} for batch in (2, 3, 4, 6, 8, 12, 16)]
DECODER = {"binding": "device", "batch": 1, "dims": {"past_sequence": 128}}
CASES = {
    # name: (model, options of the base, levers, metric)
    "launch": ("launch", {"binding": "device"}, ["cuda-graph"], "latency"),
    "decoder": ("decoder", DECODER, ["cuda-graph"], "latency"),
    "compute": ("compute", {}, ["io-binding-device", "io-binding-pinned"], "latency"),
    "memory": ("memory", {}, ["io-binding-device", "io-binding-pinned"], "latency"),
    "pcie": ("pcie", {}, ["io-binding-device", "io-binding-pinned"], "latency"),
    "resnet50-b1": (
        "resnet50", {"binding": "device", "batch": 1},
        ["cuda-graph", "tf32-off", "float16", "prefer-nhwc", "fuse-conv-bias"], "latency",
    ),
    "resnet50-b32": (
        "resnet50", {"binding": "device", "batch": 32},
        ["tf32-off", "float16", "bfloat16", "prefer-nhwc", "fuse-conv-bias", "int8-static", "conv-search-heuristic",
         "conv-search-default"], "latency",
    ),
    "encoder": (
        "encoder", {"binding": "device", "batch": 8, "dims": {"sequence": 128}},
        ["tf32-off", "float16", "bfloat16", "int8-dynamic", "cuda-graph"], "latency",
    ),
    "decoder-weights": (
        "decoder", DECODER, ["float16", "int8-weights", "int4-weights"], "latency",
    ),
    "streams": (
        "resnet50", {"batch": 8},
        ["streams-2", "streams-3", "streams-4", "concurrency-2", "concurrency-4", "sessions-2"], "throughput",
    ),
    "cold": (
        "resnet50", {"binding": "device", "batch": 1, "later_shapes": SHAPES},
        ["conv-search-heuristic", "conv-search-default", "optimized-model"], "cold-start",
    ),
}  # fmt: skip


def levers(out: Path, made: dict[str, Path]) -> None:
    """Every case as a user would run it, with few calls in the traced passes."""
    only = [word.removeprefix("case=") for word in sys.argv if word.startswith("case=")]
    traced = Budget(seconds=2.0, max_calls=1500, activity_calls=5, nodes_calls=3, counters_seconds=1.0)
    for name, (model, options, names, metric) in CASES.items():
        if only and name not in only:
            continue
        begun = time.monotonic()
        try:
            config = RunConfig(model=str(made[model]), provider=DEVICE, budget=traced, **options)
            rounds = 3 if metric == "cold-start" else 5  # eight algorithm searches take a while
            found = experiment(config, names, metric=metric, rounds=rounds, out=out / name, timeout_s=200)
            print(found.summary(), flush=True)
        except WorkbenchError as error:
            print(f"{name}: FAILED {type(error).__name__}: {error}", flush=True)
        except Exception:
            print(f"{name}: CRASHED", flush=True)
            traceback.print_exc(limit=-6)
        print(f"{name}: {time.monotonic() - begun:.1f} s", flush=True)


def sweep(out: Path, made: dict[str, Path]) -> None:
    """Batch × callers of ResNet-50 with the class of each cell."""
    base = RunConfig(
        model=str(made["resnet50"]), provider=DEVICE, binding="device", cuda={"cudnn_conv_algo_search": "HEURISTIC"},
        budget={"activity_calls": 12, "nodes_calls": 3},
    )  # fmt: skip
    found = measure_sweep(base, (1, 2) if CPU else (1, 8, 64), (1, 2) if CPU else (1, 2, 4), out=out / "resnet50")
    print(found.summary("p99<10ms"), flush=True)


SECTIONS = {"levers": levers, "false_alarms": false_alarms, "grid": grid, "sweep": sweep}


def main(target: str, *wanted: str) -> int:
    root = Path(target).resolve()
    (root / "models").mkdir(parents=True, exist_ok=True)
    made = models(root / "models")
    failures = 0
    for name, section in SECTIONS.items():
        if wanted and name not in wanted:
            continue
        begun = time.monotonic()
        try:
            out = root / name
            out.mkdir(exist_ok=True)
            section(out, made)
            print(f"{name}: {time.monotonic() - begun:.1f} s", flush=True)
        except Exception:
            failures += 1
            print(f"{name}: FAILED after {time.monotonic() - begun:.1f} s", flush=True)
            traceback.print_exc(limit=-6)
    return failures


if __name__ == "__main__":
    sys.exit(main(*(word for word in sys.argv[1:] if word != "--cpu" and "=" not in word)))
