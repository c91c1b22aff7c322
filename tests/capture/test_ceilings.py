"""Ceilings: what a CPU gives, the cache, and failures that stay alone. The GPU's own numbers need a GPU."""

import json
import math
import re
import subprocess
from collections import Counter
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from workbench.capture import ceilings as package
from workbench.capture.ceilings import __main__ as command
from workbench.capture.ceilings import (
    cache,
    device_limits,
    driver,
    load_or_measure,
    measure,
    measure_in_process,
    ort_chains,
    ptx,
)
from workbench.capture.ceilings.collect import Collector
from workbench.capture.ceilings.data_sheet import source_of
from workbench.capture.ceilings.ort_chains import Backend
from workbench.capture.ceilings.timing import durations_ns
from workbench.errors import ConfigError, NoDriverError, SourceError, WorkerError, WorkerTimeoutError
from workbench.runs.manifest import Ceilings

CPU_RATES = {"tensor:float32", "fp:float32", "special:float32"}
ONLY_GPU = {name for name in Ceilings.model_fields if name.startswith(("h2d", "d2h", "launch", "shortest", "replay"))}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def counted(monkeypatch):
    """Replaces the measurement by numbers that tell one call from the next."""
    calls = []

    def fake(kind, *, device_id=0, threads=None, progress=None):
        calls.append((kind, threads))
        key = cache.key_of(Backend(kind, device_id, threads))
        return Ceilings(memory_bytes_per_s=float(len(calls)), key=key)

    monkeypatch.setattr(package, "measure", fake)
    return calls


@pytest.mark.slow
def test_cpu_limits_are_positive_and_finite():
    seen = []
    found = measure("cpu", threads=1, progress=seen.append)
    assert set(found.flops_per_s) == CPU_RATES
    numbers = [*found.flops_per_s.values(), found.memory_bytes_per_s, found.node_overhead_ns]
    assert all(math.isfinite(number) and number > 0 for number in numbers)
    assert all(getattr(found, name) is None for name in ONLY_GPU)
    assert len(seen) == 4
    assert found.notes == []


def test_failed_measurement_leaves_none_and_a_note_and_spares_the_others(monkeypatch):
    def refuse(backend):
        raise RuntimeError("no room for the tensor\nat line 7")

    monkeypatch.setattr(ort_chains, "neg_bytes_per_s", refuse)
    monkeypatch.setattr(ort_chains, "matmul_flops_per_s", lambda *_: 7.0)
    monkeypatch.setattr(ort_chains, "exp_per_s", lambda _: 5.0)
    monkeypatch.setattr(ort_chains, "node_overhead_ns", lambda _: -3.0)
    found = measure("cpu")
    assert found.memory_bytes_per_s is None
    assert found.node_overhead_ns is None  # a slope below zero is noise, not a cost
    assert found.flops_per_s == {"tensor:float32": 7.0, "fp:float32": 7.0, "special:float32": 5.0}
    assert len(found.notes) == 2
    assert found.notes[0].endswith("no room for the tensor")


def test_cache_round_trip_and_refresh(counted):
    first = load_or_measure("cpu")
    assert load_or_measure("cpu") == first
    assert len(counted) == 1
    assert load_or_measure("cpu", refresh=True).memory_bytes_per_s == 2.0
    assert load_or_measure("cpu").memory_bytes_per_s == 2.0
    assert len(counted) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b'{"memory_bytes_per_s": "fast"}', b'{"key": {}}', b"\xff\xfe"])
def test_damaged_cache_is_measured_anew(counted, damage):
    load_or_measure("cpu")
    path = cache.path_of(cache.key_of(Backend("cpu")))
    path.write_bytes(damage)
    assert load_or_measure("cpu").memory_bytes_per_s == 2.0
    assert load_or_measure("cpu").memory_bytes_per_s == 2.0
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # nothing half-written stays behind


def test_threads_and_ort_version_have_files_of_their_own(counted, monkeypatch):
    for threads in (None, 1, 2):
        load_or_measure("cpu", threads=threads)
    monkeypatch.setattr(ort, "__version__", "99.0")
    load_or_measure("cpu")
    assert counted == [("cpu", None), ("cpu", 1), ("cpu", 2), ("cpu", None)]


def test_unwritable_cache_is_told_and_the_result_given(counted, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    found = load_or_measure("cpu")
    assert found.memory_bytes_per_s == 1.0
    assert "WORKBENCH_CACHE" in found.notes[-1]


def test_cache_follows_xdg_and_then_home(tmp_path, monkeypatch):
    key = cache.key_of(Backend("cpu"))
    monkeypatch.delenv("WORKBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.path_of(key).parent == tmp_path / "xdg" / "workbench" / "ceilings"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.path_of(key).parent == tmp_path / ".cache" / "workbench" / "ceilings"


def test_impossible_arguments_are_refused():
    for arguments in ({"kind": "tpu"}, {"kind": "cpu", "threads": 0}, {"kind": "cuda", "device_id": -1}):
        with pytest.raises(ConfigError):
            measure(**arguments)


def test_command_writes_the_file_and_names_each_measurement(tmp_path, monkeypatch, capsys):
    def fake(kind, *, device_id, threads, progress, refresh):
        progress("something")
        return Ceilings(launch_ns=2.0, key={"kind": kind, "threads": str(threads)})

    monkeypatch.setattr(command, "load_or_measure", fake)
    out = tmp_path / "new" / "ceilings.json"
    assert command.main(["--kind", "cpu", "--threads", "2", "--out", str(out)]) == 0
    assert Ceilings.model_validate_json(out.read_text()).key == {"kind": "cpu", "threads": "2"}
    assert capsys.readouterr().out == "something\n"
    (tmp_path / "file").write_text("")
    assert command.main(["--kind", "cpu", "--out", str(tmp_path / "file" / "x.json")]) == 2
    assert json.loads(capsys.readouterr().err)["kind"] == "ConfigError"


def test_without_a_driver_the_gpu_is_refused_in_one_sentence(monkeypatch, capsys, tmp_path):
    pynvml = pytest.importorskip("pynvml")

    def missing():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    with pytest.raises(NoDriverError, match=r"install it.*'cpu'\.$"):
        measure("cuda")
    assert command.main(["--kind", "cuda", "--out", str(tmp_path / "x.json")]) == 2
    assert json.loads(capsys.readouterr().err)["kind"] == "NoDriverError"


def test_child_process_gives_what_the_cache_holds():
    key = cache.key_of(Backend("cpu", threads=1))
    kept = Ceilings(memory_bytes_per_s=12.0, key=key)
    cache.store(kept, cache.path_of(key))
    assert measure_in_process("cpu", threads=1, timeout_s=60) == kept


def test_child_process_passes_on_errors_and_its_time_limit():
    with pytest.raises(ConfigError, match="threads 0"):
        measure_in_process("cpu", threads=0)
    with pytest.raises(WorkerTimeoutError, match=r"0\.01 s"):
        measure_in_process("cpu", timeout_s=0.01)


@pytest.mark.parametrize("last_words", ["", "Segmentation fault", "7", '{"kind": "NoDriverError"}'])
def test_child_process_that_dies_unnamed_is_a_worker_error(monkeypatch, last_words):
    ended = subprocess.CompletedProcess([], -11, stdout="", stderr=last_words)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(WorkerError, match="-11"):
        measure_in_process("cpu")


def test_refused_cuda_call_names_the_call_and_the_code():
    def cu_mem_alloc(size_bytes):
        return (np.int32(2), None) if size_bytes > 10 else (np.int32(0), 4096)

    assert driver.call(cu_mem_alloc, 10) == 4096
    with pytest.raises(SourceError, match="cu_mem_alloc with 2"):
        driver.call(cu_mem_alloc, 11)


class _FakeDriver:
    """Answers every driver call with success; counts what is open; `refuse` names the one call that fails."""

    PAIRS = (("MemAlloc", "MemFree"), ("MemHostAlloc", "MemFreeHost"), ("ModuleLoadData", "ModuleUnload"),
             ("StreamCreate", "StreamDestroy"), ("StreamBeginCapture", "StreamEndCapture"),
             ("EventCreate", "EventDestroy"), ("GraphInstantiate", "GraphExecDestroy"),
             ("StreamEndCapture", "GraphDestroy"), ("DevicePrimaryCtxRetain", "DevicePrimaryCtxRelease"))  # fmt: skip

    def __init__(self, refuse=None):
        self.refuse, self.calls = refuse, Counter()
        self.host = np.ones(8, np.uint8)

    def __getattr__(self, name):
        if name.startswith("CU"):
            return _Names()

        def answer(*arguments):
            known = {"cuEventElapsedTime": 0.5, "cuDeviceGetCount": 1, "cuMemHostAlloc": self.host.ctypes.data}
            status, value = (700, None) if name == self.refuse else (0, known.get(name, 3))
            self.calls[name] += status == 0
            return (np.int32(status),) if name == "cuLaunchKernel" else (np.int32(status), value)

        answer.__name__ = name
        return answer

    def left_open(self):
        return [pair for pair in self.PAIRS if self.calls[f"cu{pair[0]}"] != self.calls[f"cu{pair[1]}"]]


class _Names:
    def __getattr__(self, name):
        return 1


GPU_MEASUREMENTS = ("device_copy_bytes_per_s", "pageable_copies_bytes_per_s", "pinned_copies_bytes_per_s",
                    "fma_flops_per_s", "exponentials_per_s", "launch_ns", "replayed_kernel_ns")  # fmt: skip


@pytest.mark.parametrize(
    "refuse", [None, "cuMemsetD8Async", "cuMemcpyHtoD", "cuMemcpyDtoDAsync", "cuLaunchKernel", "cuGraphLaunch",
               "cuGraphInstantiate", "cuEventRecord", "cuEventElapsedTime", "cuModuleGetFunction"]
)  # fmt: skip
def test_device_measurements_give_back_what_they_took_even_when_refused(monkeypatch, refuse):
    fake = _FakeDriver(refuse)
    monkeypatch.setattr(driver, "_bindings", lambda: fake)
    monkeypatch.setattr(device_limits, "HOST_COPY_BYTES", 8)
    monkeypatch.setattr(device_limits, "durations_ns", partial(durations_ns, budget_ns=0, warm_up_ns=0))
    failed = []
    with driver.CudaDevice(0) as device:
        for name in GPU_MEASUREMENTS:
            try:
                getattr(device_limits, name)(device)
            except SourceError as error:
                failed.append(str(error))
    assert fake.left_open() == []
    assert bool(failed) == (refuse is not None)
    assert all(f"{refuse} with 700" in message for message in failed)
    assert len(failed) < len(GPU_MEASUREMENTS)


def _cuda_collector(monkeypatch, *, capability=(9, 0), traced=lambda _: 900.0, refused=()):
    """Runs the list of GPU measurements with each of them replaced by a number, or by a refusal."""

    def stand_in(name, result):
        def measurement(*_, **__):
            if name in refused:
                raise SourceError(f"{name} refused.")
            return result

        return measurement

    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    monkeypatch.setattr(ort_chains, "matmul_flops_per_s", lambda _, dtype, side, cuda_options: float(side))
    monkeypatch.setattr(ort_chains, "node_overhead_ns", lambda _: 5000.0)
    for name, result in {
        "fma_flops_per_s": 5000.0,
        "exponentials_per_s": 4e12,
        "device_copy_bytes_per_s": 4e12,
        "launch_ns": 2000.0,
        "pageable_copies_bytes_per_s": {"h2d_pageable_bytes_per_s": 9e9, "d2h_pageable_bytes_per_s": 18e9},
        "pinned_copies_bytes_per_s": {"h2d_pinned_bytes_per_s": 50e9, "d2h_pinned_bytes_per_s": 51e9},
        "replayed_kernel_ns": 1400.0,
    }.items():
        monkeypatch.setattr(device_limits, name, stand_in(name, result))
    monkeypatch.setattr(device_limits, "traced_kernel_ns", traced)
    collector = Collector()
    package._measure_cuda(collector, Backend("cuda"), SimpleNamespace(compute_capability=capability))
    return collector.ceilings({})


def test_gpu_limits_find_their_names(monkeypatch):
    found = _cuda_collector(monkeypatch)
    assert found.shortest_kernel_ns == 900.0
    assert found.replay_gap_ns == 500.0
    tensor = {"tensor:float16", "tensor:bfloat16", "tensor:tf32", "tensor:float32"}
    assert set(found.flops_per_s) == tensor | {"fp:float32", "special:float32"}
    assert all(getattr(found, name) is not None for name in Ceilings.model_fields)
    assert found.flops_per_s["fp:float32"] == 5000.0  # the larger of MatMul's 4096 and the kernel's 5000
    assert len(found.notes) == 1
    assert "4096" in found.notes[0]
    assert "5000" in found.notes[0]


def test_without_cupti_the_shortest_kernel_is_an_upper_bound(monkeypatch):
    def no_cupti(_):
        raise ImportError("No module named 'cupti'")

    found = _cuda_collector(monkeypatch, traced=no_cupti)
    assert found.shortest_kernel_ns == 1400.0
    assert found.replay_gap_ns is None
    assert any("upper bound" in note for note in found.notes)


def test_one_refused_gpu_measurement_takes_no_other_with_it(monkeypatch):
    found = _cuda_collector(monkeypatch, refused={"pinned_copies_bytes_per_s", "replayed_kernel_ns"})
    missing = {name for name in Ceilings.model_fields if getattr(found, name) is None}
    assert missing == {"h2d_pinned_bytes_per_s", "d2h_pinned_bytes_per_s", "replay_gap_ns"}
    assert sum("refused." in note for note in found.notes) == 2


def test_older_tensor_cores_have_no_rate_for_types_they_lack(monkeypatch):
    found = _cuda_collector(monkeypatch, capability=(7, 5))
    assert set(found.flops_per_s) == {"tensor:float16", "tensor:float32", "fp:float32", "special:float32"}
    assert any("8.0" in note for note in found.notes)


def test_calls_take_turns_and_warm_up_rounds_are_left_out():
    log = []

    def timer(call):
        log.append(call())
        return len(log)

    durations = durations_ns(lambda: "a", lambda: "b", budget_ns=0, warm_up_ns=0, timer=timer)
    assert log == ["a", "b"] * (len(log) // 2)
    assert durations.shape == (5, 2)
    assert durations.dtype == np.int64
    assert durations[0, 0] > 1


def test_matmul_rate_counts_two_flops_per_multiply_add(monkeypatch):
    def one_second(run):
        run()
        return np.array([[1_000_000_000]])

    monkeypatch.setattr(ort_chains, "durations_ns", one_second)
    assert ort_chains.matmul_flops_per_s(Backend("cpu", threads=1), "float32", 4, nodes=3) == 3 * 128.0


def test_matmul_chain_multiplies_by_the_weight_at_every_node():
    nodes = ort_chains.chain(["MatMul"], 3, first="w", second="w")
    values = {"w": np.array([[0.0, 1.0], [1.0, 1.0]])}
    for node in nodes:
        left, right = (values[name] for name in node.input)
        values[node.output[0]] = left @ right
    assert values["y"].tolist() == [[2, 3], [3, 5]]  # Fibonacci numbers: the fourth power


@pytest.mark.parametrize(("dtype", "relative"), [("float16", 2**-10), ("bfloat16", 2**-7)])
def test_narrow_weights_are_the_float32_ones_rounded(dtype, relative):
    exact = numpy_helper.to_array(ort_chains._square_weight(64, "float32"))
    narrow = numpy_helper.to_array(ort_chains._square_weight(64, dtype)).astype(np.float32)
    assert np.all(np.abs(narrow - exact) <= relative * np.abs(exact) + 1e-7)
    assert exact.var() * 64 == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(("name", "instruction"), [("ex2", "ex2.approx.ftz.f32"), ("fma", "fma.rn.f32")])
def test_operation_count_follows_from_the_kernel_text(name, instruction):
    text = ptx.module_text()
    body = text[text.index(f".entry {name}(") :].split("\n}\n", 1)[0]
    turns = int(re.search(r"mov\.u32 %turn, (\d+);", body)[1])
    assert turns * body.count(instruction) == ptx.operations_per_thread(name)
    assert body.count("%x7") > 2


@pytest.mark.gpu
def test_gpu_limits_agree_with_one_another():
    try:
        found = measure("cuda")
    except NoDriverError as error:
        pytest.skip(str(error))
    rates = found.flops_per_s
    assert rates["tensor:float16"] > rates["tensor:tf32"] > rates["fp:float32"] > rates["special:float32"]
    assert found.memory_bytes_per_s > found.h2d_pinned_bytes_per_s >= 0.9 * found.h2d_pageable_bytes_per_s
    assert found.d2h_pinned_bytes_per_s >= 0.9 * found.d2h_pageable_bytes_per_s
    assert 0 < found.replay_gap_ns < found.node_overhead_ns
    assert 0 < found.shortest_kernel_ns < found.node_overhead_ns
    assert source_of(found).state == "present"  # nothing that its own description rules out
