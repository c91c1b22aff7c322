"""Records the runs under tests/data/h200 on a GPU host: `python tests/gpu/record_runs.py FOLDER [NAME …]`.

Few calls are enough in the traced passes; each run folder is small and complete. A run that fails is reported and the
next one is made.
"""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path

from workbench import zoo
from workbench.capture.record import record
from workbench.config import RunConfig
from workbench.errors import WorkbenchError

BUDGET = {"seconds": 4, "max_calls": 1500, "activity_calls": 5, "nodes_calls": 3, "counters_seconds": 1.5}
FAMILIES = ("compute", "memory", "pcie", "launch")


def runs(models: Path):
    """name → (configuration without its budget, activity source)."""
    for family in FAMILIES:
        for binding in ("numpy", "device"):
            yield f"{family}_{binding}", {"model": f"{family}.onnx", "binding": binding}, "cupti"
    resnet = {"model": "resnet50.onnx"}
    encoder = {"model": "encoder.onnx", "binding": "device", "batch": 8, "dims": {"sequence": 128}}
    decoder = {"model": "decoder.onnx", "binding": "device", "batch": 1, "dims": {"past_sequence": 128}}
    yield "resnet50_b1_numpy", {**resnet, "binding": "numpy"}, "cupti"
    yield "resnet50_b1_device", {**resnet, "binding": "device"}, "cupti"
    yield "resnet50_b64_device", {**resnet, "binding": "device", "batch": 64}, "cupti"
    yield "encoder_device", encoder, "cupti"
    yield "decoder_device", decoder, "cupti"
    yield "launch_device_nsys", {"model": "launch.onnx", "binding": "device"}, "nsys"
    yield "resnet50_b1_device_nsys", {**resnet, "binding": "device"}, "nsys"
    yield "launch_device_graph", {"model": "launch.onnx", "binding": "device", "cuda_graph": True}, "cupti"
    yield "launch_device_graph_nsys", {"model": "launch.onnx", "binding": "device", "cuda_graph": True}, "nsys"
    yield "resnet50_b1_graph", {**resnet, "binding": "device", "cuda_graph": True}, "cupti"
    yield "pcie_pinned", {"model": "pcie.onnx", "binding": "pinned"}, "cupti"


def write_models(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*FAMILIES, "encoder", "decoder"):
        if not (folder / f"{name}.onnx").is_file():
            zoo.write(name, folder / f"{name}.onnx")
    (folder / "resnet50.onnx").write_bytes(zoo.resnet50_path().read_bytes())


def main(target: str, *wanted: str) -> int:
    import os

    out, models = Path(target).resolve(), Path(target).resolve() / "models"
    write_models(models)
    os.chdir(models)  # so that the manifest holds the model's bare name
    failures = 0
    for name, config, activity in runs(models):
        if wanted and name not in wanted:
            continue
        begun = time.monotonic()
        try:
            record(RunConfig(**config, budget=BUDGET), out / name, activity=activity, timeout_s=120)
            print(f"{name}: {time.monotonic() - begun:.1f} s", flush=True)
        except WorkbenchError as error:
            failures += 1
            print(f"{name}: FAILED {type(error).__name__}: {error}", flush=True)
        except Exception:
            failures += 1
            print(f"{name}: CRASHED", flush=True)
            traceback.print_exc(limit=-4)
    return failures


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
