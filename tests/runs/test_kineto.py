"""A trace in the form that PyTorch 2.4 and later write, and in those of older versions: exact to the nanosecond."""

import gzip
import json

import pytest

from workbench.errors import SourceError
from workbench.runs.kineto import read_kineto

BASE_NS = 1_743_521_598_000_000_000
PID, THREAD = 1147039, 1147041

HEADER = """
{
  "schemaVersion": 1,
  "deviceProperties": [
    {
      "id": 0, "name": "NVIDIA H100", "totalGlobalMem": 101997215744, "computeMajor": 9, "numSms": 132
    }
  ],
  "cupti_version": 24,
  "record_shapes": 1,
  "trace_id": "301995E163ED42048FBD783860E6E7DC",
  "displayTimeUnit": "ms",
  "baseTimeNanoseconds": 1743521598000000000,
  "traceEvents": ["""

EVENTS = """
  {
    "ph": "M", "name": "process_name", "ts": 198093488368.000, "pid": 0, "tid": 0, "args": { "name": "python" }
  },
  {
    "ph": "X", "cat": "user_annotation", "name": "ProfilerStep#3", "pid": 1147039, "tid": 1147041,
    "ts": 198093488000.001, "dur": 999.998, "args": { "External id": 1 }
  },
  {
    "ph": "X", "cat": "cpu_op", "name": "aten::linear", "pid": 1147039, "tid": 1147041,
    "ts": 198093488368.463, "dur": 425.453,
    "args": {
      "External id": 1340,"Record function id": 0, "Concrete Inputs": ["", "", "", "1"],
      "Input type": ["c10::Half", "c10::Half", "", "Scalar"], "Input Dims": [[1, 2048], [1000, 2048], [], []]
    }
  },
  {
    "ph": "X", "cat": "cpu_op", "name": "aten::addmm", "pid": 1147039, "tid": 1147041,
    "ts": 198093488370.000, "dur": 251.13, "args": { "External id": 1341 }
  },
  {
    "ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1147039, "tid": 1147041,
    "ts": 198093488380.125, "dur": 5.25, "args": { "External id": 1341, "cbid": 211, "correlation": 77 }
  },
  {
    "ph": "s", "id": 77, "pid": 1147039, "tid": 1147041, "ts": 198093488380.125, "cat": "ac2g", "name": "ac2g"
  },
  {
    "ph": "X", "cat": "cuda_driver", "name": "cuLaunchKernelEx", "pid": 1147039, "tid": 1147041,
    "ts": 198093488390.000, "dur": 4, "args": { "cbid": 652, "correlation": 78 }
  },
  {
    "ph": "X", "cat": "cuda_runtime", "name": "cudaStreamSynchronize", "pid": 1147039, "tid": 1147041,
    "ts": 198093488400.000, "dur": 90.007, "args": { "cbid": 131, "correlation": 79 }
  },
  {
    "ph": "X", "cat": "kernel", "name": "void gemv<__half>(\\"x\\")", "pid": 0, "tid": 7,
    "ts": 198093488401.999, "dur": 12.736,
    "args": {
      "External id": 1341, "queued": 0, "device": 0, "context": 1, "stream": 7, "correlation": 77,
      "registers per thread": 40, "shared memory": 4608, "blocks per SM": 1.893939, "warps per SM": 7.575758,
      "grid": [250, 1, 2], "block": [128, 1, 1], "est. achieved occupancy %": 12, "graph node id": 0
    }
  },
  {
    "ph": "X", "cat": "kernel", "name": "replayed", "pid": 0, "tid": 7, "ts": 198093488420.000, "dur": 1.000,
    "args": { "device": 0, "stream": 7, "correlation": 78, "graph id": 2, "graph node id": 8589934599 }
  },
  {
    "ph": "X", "cat": "gpu_memcpy", "name": "Memcpy HtoD (Pageable -> Device)", "pid": 0, "tid": 7,
    "ts": 198093488430.000, "dur": 3.2, "args": { "device": 0, "stream": 7, "correlation": 80, "bytes": 602112,
    "memory bandwidth (GB/s)": 18.816 }
  },
  {
    "ph": "X", "cat": "gpu_memcpy", "name": "Memcpy DtoD (Device Static -> Managed)", "pid": 0, "tid": 7,
    "ts": 198093488434.000, "dur": 0.5, "args": { "device": 0, "stream": 7, "correlation": 81, "bytes": 16 }
  },
  {
    "ph": "X", "cat": "gpu_memset", "name": "Memset (Device)", "pid": 0, "tid": 7,
    "ts": 198093488435.001, "dur": 0.999, "args": { "device": 0, "stream": 7, "correlation": 82, "bytes": 4096 }
  },
  {
    "ph": "X", "cat": "gpu_user_annotation", "name": "ProfilerStep#3", "pid": 0, "tid": 7,
    "ts": 198093488401.998, "dur": 40.0, "args": { "External id": 1 }
  },
  {
    "ph": "X", "cat": "user_annotation", "name": "ProfilerStep#4", "pid": 1147039, "tid": 1147041,
    "ts": 198093489000.000, "dur": 10, "args": { "External id": 2 }
  },
  {
    "ph": "X", "cat": "user_annotation", "name": "my block", "pid": 1147039, "tid": 1147041,
    "ts": 198093489001.000, "dur": 1.001, "args": { "External id": 3 }
  },
  {
    "ph": "i", "s": "g", "name": "Record Window End", "pid": "", "tid": "", "ts": 198093489100.000
  }"""

SYNC = """
  {
    "ph": "X", "cat": "cuda_sync", "name": "Context Sync", "pid": 0, "tid": 1,
    "ts": 198093488500.000, "dur": 2.5,
    "args": { "cuda_sync_kind": "Context Sync", "stream": -1, "correlation": 83, "device": 0, "context": 1 }
  },"""
FOOTER = '\n  ],\n  "traceName": "trace.json"\n}'


def trace_of(folder, events=EVENTS, header=HEADER, footer=FOOTER):
    path = folder / "trace.json"
    path.write_text(header + events + footer)
    return read_kineto(path)


def rows(trace, name):
    return trace.tables[name].to_pylist()


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return trace_of(tmp_path_factory.mktemp("kineto"))


def at(microseconds_since_base: str) -> int:
    """The whole nanosecond, by moving the point."""
    whole, _, part = microseconds_since_base.partition(".")
    return BASE_NS + int(whole + part.ljust(3, "0"))


def test_operators_are_nodes_that_nest(trace):
    linear, addmm = rows(trace, "nodes")
    assert linear["start_ns"] == at("198093488368.463")
    assert linear["duration_ns"] == 425_453
    assert addmm["duration_ns"] == 251_130
    assert linear["start_ns"] < addmm["start_ns"]
    assert addmm["start_ns"] + addmm["duration_ns"] < linear["start_ns"] + linear["duration_ns"]
    assert (linear["name"], linear["op_type"], linear["provider"]) == ("aten::linear", "aten::linear", "PyTorch")
    assert linear["thread"] == THREAD
    assert json.loads(linear["input_shapes"]) == [{"float16": [1, 2048]}, {"float16": [1000, 2048]}]
    assert addmm["input_shapes"] is None


def test_a_kernel_has_its_launch_configuration_and_its_host_process(trace):
    kernel, replayed = rows(trace, "kernels")
    assert (kernel["start_ns"], kernel["end_ns"]) == (at("198093488401.999"), at("198093488414.735"))
    assert kernel["name"] == 'void gemv<__half>("x")'
    assert [kernel[f"grid_{axis}"] for axis in "xyz"] == [250, 1, 2]
    assert [kernel[f"block_{axis}"] for axis in "xyz"] == [128, 1, 1]
    assert (kernel["registers"], kernel["dynamic_shared_bytes"]) == (40, 4608)
    assert (kernel["device"], kernel["stream"], kernel["correlation"], kernel["process"]) == (0, 7, 77, PID)
    assert kernel["graph_node"] is None
    assert replayed["graph_node"] == 8589934599
    assert replayed["grid_x"] is None


def test_copies_say_direction_and_memory(trace):
    h2d, d2d = rows(trace, "copies")
    assert (h2d["kind"], h2d["source"], h2d["target"], h2d["bytes"]) == ("h2d", "pageable", "device", 602112)
    assert (d2d["kind"], d2d["source"], d2d["target"]) == ("d2d", "device", "managed")
    (memset,) = rows(trace, "memsets")
    assert (memset["bytes"], memset["end_ns"]) == (4096, at("198093488436.000"))


def test_launches_are_runtime_and_driver_calls(trace):
    launches = rows(trace, "launches")
    assert [call["name"] for call in launches] == ["cudaLaunchKernel", "cuLaunchKernelEx", "cudaStreamSynchronize"]
    assert [call["correlation"] for call in launches] == [77, 78, 79]
    assert {call["thread"] for call in launches} == {THREAD}
    assert (launches[0]["start_ns"], launches[0]["end_ns"]) == (at("198093488380.125"), at("198093488385.375"))


def test_a_synchronising_call_stands_in_for_records_that_were_not_asked_for(trace, tmp_path):
    (sync,) = rows(trace, "syncs")
    assert (sync["kind"], sync["correlation"], sync["stream"]) == ("stream", 79, None)
    (recorded,) = rows(trace_of(tmp_path, SYNC + EVENTS), "syncs")
    assert (recorded["kind"], recorded["correlation"], recorded["stream"]) == ("context", 83, None)
    assert recorded["end_ns"] == at("198093488502.500")


def test_steps_are_the_calls(trace):
    starts, ends = trace.calls
    assert starts.tolist() == [at("198093488000.001"), at("198093489000.000")]
    assert ends.tolist() == [at("198093488999.999"), at("198093489010.000")]
    assert [each["name"] for each in rows(trace, "ranges")] == ["ProfilerStep#3", "ProfilerStep#4", "my block"]


def test_what_the_trace_says_of_itself(trace):
    assert trace.device_name == "NVIDIA H100"
    assert trace.device_properties[0]["numSms"] == 132
    assert trace.on_epoch
    assert trace.processes == {PID}
    assert (trace.cut, trace.skipped, trace.ignored) == (False, 0, 1)


def test_a_trace_without_steps_has_no_calls(tmp_path):
    events = EVENTS.replace("ProfilerStep#", "Step ")
    assert trace_of(tmp_path, events).calls is None


def test_an_older_trace_is_on_the_epoch_by_itself_and_keeps_the_nanosecond(tmp_path):
    """A float64 of microseconds since 1970 steps by 0.25, so such times must not pass through one."""
    events = """[
      {"ph": "X", "cat": "Operator", "name": "aten::mm", "pid": 5, "tid": "6", "ts": 1627000000123456.789, "dur": 2},
      {"ph": "X", "cat": "Operator", "name": "ProfilerStep#1", "pid": 5, "tid": 6, "ts": 1627000000123456, "dur": 9},
      {"ph": "X", "cat": "Kernel", "name": "mm", "pid": 0, "tid": "stream 7", "ts": 1627000000123458.001, "dur": 0.002,
       "args": {"device": 0, "stream": 7, "correlation": 3, "grid": [1, 1, 1], "block": [32, 1, 1]}}]"""
    trace = trace_of(tmp_path, events, "", "")
    (node,), (kernel,) = rows(trace, "nodes"), rows(trace, "kernels")
    assert node["start_ns"] == 1_627_000_000_123_456_789
    assert (kernel["start_ns"], kernel["end_ns"]) == (1_627_000_000_123_458_001, 1_627_000_000_123_458_003)
    assert node["thread"] is None
    assert trace.on_epoch
    assert trace.calls[0].tolist() == [1_627_000_000_123_456_000]


def test_times_of_an_unknown_start_are_not_on_the_epoch(tmp_path):
    assert not trace_of(tmp_path, header='{"traceEvents": [').on_epoch


def test_several_processes_leave_device_work_without_one(tmp_path):
    events = EVENTS + ',{"ph": "X", "cat": "cpu_op", "name": "a", "pid": 9, "tid": 9, "ts": 1.0, "dur": 1.0}'
    trace = trace_of(tmp_path, events)
    assert trace.processes == {PID, 9}
    assert {kernel["process"] for kernel in rows(trace, "kernels")} == {None}


def test_a_cut_gzip_gives_what_it_holds(tmp_path):
    path = tmp_path / "run.pt.trace.json.gz"
    path.write_bytes(gzip.compress((HEADER + EVENTS[: EVENTS.index("gpu_memset")]).encode()))
    trace = read_kineto(path)
    assert trace.cut
    assert len(rows(trace, "copies")) == 2
    assert not rows(trace, "memsets")


@pytest.mark.parametrize(
    "damage",
    [
        '"ts": 1e30, "dur": 1', '"ts": NaN, "dur": 1', '"ts": "1", "dur": 1', '"ts": 1', '"ts": true, "dur": 1',
        '"ts": 1, "dur": 1e9999', '"ts": null, "dur": [1]', '"ts": -1e25, "dur": 1',
    ],
)  # fmt: skip
def test_an_event_without_usable_times_is_counted(tmp_path, damage):
    event = '{"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, ' + damage + "},"
    trace = trace_of(tmp_path, event + EVENTS)
    assert trace.skipped == 1
    assert len(rows(trace, "kernels")) == 2


@pytest.mark.parametrize("value", ["[1]", "{}", '"x"', "1e5", "99999999999999999999", "null", "[1, 2, 3e1]", "true"])
def test_an_argument_of_another_kind_is_unknown(tmp_path, value):
    keys = ["device", "stream", "correlation", "grid", "block", "registers per thread", "shared memory", "bytes"]
    keys += ["graph node id", "cuda_sync_kind", "Input Dims", "Input type"]
    args = ", ".join(f'"{key}": {value}' for key in keys)
    same = '"ph": "X", "name": "n", "pid": 1, "tid": 2, "ts": 1, "dur": 1, "args": {' + args + "}"
    categories = ("kernel", "gpu_memcpy", "gpu_memset", "cuda_sync", "cpu_op", "cuda_runtime")
    events = ",".join(f'{{"cat": "{category}", {same}}}' for category in categories)
    trace = trace_of(tmp_path, events)
    (kernel,), (node,) = rows(trace, "kernels"), rows(trace, "nodes")
    assert (kernel["grid_x"], kernel["registers"], kernel["correlation"]) == (None, None, None)
    assert node["input_shapes"] in (None, "[]")
    assert trace.skipped == 0


def test_a_trace_of_something_else_is_one_sentence(tmp_path):
    other = '{"traceEvents": [{"ph": "X", "cat": "blink", "name": "paint", "pid": 1, "tid": 1, "ts": 1, "dur": 1}'
    with pytest.raises(SourceError, match="no events of the PyTorch profiler: record it again"):
        trace_of(tmp_path, other, "", "]}")
