"""The files that tell what is needed say the same thing."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from workbench.capture import doctor

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
MINORS = [f"3.{minor}" for minor in range(30) if SpecifierSet(PROJECT["requires-python"]).contains(f"3.{minor}")]


def environment() -> tuple[set[Requirement], set[Requirement], list[str]]:
    """What environment.yml takes from conda, what by pip, and pip's remaining lines."""
    entries: list[Any] = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (by_pip,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    packages = {Requirement(line) for line in by_pip if not line.startswith("-")}
    return (
        {Requirement(entry) for entry in entries if isinstance(entry, str)},
        packages,
        [line for line in by_pip if line.startswith("-")],
    )


def test_environment_lists_every_runtime_dependency_with_the_same_bounds():
    _, by_pip, options = environment()
    assert by_pip == {Requirement(line) for line in PROJECT["dependencies"]}
    assert options == ["-e ."]


def test_environment_takes_python_and_the_lab_from_conda():
    by_conda, _, _ = environment()
    lab = {Requirement(line) for line in PROJECT["optional-dependencies"]["lab"]}
    assert by_conda == lab | {Requirement("pip"), Requirement(f"python{PROJECT['requires-python']}")}


def test_every_dependency_has_a_lower_bound():
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    for line in lines:
        assert any(spec.operator == ">=" for spec in Requirement(line).specifier), line


def test_tools_target_the_oldest_python():
    oldest = MINORS[0]
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == oldest


def test_classifiers_name_every_supported_python():
    prefix = "Programming Language :: Python :: 3."
    named = [line.rpartition(" ")[2] for line in PROJECT.get("classifiers", []) if line.startswith(prefix)]
    assert named == MINORS


def test_the_doctor_and_the_makefile_accept_the_same_pythons():
    span = (doctor.PYTHON_FROM, doctor.PYTHON_BELOW)
    assert [f"3.{minor}" for minor in range(span[0][1], span[1][1])] == MINORS
    assert f"not {span[0]} <= sys.version_info[:2] < {span[1]}" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("demo", "workbench demo"),
        ("lab", "jupyter lab notebooks"),
        ("check", "lint-imports"),
        ("test", "slow or browser"),
        ("bench", "tests/benchmarks"),
        ("clean", "rm -rf .venv"),
    ],
)
def test_make_knows_the_target(target, command):
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert command in done.stdout


def test_make_says_which_python_is_wanted(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = ["make", "demo", "PYTHON="]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "No Python from 3.11 to 3.13 was found" in done.stderr


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^make test\b", script.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("printed", "status"), [("3 passed, 1 skipped in 2s", 0), ("4 skipped in 2s", 1), ("", 1)])
def test_ci_fails_when_no_test_ran(tmp_path, printed, status):
    (tmp_path / ".ci").mkdir()
    script = tmp_path / ".ci" / "run"
    script.write_bytes((ROOT / ".ci" / "run").read_bytes())
    (tmp_path / "Makefile").write_text(f"test:\n\t@echo '{printed}'\n", encoding="utf-8")
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr


def test_license_is_apache_2_0():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert re.search(r"Apache License\s+Version 2\.0, January 2004", text)
    for section in range(1, 10):
        assert re.search(rf"^\s+{section}\. [A-Z]", text, re.MULTILINE), f"section {section} is missing"
