"""One pass: a worker in a process of its own, NVML beside it, and what the two gave."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from workbench.capture.nsys import nsys_command, read_report
from workbench.capture.nvml import DeviceSampler
from workbench.capture.prepare import Prepared
from workbench.capture.process import Outcome, run_worker
from workbench.capture.protocol import WorkerSpec
from workbench.capture.resolve import Device
from workbench.capture.worker import write_device_tables
from workbench.config import RunConfig
from workbench.runs.manifest import PassInfo, SourceInfo
from workbench.runs.writer import write_table

Progress = Callable[[str, float], None]
"""Called with the name of what is going on and how much of it is done, 0..1."""

MOST_WARMUP_CALLS: Final = 10  # in the traced passes, where each call costs room for its records
FEWEST_WARMUP_CALLS: Final = 3  # ONNX Runtime allocates in the first call and may capture a graph in the second


@dataclass(frozen=True)
class Pass:
    """What a pass left: the worker's events, its tables in `folder`, and how the device's samplers fared."""

    folder: Path
    outcome: Outcome
    info: PassInfo
    sources: dict[str, SourceInfo] = field(default_factory=dict)


@dataclass(frozen=True)
class PassRunner:
    """Runs passes of one configuration on one device. timeout_s holds for each of them."""

    config: RunConfig
    prepared: Prepared
    device: Device
    timeout_s: float | None
    progress: Progress = lambda name, share: None

    def run(
        self,
        name: str,
        folder: Path,
        *,
        source: str = "none",
        calls: int = 0,
        warmup_calls: int = 0,
        config: RunConfig | None = None,
        graph_nodes: bool = False,
        keep_outputs: bool = False,
    ) -> Pass:
        """Run one pass into `folder`; raises what the worker raises.

        source: `cupti`, `nsys` or `none`. calls, warmup_calls: for the passes that do not find them out themselves.
        config: in the place of the runner's own.
        """
        begun = time.monotonic_ns()
        chosen = config or self.config
        if self.prepared.optimized:  # the file holds what the optimiser made
            chosen = chosen.changed(session=chosen.session.changed(graph_optimization_level="disable"))
        spec = WorkerSpec.model_validate(
            {
                "config": chosen,
                "pass_name": name,
                "model": self.prepared.model_path,
                "feeds": self.prepared.feeds_path,
                "device": self.device,
                "trace_here": source == "cupti",
                "graph_nodes": graph_nodes,
                "warmup_calls": min(max(warmup_calls, FEWEST_WARMUP_CALLS), MOST_WARMUP_CALLS),
                "calls": calls,
                "later_feeds": self.prepared.later_feeds if name in ("latency", "activity") else [],
                "keep_outputs": keep_outputs,
            }
        )
        report = folder / "report"
        wrapper = nsys_command(report, graph_nodes=graph_nodes) if source == "nsys" else ()
        self.progress(name, 0.0)

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "progress":
                self.progress(name, event["share"])

        sources = {}
        device_memory: int | None = None
        if self.device == "cuda":
            with DeviceSampler(self.config.cuda.device_id, name, gpm=name == "counters") as sampler:
                outcome = run_worker(spec, folder, timeout_s=self.timeout_s, on_event=on_event, wrapper=wrapper)
            samples = sampler.samples()
            write_table(folder, "samples", samples)
            device_memory = _peak_device_bytes(samples)
            sources["nvml"] = sampler.nvml_source
            if name == "counters":
                write_table(folder, "counters", sampler.counters())
                sources["gpm"] = sampler.gpm_source
        else:
            outcome = run_worker(spec, folder, timeout_s=self.timeout_s, on_event=on_event)
        made = pq.read_table(folder / "latency.parquet")
        if source == "nsys":
            starts = made["start_ns"].to_numpy()
            tables = read_report(report, outcome.process)
            write_device_tables(folder, tables, name, starts, starts + made["duration_ns"].to_numpy())
        measured = made.filter(pc.equal(made["phase"], "measured"))["duration_ns"].to_numpy()
        info = PassInfo(
            name=name,
            state="complete",
            calls=len(made),
            measured_calls=len(measured),
            median_ns=float(np.median(measured)) if len(measured) else None,
            wall_ns=time.monotonic_ns() - begun,
            peak_host_bytes=outcome.events.get("memory", {}).get("peak_host_bytes"),
            peak_device_bytes=device_memory,
        )
        self.progress(name, 1.0)
        return Pass(folder, outcome, info, sources)


def _peak_device_bytes(samples: pa.Table) -> int | None:
    """Most device memory in use above the first sample, which was taken before the worker made its context."""
    used = samples.filter(pc.equal(samples["metric"], "memory_used_bytes"))["value"].to_numpy()
    return int(used.max() - used[0]) if len(used) else None
