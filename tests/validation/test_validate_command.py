"""`workbench validate`: what it prints, writes and refuses; on a small set, and on none."""

import shutil

import pytest

from workbench.api import validating
from workbench.errors import ConfigError, RunFolderError
from workbench.validation.cells import groups
from workbench.validation.evaluate import evaluate

FEW = ("pcie-4mi", "conv-border-pcie", "squeezenet-batch-4", "squeezenet-batch-16")


@pytest.fixture(scope="module")
def small_set(set_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "small"
    for name in FEW:
        shutil.copytree(set_folder / "rounds" / name, folder / "rounds" / name)
        for run in (set_folder / "runs").glob(f"{name}-*"):
            if run.name.startswith(f"{name}-") and run.name.removeprefix(f"{name}-") in ("numpy", "device", "pinned"):
                shutil.copytree(run, folder / "runs" / run.name)
    return folder


@pytest.fixture(scope="module")
def result(small_set):
    told = []
    found = validating.validate(small_set, progress=lambda name, share: told.append((name, share)))
    assert sorted(name for name, _ in told) == sorted(FEW)
    assert told[-1][1] == 1
    return found


def test_a_part_of_the_set_is_scored_and_says_what_it_lacks(result):
    recorded = result.figures.recorded
    assert recorded.cells == 5
    assert len(recorded.lacking) == sum(len(group.cells) for group in groups()) - 5
    text = str(result)
    assert text.startswith("Recorded on NVIDIA H200; driver 580.159.04; ONNX Runtime 1.31.1; ")
    assert "5 of " in text
    assert "squeezenet-batch-16-numpy: No intervention measured launch, memory." in text
    assert result.to_dict()["recorded"]["cells"] == 5


@pytest.mark.slow
def test_processes_change_nothing(small_set, result):
    chosen = [group for group in groups() if group.name in FEW]
    found = evaluate(small_set, chosen, processes=2)
    assert found.judged.equals(result.figures.judged)
    assert found.shares.equals(result.figures.shares)


def test_the_page_holds_figures_and_scores(result, tmp_path):
    page = result.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "How often is the verdict right?" in page
    assert "right by construction" in page
    assert "Trace and intervention agree on" in result.share_figure().layout.title.text
    assert "right at a mean confidence of" in result.reliability_figure().layout.title.text


def test_a_folder_without_a_set_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="holds no labelled set"):
        validating.validate(tmp_path)
    with pytest.raises(RunFolderError, match="is no folder"):
        validating.validate(tmp_path / "none")


def test_rounds_without_runs_are_refused(set_folder, tmp_path):
    shutil.copytree(set_folder / "rounds" / FEW[0], tmp_path / "rounds" / FEW[0])
    with pytest.raises(RunFolderError, match="no run of a cell"):
        validating.validate(tmp_path)


def test_an_installed_package_without_a_set_asks_for_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(validating, "OWN_SET", tmp_path / "none")
    with pytest.raises(ConfigError, match="give a folder, or record one with --live"):
        validating.validate()


def test_recording_is_refused_before_it_begins(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="0 rounds cannot be recorded"):
        validating.record_labelled(tmp_path / "set", rounds=0)
    monkeypatch.setattr(validating, "gpu_present", lambda: True)
    monkeypatch.setattr(validating, "SET_BYTES", 10**18)
    monkeypatch.setattr(validating, "MODELS_BYTES", 0)
    monkeypatch.setattr(validating, "SCRATCH_BYTES", 0)
    with pytest.raises(ConfigError, match="GB free"):
        validating.record_labelled(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_live_hands_the_whole_set_to_the_recorder_and_counts_its_steps(monkeypatch, tmp_path, known_ceilings):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("MODELS_BYTES", "SCRATCH_BYTES", "SET_BYTES"):
        monkeypatch.setattr(validating, name, 0)
    monkeypatch.setattr(validating, "gpu_present", lambda: True)
    monkeypatch.setattr(validating, "LocalExecutor", lambda device: memoryview(b""))
    shares = []

    def record(folder, models, every, executor, *, rounds, say):
        for number in range(rounds):
            for group in every:
                say(f"{number} {group.name}")
        return [f"{folder.name}: {models.name}"]

    monkeypatch.setattr(validating, "record_set", record)
    failed = validating.record_labelled(tmp_path / "set", rounds=2, progress=lambda text, share: shares.append(share))
    assert failed == ["set: labelled-models"]
    assert len(shares) == 2 * len(groups())
    assert shares[-1] == 1
    assert "2 rounds" in validating.recording_takes(2)


@pytest.mark.slow
def test_the_command_prints_the_summary_json_and_a_page(command, small_set):
    ended = command("validate", small_set, "--figure", "page.html")
    assert ended.status == 0, ended
    assert "Wanted:" in ended.stdout
    assert command.left() == ["page.html"]
    told = command("validate", small_set, "--json")
    assert told.status == 0
    assert told.json["recorded"]["cells"] == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--live", "set"], 2, "no NVIDIA driver answers"),
        (["set", "--live", "set"], 2, "not both"),
        (["--rounds", "2"], 2, "--live FOLDER"),
        (["none"], 1, "is no folder"),
    ],
)
def test_the_command_refuses_in_one_sentence(command, words, status, said):
    # the machine of the tests may have a GPU, which this hides from the command
    hidden = "import workbench.api.validating as v; v.gpu_present = lambda: False"
    command("validate", *words, before=hidden).failed(status, said)
    assert command.left() == []
