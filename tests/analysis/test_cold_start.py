"""What each step of the cold start took, what of it was seen in the trace, and what a first call costs once."""

import pandas as pd
import pytest
from given_tables import Given, call, copy, kernel, launch

from workbench.analysis.cold_start import cold_start

MS = 1_000_000
STEPS = {
    "import": 100, "session": 300, "first call": 400, "shape 2": 200, "shape 2 again": 2, "shape 3": 90,
}  # fmt: skip
# the activity pass makes the same steps one after the other, and no further shape after the second
TRACED = {"import": (0, 110), "session": (110, 500), "first call": (500, 900), "shape 2": (900, 1_100)}
TRACED |= {"shape 2 again": (1_100, 1_103)}
MEASURED = [(1_200, 1_202), (1_202, 1_205), (1_205, 1_208), (1_208, 1_212)]


def bare_and_traced(calls=MEASURED):
    """`latency` of the bare pass, where calls take 1, 2, 3 and 5 ms, and of the activity pass."""
    bare = [
        call(number, start, start + duration * MS, **{"pass": "latency"})
        for number, (start, duration) in enumerate(zip((0, 10 * MS, 20 * MS, 30 * MS), (1, 2, 3, 5), strict=True))
    ]
    return bare + [call(number, start * MS, end * MS) for number, (start, end) in enumerate(calls)]


def between(start, end, **more):
    return {"start_ns": start * MS, "end_ns": end * MS, **more}


def work(start, end, **more):
    return kernel(0, start * MS, end * MS, 1, **more)


def given(calls=MEASURED, **tables):
    steps = [{"pass": "latency", "name": name, "start_ns": 0, "duration_ns": ms * MS} for name, ms in STEPS.items()]
    ranges = [between(*edges, name=name, call=-1) for name, edges in TRACED.items()]
    # the same step of another pass lies elsewhere
    ranges.append(between(5_000, 6_000, name="session", **{"pass": "nodes"}))
    return Given(steps=steps, ranges=ranges, latency=bare_and_traced(calls), **tables)


def column(run, name):
    """A column in whole milliseconds, None where it is unknown."""
    values = cold_start(run)[name]
    assert values.dtype == "Int64"
    return {step: None if pd.isna(value) else value / MS for step, value in values.items()}


def test_second_calls_of_shapes_are_no_steps_of_their_own():
    table = cold_start(given())
    assert table.index.tolist() == ["import", "session", "first call", "shape 2", "shape 3"]
    assert (table["duration_ns"] // MS).tolist() == [100, 300, 400, 200, 90]


def test_a_first_call_is_compared_with_the_lower_median_and_a_shape_with_its_second_call():
    assert column(given(), "usual_ns") == {
        "import": None, "session": None, "first call": 2, "shape 2": 2, "shape 3": None,
    }  # fmt: skip
    assert column(given(), "beyond_usual_ns") == {
        "import": None, "session": None, "first call": 398, "shape 2": 198, "shape 3": None,
    }  # fmt: skip


def test_loading_is_a_union_inside_the_traced_step_and_unknown_where_the_step_was_not_traced():
    loads = [
        between(100, 130, kind="module"),  # 10 in import, 20 in session
        between(600, 700, kind="module"),
        between(650, 690, kind="function"),  # inside the module's
        between(690, 720, kind="compiled"),
        between(5_000, 5_100, kind="module", **{"pass": "nodes"}),
    ]
    assert column(given(loads=loads), "loading_ns") == {
        "import": 10, "session": 20, "first call": 120, "shape 2": 0, "shape 3": None,
    }  # fmt: skip


def test_allocations_are_the_host_calls_that_allocate_or_free():
    names = ["cudaMalloc", "cudaFree", "cudaHostAlloc", "cudaMallocAsync", "cudaFreeHost"]
    launches = [launch((510 + 20 * at) * MS, (520 + 20 * at) * MS, at, name=name) for at, name in enumerate(names)]
    launches.append(launch(700 * MS, 750 * MS, 9))
    launches.append(launch(750 * MS, 800 * MS, 10, name="cudaStreamSynchronize"))
    assert column(given(launches=launches), "allocation_ns")["first call"] == 50
    assert column(given(launches=launches[-2:]), "allocation_ns")["first call"] == 0


def test_the_rest_of_a_step_is_what_nothing_covers():
    loads = [between(500, 600, kind="module")]
    launches = [launch(590 * MS, 620 * MS, 1, name="cudaMalloc")]
    kernels = [work(610, 640), work(895, 905)]
    run = given(loads=loads, launches=launches, kernels=kernels)
    assert column(run, "device_ns")["first call"] == 35
    assert column(run, "other_ns")["first call"] == 400 - 140 - 5
    without = given(launches=launches, kernels=kernels)
    assert column(without, "device_ns")["first call"] == 35
    assert column(without, "other_ns")["first call"] is None


def test_a_search_that_times_its_candidates_shows_as_kernels_beyond_a_usual_call():
    usual = [work(start, start + 1) for start, _ in MEASURED] + [work(1_208 + 2, 1_208 + 3)]  # the last call has two
    first = [work(start, start + 1) for start in range(500, 580, 10)]
    shape = [work(1_000, 1_007), work(1_100, 1_101)]
    run = given(kernels=usual + first + shape, copies=[copy(0, 800 * MS, 890 * MS, 1, "h2d")])
    assert column(run, "device_ns")["first call"] == 8 + 90
    assert column(run, "work_beyond_usual_ns") == {
        "import": None, "session": None, "first call": 8 - 1, "shape 2": 7 - 1, "shape 3": None,
    }  # fmt: skip
    assert cold_start(run)["kernels_beyond_usual"].tolist()[2:4] == [8 - 1, 0]


def test_kernels_that_a_replay_hides_are_not_counted():
    replays = [between(start, start + 1, call=0, device=0, stream=7, graph=1) for start, _ in MEASURED]
    run = given(kernels=[work(500, 510)], graphs=replays)
    table = cold_start(run)
    assert table.loc["first call", "work_beyond_usual_ns"] == 9 * MS
    assert pd.isna(table.loc["first call", "kernels_beyond_usual"])


def test_calls_that_overlap_are_nothing_to_compare_with():
    run = given([(1_200, 1_210), (1_205, 1_215)], kernels=[work(500, 510), work(1_201, 1_202)])
    assert column(run, "beyond_usual_ns")["first call"] == 398  # the bare calls do not
    assert column(run, "work_beyond_usual_ns")["first call"] is None


def test_what_was_not_recorded_is_unknown_and_not_nothing():
    table = cold_start(given()).drop(columns=["duration_ns", "usual_ns", "beyond_usual_ns", "traced_ns"])
    assert table.isna().all(axis=None)


def test_without_steps_there_are_no_rows():
    assert cold_start(Given()).empty


@pytest.mark.parametrize("name", ["resnet50_b1_device", "resnet50_b1_numpy", "resnet50_b1_device_nsys"])
def test_the_exhaustive_search_of_a_real_run_takes_host_time_and_no_device_work(recorded, name):
    """With cuDNN 9, ONNX Runtime asks a heuristic also where an exhaustive search is asked for."""
    run = recorded(name)
    assert run.manifest.provider_options["CUDAExecutionProvider"]["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    first = cold_start(run).loc["first call"]
    assert first["kernels_beyond_usual"] == 0
    assert abs(first["work_beyond_usual_ns"]) < 0.01 * first["device_ns"]
    assert first["device_ns"] < 0.01 * first["traced_ns"]
    assert first["beyond_usual_ns"] > 0.99 * first["duration_ns"]
    assert first[["loading_ns", "other_ns"]].isna().all()  # recorded before the loading of code was


def test_the_first_call_that_captures_a_graph_works_more_than_a_replay(recorded):
    table = cold_start(recorded("launch_device_graph"))
    first = table.loc["first call"]
    assert 0 < first["work_beyond_usual_ns"] < first["device_ns"]
    assert pd.isna(first["kernels_beyond_usual"])


def test_weights_are_allocated_and_copied_while_the_session_is_made(recorded):
    table = cold_start(recorded("resnet50_b1_device"))
    assert table["allocation_ns"].idxmax() == "session"
    assert table["device_ns"].idxmax() == "session"
    assert table.loc["import", "device_ns"] == 0
