"""Recording the set: each cell and each round once, whatever was interrupted on the way."""

import shutil
from concurrent.futures import Future

import numpy as np
import pytest

from workbench.capture.record import record
from workbench.errors import OutOfMemoryError
from workbench.tuning.blocks import Block
from workbench.tuning.measure import measure_round
from workbench.tuning.store import load_blocks
from workbench.validation.cells import groups
from workbench.validation.labelled import LabelledSet
from workbench.validation.record import record_set

GROUPS = [group for group in groups() if group.name in ("pcie-4mi", "launch-300")]
ARMS = {group.name: sorted(group.arms) for group in GROUPS}


class Machine:
    """An executor that answers from the recorded set, and is interrupted at one of its submissions."""

    def __init__(self, recorded, stop_at=None, refuses=""):
        self.recorded, self.stop_at, self.refuses, self.done = recorded, stop_at, refuses, []

    def submit(self, function, *args, **options):
        if len(self.done) == self.stop_at:
            raise KeyboardInterrupt
        future = Future()
        if function is record:
            self.done.append(args[1].name)
            if args[1].name == self.refuses:
                future.set_exception(OutOfMemoryError("The device is full."))
            else:
                future.set_result(shutil.copytree(self.recorded / "runs" / args[1].name, args[1]))
        else:
            assert function is measure_round
            self.done.append([(job.round, job.arm) for job in args[0]])
            calls = np.full(20, 1000)
            future.set_result([Block(job.arm, job.round, job.position, calls, calls) for job in args[0]])
        return future


def recorded_arms(folder):
    return {name: sorted((b.round, b.arm) for b in load_blocks(folder / "rounds" / name)) for name in ARMS}


def every_arm(rounds):
    return {name: [(number, arm) for number in range(rounds) for arm in arms] for name, arms in ARMS.items()}


@pytest.mark.parametrize("stop_at", range(8))
def test_an_interrupted_set_goes_on_where_it_stopped(set_folder, tmp_path, stop_at):
    first, second = Machine(set_folder, stop_at), Machine(set_folder)
    with pytest.raises(KeyboardInterrupt):
        record_set(tmp_path / "set", tmp_path / "models", GROUPS, first, rounds=2)
    assert record_set(tmp_path / "set", tmp_path / "models", GROUPS, second, rounds=2) == []
    assert recorded_arms(tmp_path / "set") == every_arm(2)
    said = [str(each) for each in (*first.done, *second.done)]
    assert len(said) == len(set(said)), "nothing is measured twice"
    again = Machine(set_folder)
    assert record_set(tmp_path / "set", tmp_path / "models", GROUPS, again, rounds=2) == []
    assert again.done == []


def test_more_rounds_are_added_to_those_that_are_there(set_folder, tmp_path):
    for rounds in (1, 3):
        record_set(tmp_path / "set", tmp_path / "models", GROUPS, Machine(set_folder), rounds=rounds)
    assert recorded_arms(tmp_path / "set") == every_arm(3)
    found = LabelledSet.open(tmp_path / "set", GROUPS)
    assert len(found.cells) == 4
    assert found.lacking == []
    blocks = load_blocks(tmp_path / "set" / "rounds" / "pcie-4mi")
    assert sorted(block.position for block in blocks) == list(range(len(blocks)))


def test_a_cell_that_cannot_be_recorded_is_said_and_the_others_go_on(set_folder, tmp_path):
    machine = Machine(set_folder, refuses="launch-300-numpy")
    assert record_set(tmp_path / "set", tmp_path / "models", GROUPS, machine, rounds=1) == [
        "launch-300-numpy: The device is full."
    ]
    found = LabelledSet.open(tmp_path / "set", GROUPS)
    assert found.lacking == ["launch-300-numpy"]
    assert len(found.cells) == 3
