"""A run seen without other processes and devices."""

from given_tables import PASS, Given, call, kernel, launch

from workbench.analysis.device_work import call_times
from workbench.analysis.subject import Restricted
from workbench.api import load
from workbench.diagnosis.diagnosis import diagnose


def test_a_restricted_run_hides_other_processes_and_devices_and_keeps_labels():
    run = Given(
        kernels=[kernel(0, 0, 5, 1, process=2, device=1), kernel(0, 10, 20, 1, process=1), kernel(0, 30, 40, 2)],
        launches=[launch(0, 1, 1, process=2), launch(8, 9, 1, process=1), launch(28, 29, 2)],
        latency=[call(0, 0, 100)],
        samples=[{"time_ns": 1, "device": 0, "metric": "m", "value": 1.0}, {"time_ns": 1, "device": 1, "metric": "m"}],
        steps=[{"name": "import", "start_ns": 0, "duration_ns": 1}],
    )
    seen = Restricted(run, process=1, device=0)
    assert seen.table("kernels").index.tolist() == [1, 2]
    assert seen.table("kernels", ["end_ns"])["end_ns"].tolist() == [20, 40]
    assert list(seen.table("kernels", ["end_ns"])) == ["end_ns"]
    assert seen.table("launches")["start_ns"].tolist() == [8, 28]
    assert len(seen.table("samples")) == len(seen.table("steps")) == 1
    assert call_times(seen, PASS)["work_ns"].tolist() == [20]


def test_a_run_of_one_process_and_device_is_diagnosed_the_same(h200):
    run = load(h200 / "launch_numpy")
    assert set(run.table("kernels")["device"]) == {0}
    assert diagnose(Restricted(run, process=None, device=0)).to_dict() == run.diagnosis.to_dict()
