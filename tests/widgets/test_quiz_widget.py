"""The quiz without a browser: what it says to each choice, with the run's own numbers, and how one goes through it."""

from dataclasses import replace

import pytest

pytest.importorskip("ipywidgets")

from workbench.analysis.device_work import HOST_COPIES
from workbench.analysis.tables import measured_calls
from workbench.api.run import samples
from workbench.api.widgets import quiz
from workbench.diagnosis.shares import CLASSES
from workbench.diagnosis.verdict import INCONCLUSIVE, Verdict
from workbench.errors import ConfigError
from workbench.figures.units import format_bytes, format_ns, format_percent
from workbench.widgets.quiz import Case, Quiz
from workbench.widgets.quiz_facts import facts_of
from workbench.widgets.quiz_feedback import CAUSES, confirmed, confirmed_cause, refuted, refuted_cause

RUNS = {"compute": "compute", "memory": "memory", "pcie": "pcie", "launch": "resnet50"}


@pytest.fixture(scope="module")
def run():
    every = samples()
    return lambda name: every[name]


@pytest.fixture(scope="module")
def facts(run):
    return {truth: facts_of(run(name), run(name).diagnosis) for truth, name in RUNS.items()}


@pytest.mark.parametrize("chosen", [*CLASSES, INCONCLUSIVE])
@pytest.mark.parametrize("truth", RUNS)
def test_every_choice_is_answered_in_its_own_way_with_numbers_of_the_run(facts, truth, chosen):
    said = confirmed(truth, facts[truth]) if chosen == truth else refuted(truth, chosen, facts[truth])
    assert all(sentence.endswith(".") for sentence in said)
    assert any(character.isdigit() for character in " ".join(said))
    others = [refuted(truth, other, facts[truth]) for other in [*CLASSES, INCONCLUSIVE] if other not in (truth, chosen)]
    assert said not in others
    if chosen in CLASSES:
        assert format_percent(facts[truth].shares[chosen]) in said[-1]


def test_utilisation_is_told_from_arithmetic_with_both_numbers(run, facts):
    said = " ".join(refuted("launch", "compute", facts["launch"]))
    counters = run("resnet50").counters
    assert "NVML's GPU utilisation reads 80 %" in said
    assert "some kernel or copy was running" in said
    assert counters["metric"].eq("sm_active_percent").any()
    assert f"active {format_percent(facts['launch'].sm_active)}" in said
    assert "tempts" not in " ".join(refuted("pcie", "compute", facts["pcie"]))  # 18 % tempts nobody


def test_copies_are_told_from_memory_bound_work_with_bytes_and_times(run, facts):
    said = " ".join(refuted("pcie", "memory", facts["pcie"]))
    copies = run("pcie").copies
    calls = measured_calls(run("pcie"), "nodes")["call"]
    crossing = copies[(copies["pass"] == "nodes") & copies["kind"].isin(HOST_COPIES) & copies["call"].isin(calls)]
    assert format_bytes(crossing["bytes"].sum() / len(calls)) in said
    assert format_ns(run("pcie").diagnosis.pieces.exposed_copies) in said
    assert "PCIe" in said
    assert "DRAM" in said


def test_kernels_are_counted_as_the_table_has_them(run, facts):
    kernels = run("resnet50").kernels
    calls = measured_calls(run("resnet50"), "nodes")["call"]
    mine = kernels[(kernels["pass"] == "nodes") & kernels["call"].isin(calls)]
    assert facts["launch"].kernels == len(mine) / len(calls)
    assert facts["launch"].kernel_ns == (mine["end_ns"] - mine["start_ns"]).median()


@pytest.mark.parametrize("truth", CAUSES)
@pytest.mark.parametrize("chosen", CAUSES)
def test_every_sub_cause_is_answered_with_its_time(facts, truth, chosen):
    found = facts["launch"]
    said = confirmed_cause(truth, found) if chosen == truth else refuted_cause(truth, chosen, found)
    assert format_ns(found.pieces.launch_causes()[chosen]) in " ".join(said)


def test_nothing_is_made_up_where_a_run_holds_no_numbers(facts):
    for truth, found in facts.items():
        bare = type(found)(found.kind, found.latency_ns, found.shares, None)
        for chosen in CLASSES:
            said = confirmed(truth, bare) if chosen == truth else refuted(truth, chosen, bare)
            assert "–" not in " ".join(said)
            assert "None" not in " ".join(said)


def pick(found, *classes):
    for name in classes:
        found.classes.value = name
        found.answer.click()


def test_a_wrong_answer_is_explained_and_the_answer_stays_closed(run):
    found = quiz("pcie")
    assert "29.9 ms" in found.evidence.value
    assert "99.8" not in found.evidence.value  # shares are the answer
    pick(found, "memory")
    assert "Not memory." in found.feedback.value
    assert found.revealed.value == ""
    pick(found, "pcie")
    assert "Yes: PCIe copies." in found.feedback.value
    assert f"{run('pcie').diagnosis.pieces.exposed_copies:,.0f}" in found.revealed.value
    assert found.score == (0, 1)
    assert found.answer.disabled


def test_of_launch_the_sub_cause_is_asked_before_the_answer_opens():
    found = quiz("resnet50")
    pick(found, "launch")
    assert found.revealed.value == ""
    assert found._cause_part.layout.display == ""
    found.causes.value = "host"
    found.answer_cause.click()
    assert "Not: host." in found.cause_feedback.value
    assert found.revealed.value == ""
    found.causes.value = "under-filled"
    found.answer_cause.click()
    assert "launch = the host came late" in found.revealed.value
    assert found.score == (0, 1)


def test_right_at_the_first_try_counts():
    found = quiz("resnet50")
    pick(found, "launch")
    found.causes.value = "under-filled"
    found.answer_cause.click()
    assert found.score == (1, 1)
    assert "1 of 1 right at the first try" in found.head.value


def test_the_answer_can_be_opened_without_one_and_then_nothing_counts():
    found = quiz("compute")
    found.reveal.click()
    assert "The arithmetic" in found.revealed.value
    pick(found, "compute")
    assert found.score == (0, 0)


def test_the_arithmetic_of_the_answer_adds_up(run):
    found = quiz("memory")
    found.reveal.click()
    pieces = run("memory").diagnosis.pieces
    for part in (pieces.latency_ns, pieces.memory, pieces.host):
        assert f"{part:,.0f}" in found.revealed.value


def test_answers_are_kept_while_one_goes_through_several_runs():
    found = quiz("compute", "pcie", "resnet50")
    assert found.back.disabled
    pick(found, "memory", "compute")
    found.forward.click()
    assert found.classes.value is None
    assert found.revealed.value == ""
    pick(found, "pcie")
    assert found.score == (1, 2)
    found.back.click()
    assert found.classes.value == "compute"
    assert "The arithmetic" in found.revealed.value
    assert "Run 1 of 3" in found.head.value
    found.forward.click()
    found.forward.click()
    assert found.forward.disabled
    assert "1 of 2 right at the first try" in found.head.value


def test_of_two_together_either_is_right(run):
    case = run("resnet50")
    pair = Verdict(INCONCLUSIVE, "memory", ("launch", "memory"), "launch holds 45 % of the time, memory 40 %.")
    shares = {**case.diagnosis.shares, "launch": 0.45, "memory": 0.4}
    diagnosis = replace(case.diagnosis, verdict=pair, shares=shares)
    for chosen, right in (("memory", True), ("launch", True), (INCONCLUSIVE, True), ("pcie", False)):
        found = Quiz([Case(case, diagnosis)])
        pick(found, chosen)
        assert ('class="right"' in found.feedback.value) is right, chosen
        assert found._cause_part.layout.display == "none"
        assert "45 % of T, the second 40 %" in found.feedback.value


def test_a_run_that_cannot_be_diagnosed_is_said_and_the_others_go_on(run):
    unknown = Verdict(INCONCLUSIVE, None, None, "No pass recorded what the device did.")
    blind = replace(run("pcie").diagnosis, verdict=unknown, pieces=None, missing=["no device <activity>"])
    found = Quiz([Case(run("pcie"), blind), Case(run("compute"), run("compute").diagnosis)])
    assert "no device &lt;activity&gt;" in found.evidence.value
    assert found._asking.layout.display == "none"
    found.forward.click()
    assert found._asking.layout.display == ""
    pick(found, "compute")
    assert found.score == (1, 1)


def test_a_quiz_needs_a_run():
    with pytest.raises(ConfigError, match="needs a run"):
        quiz()
