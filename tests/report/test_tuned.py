"""What a terminal shows of experiments: recorded on an H200, and made ones for what those do not hold."""

import shutil
from dataclasses import replace

import pytest

from workbench.diagnosis.prediction import Prediction
from workbench.report.tuned import tuning_summary
from workbench.tuning.blocks import BASE
from workbench.tuning.experiment import DOES_NOT_APPLY, FAILED, Experiment
from workbench.tuning.record import TuningRecord

COMPUTE = """\
compute on NVIDIA H200: latency:p50 of 2 levers against the base, 5 rounds of fresh processes

  lever              outcome  ratio  98% interval    base → variant  predicted            outputs
  io-binding-device  faster   0.286  0.250 to 0.327  6.02 → 1.68 ms  0.27 (0.27 to 0.36)  within
  io-binding-pinned  faster   0.453  0.393 to 0.522  6.02 → 2.67 ms  0.49 (0.49 to 0.59)  within
  round 1 was measured again: 'io-binding-device': The clocks were held down by the power cap in 86 % of the samples.;
    'io-binding-device': The SM clock moved between 1554 and 1858 MHz while the latency was measured.
  round 2 was measured again: 'io-binding-device': The clocks were held down by the power cap in 38 % of the samples.;
    'io-binding-device': The SM clock moved between 1485 and 1860 MHz while the latency was measured.
"""
RESNET50 = """\
resnet50 on NVIDIA H200: latency:p50 of 5 levers against the base, 5 rounds of fresh processes

  lever           outcome          ratio  98% interval    base → variant    predicted            outputs
  cuda-graph      faster           0.699  0.657 to 0.743  1.20 ms → 837 µs  0.69 (0.67 to 0.82)  within
  tf32-off        slower           1.992  1.882 to 2.108  1.20 → 2.37 ms    1.58 (0.91 to 4.34)  within
  float16         no difference    1.074  0.973 to 1.185  1.20 → 1.32 ms    1.01 (0.79 to 1.28)  within
  prefer-nhwc     no difference    0.921  0.842 to 1.007  1.20 → 1.11 ms    cannot say           within
  fuse-conv-bias  outputs changed  1.160  1.059 to 1.271  1.20 → 1.41 ms    cannot say           beyond

  fuse-conv-bias: Beyond the tolerance: output 'gpu_0/softmax_1' has 1000 NaN or infinite elements that are not the
    same in both.
  round 5 was measured again: 'prefer-nhwc': latency:p50 is 1.52 times the median of its rounds
"""


@pytest.fixture
def record(h200_experiments):
    return lambda name: TuningRecord.load(h200_experiments / name)


def changed(record, *experiments, **more):
    return replace(record, experiments=list(experiments), repeated={}, **more)


@pytest.mark.parametrize(("name", "table"), [("compute", COMPUTE), ("resnet50-b1", RESNET50)])
def test_recorded_experiments(record, name, table):
    found = tuning_summary(record(name))
    assert found.startswith(table)
    assert found.splitlines()[-1].startswith(f"  best: {record(name).best}: ")


@pytest.mark.parametrize("name", ["launch", "decoder", "compute", "memory", "pcie", "resnet50-b1"])
def test_every_lever_has_its_line_within_the_width_of_a_terminal(record, name):
    lines = tuning_summary(record(name)).splitlines()
    for each in record(name).experiments:
        assert sum(line.split()[:1] == [each.lever] for line in lines) == 1
    assert max(map(len, lines)) <= 120


def test_small_ratios_keep_their_digits(record):
    assert "0.00248  0.0019 to 0.00324" in tuning_summary(record("pcie"))


def test_levers_that_were_not_measured_say_why(record):
    refused = Experiment("tf32", "TF32", DOES_NOT_APPLY, "It is already so.")
    broken = Experiment("float16", "FP16", FAILED, "The node 'Conv_3' cannot be converted.", prediction=Prediction("x"))
    told = changed(record("launch"), refused, broken, notes=[], best=BASE, best_because="Nothing helped.")
    found = tuning_summary(told)
    assert found == "\n".join([
        "launch on NVIDIA H200: latency:p50 of 0 levers against the base, 5 rounds of fresh processes",
        "",
        "  tf32: does not apply: It is already so.",
        "  float16: failed: The node 'Conv_3' cannot be converted.",
        "",
        "  best: base: Nothing helped.",
    ])  # fmt: skip


def test_too_few_rounds_show_no_interval_and_a_cancelled_tuning_says_so(record):
    kept = record("launch")
    graph = kept.experiments[0]
    few = replace(graph, comparison=replace(graph.comparison, low=None, high=None))
    lines = tuning_summary(changed(kept, few, cancelled=True, rounds=1)).splitlines()
    assert "1 round of" in lines[0]
    assert " to 0." not in lines[3].partition("1.67 ms")[0]
    assert lines[-1] == "cancelled: what is shown was measured until then."


def test_rates_and_bytes_are_shown_in_their_units(record):
    kept = record("launch")
    graph = kept.experiments[0]
    others = {each.metric: each for each in graph.others}
    rate = changed(kept, replace(graph, comparison=others["throughput"]), objective="throughput")
    size = changed(kept, replace(graph, comparison=others["memory"]), objective="memory")
    assert "items/s" in tuning_summary(rate)
    assert "MB" in tuning_summary(size)


def test_findings_of_the_read_back_are_shown(record):
    kept = record("launch")
    graph = kept.experiments[0]
    noted = replace(graph, readback=replace(graph.readback, findings=["12 nodes run on the CPU."]))
    assert "  cuda-graph: 12 nodes run on the CPU." in tuning_summary(changed(kept, noted)).splitlines()


def test_a_copy_of_the_folder_reads_the_same(h200_experiments, tmp_path, record):
    shutil.copy(h200_experiments / "launch" / "tuning.json", tmp_path)
    assert tuning_summary(TuningRecord.load(tmp_path)) == tuning_summary(record("launch"))
