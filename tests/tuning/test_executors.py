"""One submission at a time on a device, whoever submits: in one process, and in several."""

import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest

from workbench.errors import ConfigError
from workbench.tuning.executors import LocalExecutor

CHILD = """
import sys, time
from pathlib import Path
from workbench.tuning.executors import LocalExecutor

def work(log):
    begin = time.monotonic_ns()
    time.sleep(0.03)
    with log.open("a") as file:
        file.write(f"{begin} {time.monotonic_ns()}\\n")

folder, name = Path(sys.argv[1]), sys.argv[2]
(folder / f"{name}.ready").touch()
while len(list(folder.glob("*.ready"))) < 2:
    time.sleep(0.001)
with LocalExecutor("cpu") as executor:
    for future in [executor.submit(work, folder / f"{name}.log") for _ in range(8)]:
        future.result()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("WORKBENCH_CACHE", str(folder))
    return folder


def spans(folder):
    """(begin, end, who) of everything that was run, by begin; the clock is that of the machine."""
    return sorted(
        (*map(int, line.split()), file.stem) for file in folder.glob("*.log") for line in file.read_text().splitlines()
    )


@pytest.mark.slow
def test_two_processes_never_use_a_device_at_the_same_time(tmp_path):
    children = [subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), name]) for name in ("a", "b")]
    assert [child.wait(60) for child in children] == [0, 0]
    found = spans(tmp_path)
    assert len(found) == 16
    assert all(first[1] <= second[0] for first, second in pairwise(found))


def test_a_holder_that_died_holds_nothing(cache):
    dies = "import os; from workbench.tuning.executors import LocalExecutor\nLocalExecutor('cpu').submit(os._exit, 7)"
    assert subprocess.run([sys.executable, "-c", dies], check=False).returncode == 7
    assert [path.name for path in (cache / "locks").iterdir()] == ["cpu.lock"]
    with LocalExecutor("cpu") as executor:
        assert executor.submit(max, 1, 2).result(10) == 2


def test_an_exception_reaches_whoever_waits_and_the_next_submission_runs():
    with LocalExecutor("cpu") as executor:
        broken, fine = executor.submit(int, "x"), executor.submit(int, "1")
        with pytest.raises(ValueError, match="invalid literal"):
            broken.result()
        assert fine.result() == 1


def test_an_interrupt_reaches_what_runs_and_frees_the_device():
    ended = []

    def work():
        try:
            raise KeyboardInterrupt
        finally:
            ended.append(threading.current_thread())

    with LocalExecutor("cpu") as executor:
        with pytest.raises(KeyboardInterrupt):
            executor.submit(work)
        assert ended == [threading.main_thread()]
        assert executor.submit(max, 1, 2).result() == 2


def test_whoever_waits_says_so_once(caplog):
    first, second = LocalExecutor("cpu"), LocalExecutor("cpu")

    def busy():
        thread = threading.Thread(target=lambda: [second.submit(max, 1, 2) for _ in range(3)])
        thread.start()
        while not caplog.records:
            time.sleep(0.001)
        return thread

    first.submit(busy).result().join()
    assert [record.message.split(":")[0] for record in caplog.records] == ["Another measurement has this device"]


@pytest.mark.parametrize("count", [1, 4])
def test_threads_take_turns_with_an_executor_of_their_own_and_with_a_common_one(count):
    inside, most = 0, 0

    def work():
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.005)
        inside -= 1

    executors = [LocalExecutor("cpu") for _ in range(count)]
    threads = [threading.Thread(target=executors[number % count].submit, args=(work,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


@pytest.mark.parametrize("broken", ["", "locks/cpu.lock"])
def test_a_cache_that_cannot_be_made_is_said(cache, broken):
    if broken:
        (cache / broken).mkdir(parents=True)
    else:
        cache.write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot be made .*: set WORKBENCH_CACHE"):
        LocalExecutor("cpu").submit(max, 1, 2)
