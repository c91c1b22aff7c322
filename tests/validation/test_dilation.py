"""The verdict of no cell hangs on how much the activity pass was slowed down."""

import numpy as np
import pytest

from tests.validation.dilated import PASS, Dilated
from workbench.analysis.device_work import call_times
from workbench.diagnosis.diagnosis import diagnose
from workbench.validation.cells import groups

FACTORS = (1.1, 1.2, 1.4)
RECORDED = [group.name for group in groups()]


@pytest.mark.parametrize("group", ["squeezenet-batch-4", "conv-border-pcie"])
@pytest.mark.parametrize("factor", FACTORS)
def test_the_helper_makes_calls_longer_and_leaves_the_work_alone(cells_of, group, factor):
    run = next(iter(cells_of(group).values())).run
    before, idle, call = (
        call_times(each, PASS) for each in (run, Dilated(run, factor, "idle"), Dilated(run, factor, "call"))
    )
    causes = ["host_ns", "launch_latency_ns", "sync_ns"]
    for after in (idle, call):
        for column in ("work_ns", "exposed_copy_ns"):
            np.testing.assert_array_equal(after[column], before[column])
    np.testing.assert_allclose(call["wall_ns"], factor * before["wall_ns"], atol=2)
    np.testing.assert_allclose(idle[causes].sum(axis=1), factor * before[causes].sum(axis=1), atol=2)
    manifest = Dilated(run, factor, "call").manifest
    assert manifest.passes[PASS].dilation == pytest.approx(factor * run.manifest.passes[PASS].dilation, rel=0.01)
    assert manifest.latency == run.manifest.latency


@pytest.mark.parametrize("group", ["squeezenet-batch-4", "conv-border-pcie"])
def test_the_helper_keeps_every_row_and_all_other_passes(cells_of, group):
    run = next(iter(cells_of(group).values())).run
    bent = Dilated(run, 1.4, "call")
    for name in ("latency", "kernels", "copies", "memsets", "launches", "syncs"):
        before, after = run.table(name), bent.table(name)
        others = before["pass"] != PASS
        assert after[others].equals(before[others])
        length = (
            (lambda rows: rows["duration_ns"])
            if name == "latency"
            else (lambda rows: rows["end_ns"] - rows["start_ns"])
        )
        assert (length(after) >= length(before)).all()
        in_order = before.loc[~others, "start_ns"].sort_values(kind="stable").index
        assert after.loc[in_order, "start_ns"].is_monotonic_increasing
        if name in ("kernels", "copies", "memsets"):
            assert (length(after) == length(before)).all()


@pytest.mark.slow
@pytest.mark.parametrize("group", RECORDED)
def test_no_verdict_changes_when_the_activity_pass_is_slowed_down(cells_of, times, group):
    if group not in times.medians_ns:
        pytest.skip("not recorded yet")
    for cell in (cell for cell in cells_of(group).values() if cell.label.accepted):
        for factor in FACTORS:
            of = ("idle", "call") if factor == FACTORS[-1] else ("call",)
            found = {each: diagnose(Dilated(cell.run, factor, each)).verdict.label for each in of}
            assert found == dict.fromkeys(of, cell.verdict), (cell.name, factor)
