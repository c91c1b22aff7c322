"""CUPTI's records become tables; a stand-in module hands over what the real one would."""

import ctypes
import enum
import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest

from workbench.capture.cupti import CuptiTrace, cupti_problem
from workbench.errors import SourceError
from workbench.runs.schema import TABLES
from workbench.runs.writer import to_table

# numbers as in cupti_activity.h and the generated tables of callback ids
Kind = enum.IntEnum(
    "Kind",
    {
        "MEMCPY": 1, "MEMSET": 2, "DRIVER": 4, "RUNTIME": 5, "CONCURRENT_KERNEL": 10, "MEMCPY2": 22,
        "SYNCHRONIZATION": 38, "GRAPH_TRACE": 52, "OVERHEAD": 17,
    },
)  # fmt: skip
Runtime = enum.IntEnum(
    "Runtime",
    {
        "cudaMalloc_v3020": 20, "cudaMemcpyAsync_v3020": 41, "cudaGetDevice_v3020": 17, "cudaLaunchKernel_v7000": 211,
        "cudaStreamSynchronize_v3020": 131, "cudaGraphLaunch_v10000": 314,
    },
)  # fmt: skip
Driver = enum.IntEnum("Driver", {"cuLaunchKernel": 307, "cuLaunchKernelEx": 652, "cuMemAlloc_v2": 243})


Overhead = enum.IntEnum(
    "Overhead",
    {
        "DRIVER_COMPILER": 1, "CUPTI_BUFFER_FLUSH": 1 << 16, "RUNTIME_TRIGGERED_MODULE_LOADING": 4 << 16,
        "LAZY_FUNCTION_LOADING": 5 << 16,
    },
)  # fmt: skip


class CuptiError(Exception):
    pass


@pytest.fixture
def fake(monkeypatch):
    """The module `cupti.cupti`, with a log of what was switched on and off."""
    module = ModuleType("cupti.cupti")
    module.log = []
    module.ActivityKind, module.cuptiError = Kind, CuptiError
    module.runtime_api_trace_cbid, module.driver_api_trace_cbid = Runtime, Driver
    module.ActivityThreadIdType = SimpleNamespace(SYSTEM=1)
    module.ActivityOverheadKind = Overhead
    module.set_thread_id_type = lambda kind: None
    module.activity_register_callbacks = lambda request, complete: module.log.append("register")
    module.activity_enable = lambda kind: module.log.append(("on", Kind(kind).name))
    module.activity_disable = lambda kind: module.log.append(("off", Kind(kind).name))
    module.activity_flush_all = lambda flag: module.log.append(("flush", flag))
    module.dropped = 0
    module.activity_get_num_dropped_records = lambda context, stream, at: ctypes.memmove(
        at, ctypes.byref(ctypes.c_size_t(module.dropped)), ctypes.sizeof(ctypes.c_size_t)
    )
    monkeypatch.setitem(sys.modules, "cupti", ModuleType("cupti"))
    monkeypatch.setitem(sys.modules, "cupti.cupti", module)
    return module


def call(kind, cbid, correlation, start=0, end=10):
    return SimpleNamespace(kind=kind, cbid=cbid, correlation_id=correlation, start=start, end=end, thread_id=7)


def runtime(cbid, correlation, start=0, end=10):
    return call(Kind.RUNTIME, cbid, correlation, start, end)


def driver(cbid, correlation, start=2, end=8):
    return call(Kind.DRIVER, cbid, correlation, start, end)


def on_device(kind, correlation, **more):
    place = {"start": 20, "end": 30, "device_id": 0, "stream_id": 7, "graph_node_id": 0}
    return SimpleNamespace(kind=kind, correlation_id=correlation, **{**place, **more})


def kernel(correlation, name="relu", **more):
    shape = dict.fromkeys(("grid_x", "grid_y", "grid_z", "block_x", "block_y", "block_z"), 1)
    memory = {"registers_per_thread": 32, "static_shared_memory": 0, "dynamic_shared_memory": 1024}
    return on_device(Kind.CONCURRENT_KERNEL, correlation, name=name, **shape, **memory, **more)


def copy(correlation, copy_kind, source, target, kind=Kind.MEMCPY):
    return on_device(kind, correlation, copy_kind=copy_kind, bytes=4, src_kind=source, dst_kind=target)


def tables_of(*records):
    trace = CuptiTrace()
    trace._take(list(records[:1]))  # records come in buffers
    trace._take(list(records[1:]))
    return {name: table.to_pylist() for name, table in trace.tables().items()}


@pytest.mark.usefixtures("fake")
def test_the_runtime_call_around_a_driver_call_is_the_launch():
    found = tables_of(
        driver(Driver.cuLaunchKernel, 5, start=2, end=8), runtime(Runtime.cudaLaunchKernel_v7000, 5), kernel(5)
    )
    expected = {"start_ns": 0, "end_ns": 10, "thread": 7, "name": "cudaLaunchKernel", "correlation": 5}
    assert found["launches"] == [expected]
    assert len(found["kernels"]) == 1


@pytest.mark.usefixtures("fake")
def test_a_driver_call_alone_is_the_launch():
    found = tables_of(driver(Driver.cuLaunchKernelEx, 5), kernel(5), driver(Driver.cuLaunchKernel, 6), kernel(6))
    assert [row["name"] for row in found["launches"]] == ["cuLaunchKernelEx", "cuLaunchKernel"]


@pytest.mark.usefixtures("fake")
def test_calls_that_neither_work_nor_wait_nor_allocate_are_left_out():
    found = tables_of(
        runtime(Runtime.cudaGetDevice_v3020, 1),
        runtime(Runtime.cudaMalloc_v3020, 2),
        driver(Driver.cuMemAlloc_v2, 2),
        runtime(Runtime.cudaStreamSynchronize_v3020, 3),
        runtime(999, 4),
    )
    assert [row["name"] for row in found["launches"]] == ["cudaMalloc", "cudaStreamSynchronize"]


@pytest.mark.usefixtures("fake")
def test_a_call_that_is_newer_than_the_bindings_keeps_its_number():
    found = tables_of(runtime(999, 4), kernel(4))
    assert [row["name"] for row in found["launches"]] == ["call 999"]


@pytest.mark.usefixtures("fake")
def test_a_replayed_graph_is_one_row_and_its_launch():
    found = tables_of(
        runtime(Runtime.cudaGraphLaunch_v10000, 9), on_device(Kind.GRAPH_TRACE, 9, graph_id=3, start=20, end=90)
    )
    assert found["graphs"] == [{"start_ns": 20, "end_ns": 90, "device": 0, "stream": 7, "correlation": 9, "graph": 3}]
    assert [row["name"] for row in found["launches"]] == ["cudaGraphLaunch"]
    assert "kernels" not in found


@pytest.mark.usefixtures("fake")
def test_code_that_is_loaded_is_kept_and_what_the_profiler_costs_is_not():
    found = tables_of(
        *(
            SimpleNamespace(kind=Kind.OVERHEAD, overhead_kind=kind, start=10 * at, end=10 * at + 5)
            for at, kind in enumerate(Overhead)
        )
    )
    assert [(row["start_ns"], row["end_ns"], row["kind"]) for row in found["loads"]] == [
        (0, 5, "compiled"), (20, 25, "module"), (30, 35, "function"),
    ]  # fmt: skip


@pytest.mark.usefixtures("fake")
def test_copies_know_their_direction_and_memory_and_say_what_they_do_not_know():
    found = tables_of(
        copy(1, 1, 1, 3), copy(2, 2, 3, 2), copy(3, 8, 3, 3), copy(4, 10, 3, 3, Kind.MEMCPY2), copy(5, 77, 0, 99)
    )
    assert [(row["kind"], row["source"], row["target"]) for row in found["copies"]] == [
        ("h2d", "pageable", "device"),
        ("d2h", "device", "pinned"),
        ("d2d", "device", "device"),
        ("p2p", "device", "device"),
        ("other 77", None, None),
    ]


@pytest.mark.usefixtures("fake")
def test_waits_and_memsets_are_kept():
    found = tables_of(
        *(
            SimpleNamespace(kind=Kind.SYNCHRONIZATION, type=number, start=0, end=9, stream_id=7, correlation_id=number)
            for number in (1, 2, 3, 4, 0)
        ),
        on_device(Kind.MEMSET, 8, bytes=64),
    )
    assert [row["kind"] for row in found["syncs"]] == ["event", "stream_wait_event", "stream", "context", None]
    assert found["memsets"][0]["bytes"] == 64


@pytest.mark.usefixtures("fake")
def test_names_are_demangled_and_graph_nodes_are_known_or_null():
    found = tables_of(kernel(1, name="_ZN3ort4reluIfEEvPT_"), kernel(2, graph_node_id=5))
    assert found["kernels"][0]["name"] == "void ort::relu<float>(float*)"
    assert [row["graph_node"] for row in found["kernels"]] == [None, 5]


@pytest.mark.usefixtures("fake")
def test_every_table_fits_the_schema():
    trace = CuptiTrace()
    trace._take(
        [
            kernel(1), copy(2, 1, 1, 3), on_device(Kind.MEMSET, 3, bytes=1), on_device(Kind.GRAPH_TRACE, 4, graph_id=1),
            SimpleNamespace(kind=Kind.SYNCHRONIZATION, type=3, start=0, end=9, stream_id=7, correlation_id=5),
            runtime(Runtime.cudaLaunchKernel_v7000, 1),
        ]
    )  # fmt: skip
    found = trace.tables()
    assert set(found) == {"kernels", "copies", "memsets", "graphs", "syncs", "launches"}
    for name, table in found.items():
        assert len(to_table(name, table)) == 1
        assert set(TABLES[name].names) - set(table.column_names) <= {"pass", "call", "process", "graph_node"}


@pytest.mark.usefixtures("fake")
def test_an_empty_trace_has_an_empty_table_of_launches():
    found = CuptiTrace().tables()
    assert list(found) == ["launches"]
    assert len(to_table("launches", found["launches"])) == 0


def test_tracing_is_switched_on_inside_the_block_only(fake):
    with CuptiTrace():
        switched_on = [entry[1] for entry in fake.log if entry[0] == "on"]
        assert {"CONCURRENT_KERNEL", "MEMCPY", "RUNTIME", "DRIVER", "GRAPH_TRACE"} <= set(switched_on)
        assert fake.log[0] == "register"
        fake.log.clear()
    assert fake.log[0] == ("flush", 1)
    assert [entry[1] for entry in fake.log[1:]] == switched_on


def test_a_refusal_is_one_sentence(fake):
    def refuse(kind):
        raise CuptiError("CUPTI_ERROR_MULTIPLE_SUBSCRIBERS_NOT_SUPPORTED")

    fake.activity_enable = refuse
    with pytest.raises(SourceError, match=r"MULTIPLE_SUBSCRIBERS.*end other profilers"), CuptiTrace():
        pytest.fail("the block must not run")


def test_cupti_that_does_not_load_is_said_with_its_remedy(monkeypatch):
    def fail(name):
        raise ImportError("libcupti.so.13: cannot open shared object file")

    monkeypatch.setattr(importlib, "import_module", fail)
    assert "libcupti.so.13" in cupti_problem()
    with pytest.raises(SourceError, match=r"install 'ort-workbench\[gpu\]'"):
        CuptiTrace()


def test_dropped_records_are_said(fake):
    with CuptiTrace() as trace:
        fake.dropped = 12_345
    assert trace.loss == "CUPTI dropped 12,345 records: its buffers were full."
    with CuptiTrace() as trace:
        fake.dropped = 0
    assert trace.loss is None


def test_a_driver_that_does_not_count_dropped_records_is_no_failure(fake):
    def refuse(context, stream, at):
        raise CuptiError("not supported")

    fake.activity_get_num_dropped_records = refuse
    with CuptiTrace() as trace:
        pass
    assert trace.loss is None
