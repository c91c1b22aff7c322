"""Results show themselves as the last line of a cell, in HTML and in plain text."""

from __future__ import annotations

import shutil

import pytest
from IPython.core.interactiveshell import InteractiveShell

from workbench.api import Sweep, Tuning, load
from workbench.api.display import register, run_html, tuning_html
from workbench.errors import RunFolderError


@pytest.fixture(scope="module")
def shell():
    shell = InteractiveShell.instance()
    register()
    yield shell
    InteractiveShell.clear_instance()


@pytest.fixture(scope="module")
def tuning(h200_experiments):
    return Tuning(h200_experiments / "resnet50-b32")


def shown(shell, result):
    texts, _ = shell.display_formatter.format(result)
    return texts


def test_a_run_shows_its_summary_and_its_card(shell, recorded):
    run = recorded("launch_numpy")
    texts = shown(shell, run)
    assert texts["text/plain"] == run.summary() == str(run)
    assert "launch" in texts["text/html"]
    assert run.findings[0].remedy in texts["text/html"]
    assert "\n" not in repr(run)  # many of them in a list stay readable


def test_a_diagnosis_and_its_verdict_say_their_class(shell, recorded):
    diagnosis = recorded("pcie_numpy").diagnosis
    assert shown(shell, diagnosis.verdict)["text/plain"].startswith("pcie: ")
    assert shown(shell, diagnosis)["text/plain"].startswith("pcie: ")
    for texts in (shown(shell, diagnosis), shown(shell, diagnosis.verdict)):
        assert "PCIe copies" in texts["text/html"]


def test_an_experiment_shows_what_was_measured_and_what_was_predicted(shell, tuning):
    (experiment,) = (each for each in tuning.experiments if each.lever == "float16")
    texts = shown(shell, experiment)
    for text in texts.values():
        assert "faster" in text
        assert "Predicted 0.547×" in text
    comparison = shown(shell, experiment.comparison)
    assert "0.742× (0.722× to 0.762×): faster" in comparison["text/plain"]
    assert "5.34 → 3.96 ms" in comparison["text/html"]


def test_a_tuning_lists_what_was_measured_and_says_what_was_not(tuning):
    page = tuning_html(tuning.record)
    for experiment in tuning.experiments:
        assert experiment.lever in page
    assert "bfloat16: failed" in page


def test_names_from_others_are_text(recorded, tmp_path):
    folder = shutil.copytree(recorded("launch_numpy").folder, tmp_path / "run")
    run = load(folder)
    run.manifest.model.name = "<img src=x onerror=alert(1)>"
    assert "<img" not in run_html(run)
    assert "&lt;img" in run_html(run)


def test_a_damaged_run_is_a_sentence_and_no_traceback(shell, recorded, tmp_path):
    folder = shutil.copytree(recorded("launch_numpy").folder, tmp_path / "run")
    (folder / "kernels.parquet").write_bytes(b"no table")
    run = load(folder)
    with pytest.raises(RunFolderError):
        run.summary()
    for text in shown(shell, run).values():
        assert "damaged" in text


@pytest.mark.slow
def test_a_sweep_shows_every_cell(shell, tmp_path, small_model, known_ceilings, monkeypatch):
    from workbench.api import sweep

    monkeypatch.setenv("WORKBENCH_CACHE", str(known_ceilings))
    budget = {"seconds": 0.05, "max_calls": 40}
    found = sweep(
        {"model": str(small_model), "provider": "cpu", "budget": budget}, [1], [1], classes=False, out=tmp_path / "s"
    )
    texts = shown(shell, Sweep(found.folder))
    assert texts["text/plain"] == found.summary()
    assert "batch 1 with 1 caller" in texts["text/html"]
