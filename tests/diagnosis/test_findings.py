"""What every finding must have, and the order they come in."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

from workbench.api.tuning import Tuning
from workbench.diagnosis import findings as findings_package
from workbench.diagnosis.findings import findings
from workbench.diagnosis.findings.catalogue import RULES
from workbench.diagnosis.levers import lever


def of(run):
    return {each.rule: each for each in findings(run, run.diagnosis)}


def test_float32_matrix_work_without_tf32_is_found(h200_experiments):
    tuning = Tuning(h200_experiments / "resnet50-b32")
    without = tuning.run("tf32-off")
    found = of(without)["tf32-off"]
    assert found.lever == "tf32-on"
    assert 0.3 < found.saves_ns / without.diagnosis.latency.median_ns < 1
    assert found.evidence["op_type"].str.contains("Conv").all()
    assert "tf32-off" not in of(tuning.run())


@pytest.mark.parametrize("name", ["resnet50_b1_numpy", "launch_device_graph", "memory_numpy", "encoder_device"])
def test_findings_come_in_order_and_whole(recorded, name):
    run = recorded(name)
    found = run.findings
    saved = [each.saves_ns for each in found if each.saves_ns is not None]
    assert saved == sorted(saved, reverse=True)
    assert [each.saves_ns for each in found[: len(saved)]] == saved
    for each in found:
        assert each.said.endswith(".")
        assert each.remedy.endswith(".")
        assert isinstance(each.evidence, pd.DataFrame)
        assert 0 < len(each.evidence) <= each.counted
        assert each.saves_ns is None or 0 <= each.saves_ns <= run.diagnosis.latency.median_ns
        assert each.lever is None or lever(each.lever)
    assert len({each.rule for each in found}) <= len(RULES)


def test_findings_are_plain_data(recorded):
    run = recorded("resnet50_b1_numpy")
    told = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    assert told["verdict"] == "launch"
    assert [each["rule"] for each in told["findings"]] == [each.rule for each in run.findings]
    assert all(each["evidence"] and each["evidence_rows"] >= len(each["evidence"]) for each in told["findings"])


def test_every_rule_is_registered_and_has_a_name_of_its_own():
    folder = Path(findings_package.__file__).parent
    with_rule = {file.stem for file in folder.glob("*.py") if "\ndef rule(" in file.read_text(encoding="utf-8")}
    homes = [sys.modules[rule.__module__] for rule in RULES]
    assert {home.__name__.rpartition(".")[2] for home in homes} == with_rule
    names = [home.RULE for home in homes]
    assert len(set(names)) == len(names)
    assert names == [home.__name__.rpartition(".")[2].replace("_", "-") for home in homes]
