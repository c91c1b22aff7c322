"""An executor that measures nothing: a function gives the blocks, and one recorded run stands for every arm."""

import json
import shutil
from concurrent.futures import Future

import numpy as np

from workbench.capture.feeds import save_feeds
from workbench.capture.worker import OUTPUTS
from workbench.tuning.blocks import Block
from workbench.tuning.measure import measure_round, record_block


def timed(job, median_ns, **others):
    """A block of 100 calls that all took the same."""
    durations = np.full(100, round(median_ns))
    return Block(job.arm, job.round, job.position, durations, durations, calls_per_s=1e9 / median_ns, **others)


def failed(job, sentence="8 GB did not fit."):
    return Block(job.arm, job.round, job.position, error=("OutOfMemoryError", sentence))


class FakeExecutor:
    """block_of: job → block. outputs_of: job → outputs by name. manifest_of: job → what its manifest says otherwise.

    fails: arm → block of a recording that failed. `rounds` are the jobs of each round, `recorded` the arms.
    """

    def __init__(self, block_of, template=None, outputs_of=None, manifest_of=lambda job: {}, fails=None):
        self.block_of, self.template, self.manifest_of = block_of, template, manifest_of
        self.outputs_of = outputs_of or (lambda job: {"y": np.ones((1, 8), np.float32)})
        self.fails = fails or {}
        self.rounds, self.recorded = [], []

    def submit(self, function, /, *args, **kwargs):
        future = Future()
        future.set_result({measure_round: self._round, record_block: self._record}[function](*args, **kwargs))
        return future

    def _round(self, jobs):
        self.rounds.append(jobs)
        return [self.block_of(job) for job in jobs]

    def _record(self, job, target, *, passes, activity):
        self.recorded.append(job.arm)
        if job.arm in self.fails:
            return self.fails[job.arm](job)
        shutil.copytree(self.template, target)
        manifest = json.loads((target / "manifest.json").read_text())
        manifest["config"] = job.config.model_dump(mode="json", exclude_unset=True)
        (target / "manifest.json").write_text(json.dumps({**manifest, **self.manifest_of(job)}))
        save_feeds(target / OUTPUTS, self.outputs_of(job))
        return Block(job.arm, job.round, job.position)
