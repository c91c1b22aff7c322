"""What is promised of the verdict, recomputed from the raw tables of the whole recorded set."""

import json

import pytest

from workbench.report.validated import validation_summary
from workbench.report.validated_rows import PARTS, part_of, regret_of, share_rows, validation_dict
from workbench.validation.ablation import ABLATIONS, EVERYTHING, LATENCY_AND_NVML
from workbench.validation.cells import groups
from workbench.validation.evaluate import evaluate
from workbench.validation.failures import failures
from workbench.validation.limits import confirmable, limits, part_scores
from workbench.validation.shares import COMPARED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(set_folder):
    return evaluate(set_folder, processes=2)


def test_most_of_the_set_was_recorded_and_its_labels_hold(found):
    assert found.recorded.cells == len(found.cells) >= 60
    assert found.recorded.cells + len(found.recorded.lacking) == sum(len(group.cells) for group in groups())
    assert found.cells["accepted"].sum() >= 55
    assert set(found.judged["cell"]) == set(found.cells.loc[found.cells["accepted"], "cell"])
    assert found.recorded.devices == ("NVIDIA H200",)


def test_the_scored_part_keeps_the_limits(found):
    whole = part_scores(found.judged, EVERYTHING, scored=True)
    assert whole.constructed.cells >= 20
    assert whole.constructed.accuracy >= 0.95
    assert whole.real.macro_f1 >= 0.90
    assert whole.both.inconclusive <= 0.10
    assert whole.both.calibration_error <= 0.05


def test_latency_and_nvml_alone_are_right_with_less_confidence(found):
    whole = part_scores(found.judged, EVERYTHING, scored=True)
    bare = part_scores(found.judged, LATENCY_AND_NVML, scored=True)
    assert bare.both.cells == whole.both.cells
    assert bare.both.accuracy >= 0.80
    assert bare.both.confidence < whole.both.confidence


def test_interventions_agree_with_the_label(found):
    tested = confirmable(found.confirmed)
    assert len(tested) >= 30
    assert tested["agrees"].mean() >= 0.90


def test_every_family_is_either_scored_or_chosen_on(found):
    assert (found.cells.groupby("family")["scored"].nunique() == 1).all()
    assert {part.scored for part in PARTS} == set(found.cells["scored"])


def test_the_text_says_every_figure_every_failing_cell_and_every_refused_one(found):
    text = " ".join(validation_summary(found).split())
    for name in ABLATIONS:
        assert name in text
    for each in limits(found):
        assert each.name in text
    for cell in {each.cell for each in failures(found)} | set(found.recorded.lacking):
        assert cell in text
    refused = found.cells[~found.cells["accepted"]]
    for cell, why in zip(refused["cell"], refused["why"], strict=True):
        assert f"{cell}: {why}" in text


def test_failures_are_what_the_tables_say(found):
    said = failures(found)
    wrong = found.judged[~found.judged["right"]]
    assert {each.cell for each in said if each.what == "verdict"} == set(
        wrong.loc[wrong["sources"] == EVERYTHING, "cell"]
    )
    tested = found.shares[found.shares["lever"] != "batch-x4"]
    assert sum(each.what == "share" for each in said) == (~tested["within"]).sum()
    gap = (found.shares["traced"] - found.shares["interventional"]).abs()
    tolerance = found.shares["share"].map({"pcie": 0.10, "launch": 0.10, "compute": 0.15})
    assert ((gap <= tolerance) == found.shares["within"]).all()
    assert list(found.shares.columns) == COMPARED


def test_json_holds_the_same_figures_and_no_nan(found):
    told = json.loads(json.dumps(validation_dict(found), allow_nan=False))
    assert {each["name"]: each["met"] for each in told["limits"]} == {each.name: each.met for each in limits(found)}
    for part in PARTS:
        mine = part_of(found.judged, part)
        whole = mine[mine["sources"] == EVERYTHING]
        counts = told["parts"][part.name]["confusion"]
        assert sum(sum(row.values()) for row in counts.values()) == len(whole)
        assert told["parts"][part.name]["regret"]["largest"] == regret_of(found.regrets, part).largest
    assert len(told["rows"]["judged"]) == len(found.judged)
    assert sum(row.cells for row in share_rows(found.shares)) == len(found.shares)


def test_the_readme_prints_what_the_set_says(found, request):
    text = (request.config.rootpath / "README.md").read_text(encoding="utf-8")
    assert validation_summary(found).rstrip() in text
