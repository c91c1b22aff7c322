"""Fixtures that several test files share."""

import json
import lzma
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from hypothesis import settings
from onnx import TensorProto, helper

from workbench import zoo
from workbench.capture.ceilings import cache as ceilings_cache
from workbench.capture.ceilings.ort_chains import Backend
from workbench.runs.manifest import Ceilings

if TYPE_CHECKING:
    from workbench.api import Run
    from workbench.diagnosis.situation import Situation

DATA = Path(__file__).parent / "data"
# Each run draws anew, so what a few examples miss a later run finds; `make test` draws as many as rare cases need.
settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=150, deadline=None)
settings.load_profile("quick")

# Files whose slow tests take minutes; begun last, they would keep one process busy while the others have ended.
_LONGEST = ("test_readme.py", "test_cli.py", "test_bad_machine.py", "test_import_fuzz.py")

_BAR = re.compile(r"[^\r\n]*\d+ % \|[^|\r\n]*\| [\d:]+[^\r\n]*")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, the others in their order."""
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))


@pytest.fixture(scope="session")
def h200() -> Path:
    """Folder of the runs recorded on an H200 by tests/gpu/record_runs.py."""
    return DATA / "h200"


@pytest.fixture(scope="session")
def recorded(h200) -> "Callable[[str], Run]":
    """The run of a name under `h200`, opened once for all tests; its tables and diagnosis stay in memory."""
    from workbench.api import load
    from workbench.runs.schema import TABLES

    @cache
    def opened(name: str) -> "Run":
        run = load(h200 / name)
        for table in filter(run.has, TABLES):
            run.table(table)
        return run

    return opened


@pytest.fixture(scope="session")
def situation(recorded) -> "Callable[[str], Situation]":
    """The situation of the recorded run of a name, worked out once."""
    from workbench.diagnosis.situation import situation_of

    return cache(lambda name: situation_of(recorded(name), recorded(name).diagnosis))


@pytest.fixture(scope="session")
def h200_experiments() -> Path:
    """Folder of the experiments recorded on an H200 by tests/gpu/record_experiments.py."""
    return DATA / "h200-experiments"


@pytest.fixture(scope="session")
def capture(tmp_path_factory):
    """The unpacked file of a capture under tests/data/captures, by its name without `.xz`."""
    folder = tmp_path_factory.mktemp("captures")

    def unpacked(name: str) -> Path:
        file = folder / name
        if not file.exists():
            file.write_bytes(lzma.decompress((DATA / "captures" / f"{name}.xz").read_bytes()))
        return file

    return unpacked


@pytest.fixture(scope="session")
def small_model(tmp_path_factory) -> Path:
    """Six tiny nodes: input x and output y, both float32 [1, 8]."""
    return zoo.write("launch", tmp_path_factory.mktemp("model") / "small.onnx", nodes=6, width=8)


@pytest.fixture(scope="session")
def known_ceilings(tmp_path_factory) -> Path:
    """A user's cache that knows round ceilings of this CPU, so that a run does not measure them."""
    folder = tmp_path_factory.mktemp("cache")
    key = ceilings_cache.key_of(Backend("cpu", 0, None))
    rates = {"tensor:float32": 1e11, "fp:float32": 1e11, "special:float32": 1e9}
    ceilings = Ceilings(flops_per_s=rates, memory_bytes_per_s=1e10, node_overhead_ns=1e3, key=key)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(folder))
        ceilings_cache.store(ceilings, ceilings_cache.path_of(key))
    return folder


@dataclass(frozen=True)
class Ended:
    """How a command ended; `said` is standard error without its progress bar."""

    status: int
    stdout: str
    said: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object on one line."""
        assert self.stdout.count("\n") == 1, self.stdout
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found

    def failed(self, status: int, *words: str) -> "Ended":
        """Check the exit status, and that standard error is one sentence with these words."""
        assert self.status == status, self
        assert "Traceback" not in self.said
        assert self.said.count("\n") == 0, self.said
        assert self.said.endswith((".", "?")), self.said
        for word in words:
            assert word in self.said
        return self


def without_bar(text: str) -> str:
    """Standard error as a person reads it once the progress bar has been cleared."""
    return "\n".join(line.strip() for line in _BAR.sub("", text).replace("\r", "\n").splitlines() if line.strip())


class CommandLine:
    """Runs the real command line in a process of its own, in a folder of its own.

    `before` is Python that runs first in that process: it lends the command a machine that is not at hand.
    """

    def __init__(self, folder: Path, cache_folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "WORKBENCH_CACHE": str(cache_folder)}

    def start(self, *arguments: object, before: str = "", environment: dict[str, str] | None = None):
        """The started process, with text pipes."""
        code = f"{before}\nfrom workbench.cli import main\nmain()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process) -> Ended:
        """Wait for a started process."""
        stdout, stderr = process.communicate(timeout=120)
        return Ended(process.returncode, stdout, without_bar(stderr))

    def __call__(self, *arguments: object, before: str = "", environment: dict[str, str] | None = None) -> Ended:
        """Start it and wait for its end."""
        return self.end(self.start(*arguments, before=before, environment=environment))

    def save(self, name: str, nodes, inputs, held=(), domains=()) -> None:
        """Write a model with the output y into the folder; `inputs` are (name, type, shape)."""
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        values = [helper.make_tensor_value_info(*each) for each in inputs]
        graph = helper.make_graph(nodes, "g", values, [output], held)
        imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
        onnx.save_model(helper.make_model(graph, opset_imports=imports, ir_version=10), self.folder / name)

    def left(self) -> list[str]:
        """All that lies in the folder, hidden or not."""
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def command(tmp_path, known_ceilings) -> CommandLine:
    """The command line, in an empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return CommandLine(folder, known_ceilings)
