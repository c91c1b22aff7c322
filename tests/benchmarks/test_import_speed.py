"""How quickly an Nsight Systems export becomes shares: against plain pandas, and against one scan by SQLite alone.

A million kernels by default; ten million too with WORKBENCH_BENCH_LARGE=1 (a file of 1.4 GB). Every subject runs in
a process of its own, all of them in turn, and the best of the rounds counts. What is found must equal the truth that
was written beside the export, to the last nanosecond.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.synthetic_export import write_export
from benchmarks.synthetic_truth import Truth

MILLION, ROUNDS = 1_000_000, 3
MODULES = 1_000  # kernels of the small export that makes a subject import its modules
GIGABYTE = 1e9
# Ten times the rows may take a little more than ten times as long: sorting is O(n log n), and caches are finite.
LINEAR = 13
TESTS = Path(__file__).parents[1]


def measured(subject: str, export: Path, small: Path) -> dict:
    """Run one subject in a process of its own."""
    folders = {path: path.with_suffix(".run") for path in (export, small)}
    if subject == "import":
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
    arguments = [str(each) for pair in folders.items() for each in pair]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.import_subjects", subject, *arguments],
        cwd=TESTS,
        env={**os.environ, "WORKBENCH_CACHE": str(export.parent)},  # no ceilings of this machine's user
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(ended.stdout)


def best(subjects: tuple[str, ...], export: Path, small: Path) -> dict[str, dict]:
    """The quickest round of each subject, with the highest peak of its rounds."""
    rounds = [{name: measured(name, export, small) for name in subjects} for _ in range(ROUNDS)]
    found = {name: min((each[name] for each in rounds), key=lambda result: result["seconds"]) for name in subjects}
    for name, result in found.items():
        result["peak_bytes"] = max(each[name]["peak_bytes"] for each in rounds)
    return found


def show(title: str, results: dict[str, dict]) -> None:
    """Print the table."""
    print(f"\n{title}; best of {ROUNDS}, each in a process of its own, after its modules were imported")
    print(f"{'':10}{'seconds':>9}{'peak MB':>9}{'÷ baseline':>12}{'÷ floor':>9}{'modules s':>11}")
    for name, result in results.items():
        ratios = [
            f"{result['seconds'] / results[other]['seconds']:.2f}" if other in results else "" for other in REFERENCES
        ]
        peak = result["peak_bytes"] / 1e6
        print(
            f"{name:10}{result['seconds']:9.2f}{peak:9.0f}{ratios[0]:>12}{ratios[1]:>9}{result['modules_seconds']:11.2f}"
        )


REFERENCES = ("baseline", "floor")


def agrees(result: dict, truth: Truth) -> None:
    """All that was found equals the truth."""
    found = result["found"]
    assert found["pairs"] == truth.pairs
    assert found["calls"] == truth.calls
    launching = {name: entry for name, entry in truth.ranges.items() if entry["kernels"]}
    own = {name: [entry["kernels"], entry["own_ns"]] for name, entry in launching.items()}
    assert {name: row for name, row in found["ranges"].items() if row[0]} == own
    assert sum(found["shares"].values()) == pytest.approx(1, abs=1e-9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module")
def small(folder) -> Path:
    path = folder / "small.sqlite"
    write_export(path, MODULES, seed=0)
    return path


@pytest.fixture(scope="module")
def million(folder, small) -> tuple[dict[str, dict], Truth]:
    """Results of all subjects over a million kernels."""
    path = folder / "million.sqlite"
    truth = write_export(path, MILLION, seed=1)
    results = best(("floor", "baseline", "import", "open"), path, small)
    rows = truth.pairs + truth.host_calls + truth.nvtx_ranges
    show(f"{truth.kernels:,} kernels, {truth.nvtx_ranges:,} ranges, {rows:,} rows in all", results)
    return results, truth


def test_the_baseline_finds_the_truth_so_its_time_counts(million):
    results, truth = million
    found, total = results["baseline"]["found"], truth.total
    assert found["idle_ns"] == total["host_ns"] + total["launch_latency_ns"] + total["sync_ns"]
    assert found["exposed_copy_ns"] == total["exposed_copy_ns"]
    assert found["queue_ns"] == total["queue_ns"]
    launching = {name: entry for name, entry in truth.ranges.items() if entry["kernels"]}
    assert found["ranges"] == {name: [entry["kernels"], entry["kernel_ns"]] for name, entry in launching.items()}


def test_an_import_finds_the_truth_quicker_than_plain_pandas_in_half_a_gigabyte(million):
    results, truth = million
    agrees(results["import"], truth)
    assert results["import"]["seconds"] < results["baseline"]["seconds"]
    assert results["import"]["peak_bytes"] <= 0.5 * GIGABYTE


def test_opening_again_finds_the_truth_quicker_than_importing(million):
    results, truth = million
    agrees(results["open"], truth)
    assert results["open"]["seconds"] < results["import"]["seconds"]
    assert results["open"]["peak_bytes"] <= 0.5 * GIGABYTE


@pytest.mark.skipif(os.environ.get("WORKBENCH_BENCH_LARGE") != "1", reason="set WORKBENCH_BENCH_LARGE=1")
def test_ten_million_kernels_take_linear_time_and_a_gigabyte(million, folder, small):
    results, _ = million
    path = folder / "ten_million.sqlite"
    truth = write_export(path, 10 * MILLION, seed=2)
    large = best(("floor", "import", "open"), path, small)
    show(f"{truth.kernels:,} kernels", large)
    for name in ("import", "open"):
        agrees(large[name], truth)
        assert large[name]["peak_bytes"] <= GIGABYTE
        assert large[name]["seconds"] <= LINEAR * results[name]["seconds"]
