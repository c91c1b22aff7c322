"""What was taken away cannot be reached any more, and what was left is whole."""

import numpy as np
import pandas as pd
import pytest

from workbench.diagnosis.diagnosis import diagnose
from workbench.runs.schema import TABLES
from workbench.validation.ablation import ABLATIONS, EVERYTHING, LATENCY_AND_NVML, Without

TAKEN = {name: taken for name, taken in ABLATIONS.items() if name != EVERYTHING}


@pytest.fixture(scope="module")
def run(cells_of):
    return cells_of("squeezenet-batch-4")["device"].run


@pytest.mark.parametrize("name", TAKEN)
def test_no_row_of_a_taken_pass_is_left_and_all_others_are(run, name):
    left = Without(run, TAKEN[name])
    for table in TABLES:
        whole = run.table(table)
        kept = np.array([row not in TAKEN[name] and table not in TAKEN[name] for row in whole["pass"]], bool)
        pd.testing.assert_frame_equal(left.table(table), whole[kept])
        columns = TABLES[table].names[:0:-1]
        pd.testing.assert_frame_equal(left.table(table, columns), whole.loc[kept, columns])


@pytest.mark.parametrize("name", TAKEN)
def test_the_manifest_tells_nothing_of_what_was_taken(run, name):
    taken, left = TAKEN[name], Without(run, TAKEN[name]).manifest
    for each, info in left.passes.items():
        if each in taken:
            assert (info.state, info.calls, info.median_ns, info.dilation) == ("skipped", 0, None, None)
        elif "samples" not in taken:
            assert info == run.manifest.passes[each]
    assert (left.sources["gpm"].state == "absent") == ("counters" in taken)
    assert (left.sources["ort_profiler"].state == "absent") == ("nodes" in taken)
    assert (left.sources["cupti"].state == "absent") == ({"activity", "nodes"} <= set(taken))
    assert (left.sources["nvml"].state == "absent") == ("samples" in taken)
    if "samples" in taken:
        assert {info.peak_device_bytes for info in left.passes.values()} == {None}
    assert left.latency == run.manifest.latency


def test_the_graph_that_the_nodes_pass_saves_goes_with_it_and_the_model_stays(run):
    assert Without(run, ("counters", "activity")).graph is not None
    without = Without(run, ("nodes",))
    assert without.graph is None
    assert without.model_graph is not None


def test_without_traces_the_diagnosis_knows_no_device_work_and_is_less_sure(run):
    found = diagnose(Without(run, ABLATIONS[LATENCY_AND_NVML]))
    whole = diagnose(run)
    assert found.nodes is None or not len(found.nodes.device)
    assert not found.corroboration
    assert found.confidence < whole.confidence
    assert len(found.missing) > len(whole.missing)


def test_nothing_taken_is_the_run_itself(run):
    assert diagnose(Without(run, ())).to_dict() == diagnose(run).to_dict()
