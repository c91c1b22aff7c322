"""The README's commands are run as a reader would type them, and its pictures exist."""

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.api import Tuning, import_run, load
from workbench.diagnosis.shares import CLASSES
from workbench.figures.metrics import format_change, format_interval, format_ratio
from workbench.figures.units import format_ns

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line[2:] for kind, body in BLOCKS if kind == "console" for line in body.splitlines() if line[:2] == "$ "]
PYTHON = "\n".join(body for kind, body in BLOCKS if kind == "python")


def environment():
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([scripts, os.environ["PATH"]])}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make ")])
def test_make_targets_exist(command):
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def received(capture, tmp_path):
    """A folder with the files that the README's reader was sent."""
    files = {
        "service.sqlite": capture("nsight_resnet50_joined.sqlite"),
        "service.json": capture("ort_profile_resnet50_joined_0.json"),
        "report.sqlite": capture("nsight_h200_four_classes.sqlite"),
        "torch.json.gz": ROOT / "tests" / "data" / "captures" / "kineto_resnet50.json.gz",
    }
    for name, source in files.items():
        shutil.copy(source, tmp_path / name)
    return tmp_path


@pytest.mark.slow
def test_workbench_commands_and_python_run_in_order(received):
    commands = [shlex.split(c) for c in COMMANDS if c.startswith("workbench ")]
    assert len(commands) >= 4
    assert "wb.profile" in PYTHON
    for command in [*commands, [sys.executable, "-c", PYTHON]]:
        done = subprocess.run(
            command, cwd=received, env=environment(), capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"


def test_every_command_is_of_a_kind_that_is_tested():
    assert {command.split()[0] for command in COMMANDS} <= {"make", "workbench"}


def test_pictures_and_files_exist():
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_the_printed_example_is_what_the_sample_says():
    assert load("resnet50").summary() in TEXT


def test_the_imported_example_is_what_the_capture_says(received):
    files = [received / "service.sqlite", received / "service.json"]
    assert import_run(files, range="measure", out=received / "run").summary() in TEXT


def test_the_table_of_measured_runs_is_what_the_runs_say(recorded):
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+ \w+) \| (\w+)(?: \(([\w -]+)\))? \| (.+) \|$", TEXT, re.MULTILINE)
    assert len(rows) >= 14
    for name, latency, verdict, sub_cause, numbers in rows:
        found = recorded(name).diagnosis
        *shares, confidence = numbers.split(" | ")
        assert (format_ns(found.latency.median_ns), found.verdict.name) == (latency, verdict), name
        assert (found.sub_cause or "") == sub_cause, name
        assert [f"{100 * found.shares[key]:.0f} %" for key in CLASSES] == shares, name
        assert f"{found.confidence:.3f}" == confidence, name


def test_the_tuned_example_is_what_the_recording_says(h200_experiments):
    assert Tuning(h200_experiments / "resnet50-b32").summary() in TEXT


def lever_rows(folder):
    """A row of the table for each lever of a recorded experiment that was measured."""
    for row in Tuning(folder).to_frame().to_dict("records"):
        if math.isnan(row["ratio"]):
            continue
        change = format_change(row["base"], row["variant"], row["unit"])
        measured = f"{format_ratio(row['ratio'])} ({format_interval(row['low'], row['high'])})"
        interval = format_interval(row["predicted_low"], row["predicted_high"])
        predicted = "–" if math.isnan(row["predicted"]) else f"{format_ratio(row['predicted'])} ({interval})"
        outcome = row["outcome"].removesuffix(" that these data can show")
        yield f"| `{folder.name}` | `{row['name']}` | {change} | {measured} | {predicted} | {outcome} |"


def test_the_table_of_levers_is_what_the_experiments_say(h200_experiments):
    cases = re.findall(r"^\| `([\w-]+)` \| `[\w-]+` \| .* → ", TEXT, re.MULTILINE)
    assert len(cases) >= 25
    rows = [row for case in dict.fromkeys(cases) for row in lever_rows(h200_experiments / case)]
    assert len(rows) == len(cases)
    assert "\n".join(rows) in TEXT
