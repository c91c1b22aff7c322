"""What a tuning writes down: the best arm, the table, and the same record when it is read again."""

import json
import math
import shutil

import pytest

from tests.tuning.fake_executor import timed
from workbench.config import RunConfig
from workbench.diagnosis.prediction import Prediction
from workbench.errors import ConfigError, RunFolderError
from workbench.tuning.blocks import BASE, Block
from workbench.tuning.comparison import NO_DIFFERENCE, compare
from workbench.tuning.experiment import DOES_NOT_APPLY, FAILED, NOT_IN_FORCE, OUTPUTS_CHANGED, Experiment, Trials
from workbench.tuning.metric import latency, throughput
from workbench.tuning.objective import Constraint, Objective
from workbench.tuning.parity import OutputParity, Parity
from workbench.tuning.record import RESULT, TuningRecord
from workbench.tuning.rounds import Rounds
from workbench.tuning.store import load_blocks
from workbench.tuning.tolerance import FLOAT32

KEPT = Parity(True, "Every output is equal in every element.", FLOAT32, [])
BROKEN = Parity(
    False, "Beyond the tolerance: output 'y' is off.", FLOAT32,
    [OutputParity("y", (1, 8), "float32", "float32", scale=0.0, max_absolute=1.0, max_relative=math.inf,
                  scaled=math.inf)],
)  # fmt: skip


class Job:
    def __init__(self, arm, number, position):
        self.arm, self.round, self.position = arm, number, position


def blocks(arm, median_ns, **more):
    return [timed(Job(arm, at, at), median_ns * (1 + at / 1000), **more) for at in range(4)]


def tried(arm, outcome="faster", parity=KEPT, ratio=None, metric=None, **medians_us):
    """An experiment, with the comparison that its blocks give."""
    own, base = blocks(arm, medians_us["to"] * 1000), blocks(BASE, medians_us.get("base", 1000) * 1000)
    prediction = None if ratio is None else Prediction(arm, ratio, ratio / 2, ratio * 2)
    return Experiment(
        arm, arm.title(), outcome, "Said.", outcome == "faster", {"model": "m.onnx", "batch": 2}, prediction,
        compare(base, own, metric or latency()), [], parity,
    )  # fmt: skip


@pytest.fixture
def written(h200_experiments, tmp_path):
    """The record of experiments, and what `tuning.json` then holds."""

    def of(experiments, objective="latency", constraints=(), base_us=1000, rounds=None, **settings):
        if not (tmp_path / "runs").exists():
            shutil.copytree(h200_experiments / "launch" / "runs" / BASE, tmp_path / "runs" / BASE)
        measured = [block for each in experiments if each.comparison for block in blocks(
            each.lever, each.comparison.variant_value if each.comparison.unit == "ns" else 1e6)]  # fmt: skip
        found = rounds or Rounds([*blocks(BASE, base_us * 1000), *measured])
        record = TuningRecord.of(
            Trials(experiments, found), tmp_path, RunConfig(model="m.onnx"), Objective.parse(objective),
            [Constraint.parse(text) for text in constraints], rounds=4, seed=settings.get("seed", 0),
        )  # fmt: skip
        return record, TuningRecord.load(tmp_path)

    return of


def test_a_record_comes_back_as_it_was(written, tmp_path):
    rounds = Rounds(blocks(BASE, 1e6), {1: ["Throttled."]}, cancelled=True)
    refused = Experiment("refused", "Refused", DOES_NOT_APPLY, "It is already so.")
    broken = tried("broken", OUTPUTS_CHANGED, BROKEN, to=100)
    before, after = written([tried("graph", ratio=0.5, to=500), broken, refused], rounds=rounds, seed=7)
    assert after == before
    assert after.experiments[1].parity.outputs[0].scaled == math.inf
    assert (after.repeated, after.cancelled, after.seed) == ({1: ["Throttled."]}, True, 7)
    assert [block.arm for block in load_blocks(tmp_path)] == [BASE] * 4


def test_it_is_json_that_any_reader_takes(written, tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    written([tried("broken", OUTPUTS_CHANGED, BROKEN, to=100)])
    kept = json.loads((tmp_path / RESULT).read_text(), parse_constant=refuse)
    assert kept["experiments"][0]["lever"] == "broken"


def test_a_damaged_or_missing_record(written, tmp_path):
    with pytest.raises(RunFolderError, match=r"holds no readable tuning\.json"):
        TuningRecord.load(tmp_path)
    written([])
    kept = json.loads((tmp_path / RESULT).read_text())
    (tmp_path / RESULT).write_text(json.dumps({**kept, "rounds": "many"}))
    with pytest.raises(RunFolderError, match="damaged at 'rounds'"):
        TuningRecord.load(tmp_path)


def test_the_best_is_the_fastest_that_improves(written):
    broken = tried("broken", OUTPUTS_CHANGED, BROKEN, to=100)
    unsure = tried("unsure", "no difference that these data can show", to=900)
    record, _ = written([broken, tried("graph", to=500), tried("device", to=700), unsure])
    assert record.best == "graph"
    assert record.values["graph"]["latency:p50"] == pytest.approx(500e3, rel=0.01)


def test_the_base_stays_where_nothing_improves_on_it(written):
    unsure = tried("unsure", "no difference that these data can show", to=900)
    record, _ = written([unsure, tried("broken", OUTPUTS_CHANGED, BROKEN, to=100)])
    assert (record.best, record.best_because) == (
        BASE, "No lever improves on the base beyond doubt, so the base stays.",
    )  # fmt: skip


def test_the_best_keeps_the_constraints_and_need_not_be_faster_than_the_base(written):
    fast, small = tried("fast", to=300), tried("small", "slower", to=1100)
    rounds = Rounds([
        *blocks(BASE, 1000e3, peak_device_bytes=3_000_000_000),
        *blocks("fast", 300e3, peak_device_bytes=8_000_000_000),
        *blocks("small", 1100e3, peak_device_bytes=2_000_000_000),
    ])  # fmt: skip
    assert written([fast, small], constraints=["memory<10GB"], rounds=rounds)[0].best == "fast"
    assert written([fast, small], constraints=["memory<4GB"], rounds=rounds)[0].best == BASE
    record, _ = written([fast, small], constraints=["memory<2500MB"], rounds=rounds)
    assert record.best == "small"
    assert record.values["small"] == {"latency:p50": pytest.approx(1100e3, rel=0.01), "memory": 2e9}


def test_a_base_that_keeps_the_constraints_stays_where_nothing_is_shown_to_improve_on_it(written):
    unsure = tried("unsure", NO_DIFFERENCE, to=990)
    record, _ = written([unsure], constraints=["p50<2ms"])
    assert (record.best, record.feasible) == (BASE, True)


@pytest.mark.parametrize("outcome", [FAILED, NOT_IN_FORCE])
def test_what_failed_or_is_not_in_force_is_not_taken_to_meet_a_constraint(written, outcome):
    record, _ = written([tried("graph", outcome, to=300)], constraints=["p50<0.4ms"])
    assert (record.best, record.feasible) == (BASE, False)


def test_of_a_round_that_was_measured_again_the_last_block_counts(written):
    disturbed = [timed(Job(BASE, 0, at), 9e6) for at in range(3)]
    rounds = Rounds([*disturbed, timed(Job(BASE, 0, 9), 1e6)])
    assert written([], rounds=rounds)[0].values[BASE] == {"latency:p50": 1e6}


def test_what_was_not_measured_is_not_shown_to_keep_a_constraint(written):
    record, _ = written([tried("smaller", "slower", to=1100)], constraints=["memory<4GB"])
    assert record.best == BASE
    assert "memory was not measured" in record.best_because


def test_where_nothing_meets_the_constraints_the_closest_is_taken(written):
    record, _ = written([tried("graph", to=500), tried("device", to=700)], constraints=["p50<0.4ms"])
    assert record.best == "graph"
    assert "Nothing measured keeps every constraint" in record.best_because
    assert "misses p50<0.4ms by 25" in record.best_because


def test_a_variant_that_changes_the_outputs_is_not_taken_to_meet_a_constraint(written):
    record, _ = written([tried("broken", OUTPUTS_CHANGED, BROKEN, to=100)], constraints=["p50<0.4ms"])
    assert record.best == BASE


def test_without_a_measurement_the_base_stays(written):
    record, _ = written([], rounds=Rounds([Block(BASE, 0, 0, error=("ModelError", "No."))], cancelled=True))
    assert (record.best, record.values, record.feasible) == (BASE, {BASE: {"latency:p50": None}}, None)
    assert "Nothing was measured" in record.best_because


def test_configurations_by_name(written):
    _, record = written([tried("graph", to=500), Experiment("refused", "Refused", DOES_NOT_APPLY, "No.")])
    assert record.config_of(BASE) == RunConfig(model="m.onnx")
    assert record.config_of("graph") == RunConfig(model="m.onnx", batch=2)
    with pytest.raises(ConfigError, match=r"no configuration of 'graf' here: did you mean 'graph'\?"):
        record.config_of("graf")
    with pytest.raises(ConfigError, match="'refused'"):
        record.config_of("refused")


def test_the_table(written):
    refused = Experiment("refused", "Refused", DOES_NOT_APPLY, "It is already so.")
    record, _ = written([tried("graph", ratio=0.4, to=500), refused])
    graph, none = record.to_frame().to_dict("records")
    assert graph["ratio"] == pytest.approx(0.5, rel=1e-3)
    assert graph["low"] <= graph["ratio"] <= graph["high"]
    assert (graph["variant"], graph["unit"]) == (pytest.approx(500e3, rel=0.01), "ns")
    assert (graph["predicted"], graph["predicted_low"], graph["predicted_high"]) == (0.4, 0.2, 0.8)
    assert (none["outcome"], none["parity"], none["improvement"]) == (DOES_NOT_APPLY, "not checked", False)
    assert all(math.isnan(none[name]) for name in ("base", "variant", "ratio", "low", "high", "predicted"))


@pytest.mark.parametrize(
    ("objective", "said"),
    [("throughput", (2.5, 1.25, 5.0)), ("latency:p99", None), ("memory", None), ("cold-start", None)],
)
def test_a_prediction_of_the_time_of_a_call_is_turned_into_that_of_the_metric_or_left_out(written, objective, said):
    graph = tried("graph", ratio=0.4, metric=throughput(), to=500)
    row = written([graph], objective)[0].to_frame().iloc[0]
    if said is None:
        assert math.isnan(row["predicted"])
    else:
        assert (row["predicted"], row["predicted_low"], row["predicted_high"]) == pytest.approx(said)
    assert row["metric"] == objective


def test_a_table_without_rows_keeps_its_columns(written):
    frame = written([])[0].to_frame()
    assert len(frame) == 0
    assert {"name", "ratio", "outcome", "predicted", "parity", "why"} <= set(frame.columns)
