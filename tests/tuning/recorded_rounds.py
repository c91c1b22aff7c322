"""An executor that answers from the rounds of the labelled set, recorded on an H200."""

import json
import shutil
from pathlib import Path

import numpy as np

from tests.tuning.fake_executor import FakeExecutor, timed
from workbench.capture.model import sha256
from workbench.runs.reader import RunFolder
from workbench.tuning.blocks import BASE
from workbench.tuning.store import load_blocks
from workbench.validation.ratios import medians_ns

CUDA = "CUDAExecutionProvider"
LABELLED = Path(__file__).parents[1] / "data" / "h200-labelled"


def as_if_made_with(model, cell, target, keep=None, /, **changed):
    """A copy of a labelled run whose model is this file. keep: files to copy; changed: laid over its manifest."""
    ignore = None if keep is None else lambda _, names: set(names) - set(keep)
    shutil.copytree(LABELLED / "runs" / cell, target, ignore=ignore)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["config"]["model"] = str(model)
    manifest["model"]["sha256"] = sha256(model)
    (target / "manifest.json").write_text(json.dumps({**manifest, **changed}))
    return target


def arm_of(config):
    """The arm of the labelled set that a configuration is; all that is more than a binding was timed on the device."""
    assert config.binding == "device" or not (config.cuda_graph or config.conversions or config.cuda.use_tf32 is False)
    if config.cuda_graph:
        return "graph"
    if config.cuda.use_tf32 is False:
        return "tf32-off"
    return config.conversions[0].replace("_", "-") if config.conversions else config.binding


class RecordedRounds(FakeExecutor):
    """Blocks of a group: the recorded median of each arm, a thousandth apart between rounds.

    altered: lever → its time over that of the base, in the place of what was recorded. in_force: whether a recording
    reads its options back as asked.
    """

    def __init__(self, group, altered=(), in_force=True, **others):
        self.medians_ns = {
            arm: float(np.median(list(by_round.values())))
            for arm, by_round in medians_ns(load_blocks(LABELLED / "rounds" / group)).items()
        }
        self.runs = {path.name.removeprefix(f"{group}-"): path for path in (LABELLED / "runs").glob(f"{group}-*")}
        self.altered, self.in_force = dict(altered), in_force
        self.apart = np.random.default_rng(0).normal(0, 0.001, 1000)
        super().__init__(self._block, manifest_of=self._manifest, **others)

    def _block(self, job):
        base = next(each for each in self.rounds[-1] if each.arm == BASE)
        times = self.altered.get(job.arm)
        median_ns = (
            self.medians_ns[arm_of(job.config)] if times is None else times * self.medians_ns[arm_of(base.config)]
        )
        return timed(job, median_ns * np.exp(self.apart[job.position]))

    def _manifest(self, job):
        read_back = RunFolder(self.template).manifest.provider_options
        asked = job.config.cuda.to_provider_options() | {"enable_cuda_graph": str(int(job.config.cuda_graph))}
        return {"provider_options": {**read_back, CUDA: {**read_back[CUDA], **(asked if self.in_force else {})}}}

    def _record(self, job, target, **how):
        self.template = self.runs.get(job.config.binding, next(iter(self.runs.values())))
        return super()._record(job, target, **how)
