"""The monitor over a driver that answers made-up values: what it draws, keeps and saves, and how it ends."""

import itertools
import threading
import time
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pynvml
import pytest

pytest.importorskip("ipywidgets")

from workbench.api.widgets import monitor
from workbench.capture import nvml as module
from workbench.errors import ConfigError
from workbench.runs.schema import TABLES
from workbench.widgets import monitor as widget_module
from workbench.widgets.monitor import Monitor
from workbench.widgets.monitor_lines import means


def refuse(*arguments):
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


@pytest.fixture
def driver(monkeypatch):
    """A driver that answers utilisation, clocks and GPM, and nothing else, much faster than a real one."""
    for name in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetFieldValues"):
        monkeypatch.setattr(pynvml, name, refuse)
    answers = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=80, memory=40),
        "nvmlDeviceGetClockInfo": 1980,
        "nvmlGpmQueryDeviceSupport": SimpleNamespace(isSupportedDevice=1),
        "nvmlGpmSampleAlloc": pynvml.c_nvmlGpmSample_t(),
        "nvmlGpmSampleGet": None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, lambda *arguments, answer=answer: answer)

    def metrics(query):
        for index in range(query.numMetrics):
            query.metrics[index].value = 2.0
            query.metrics[index].nvmlReturn = pynvml.NVML_SUCCESS

    monkeypatch.setattr(pynvml, "nvmlGpmMetricsGet", metrics)
    monkeypatch.setattr(module, "nvml_handle", lambda device_id: f"GPU {device_id}")
    monkeypatch.setattr(widget_module, "nvml_handle", lambda device_id: f"GPU {device_id}")
    monkeypatch.setattr(module, "SAMPLE_INTERVAL_S", 0.002)
    monkeypatch.setattr(module, "GPM_INTERVAL_S", 0.004)
    monkeypatch.setattr(widget_module, "_SHORTEST_S", 0.01)
    return monkeypatch


@pytest.fixture
def watching(driver):
    made = []

    def start(**options):
        made.append(Monitor(3, interval_s=0.03, **options))
        return made[-1]

    yield start
    for each in made:
        each.close()


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def points(found):
    return 0 if found.figure is None else len(found.figure.data[0].x or ())


def test_lines_are_those_that_the_driver_answers_in_units_for_people(watching):
    found = watching()
    until(lambda: points(found) >= 3)
    lines = {trace.name: set(trace.y) for trace in found.figure.data}
    assert lines["some kernel ran"] == {80}
    assert lines["memory accessed"] == {40}
    assert lines["SM"] == {1980}
    assert 2.0 in lines["multiprocessors"]
    assert not {"power", "in use", "to the GPU"} & set(lines)
    assert "each the mean of samples" in found.status.value


def test_what_was_sampled_is_saved_as_the_table_samples_and_nothing_is_overwritten(watching, tmp_path):
    found = watching()
    until(lambda: points(found) >= 2)
    found.pause.value = True
    found.path.value = str(tmp_path / "kept")
    found.save.click()
    table = pq.read_table(tmp_path / "kept" / "samples.parquet")
    assert table.schema.equals(TABLES["samples"])
    assert set(table["device"].to_pylist()) == {3}
    assert {"gpu_kernel_running_percent", "sm_active_percent"} <= set(table["metric"].to_pylist())
    assert f"{len(table):,} samples" in found.saved.value
    found.save.click()
    assert "holds samples already" in found.saved.value
    assert pq.read_table(tmp_path / "kept" / "samples.parquet").equals(table)


def test_a_pause_ends_sampling_until_it_goes_on(watching):
    found = watching()
    until(lambda: points(found) >= 1)
    found.pause.value = True
    time.sleep(0.1)  # a stretch that had begun comes to its end
    kept = len(found.samples)
    time.sleep(0.15)
    assert len(found.samples) == kept
    assert "Paused" in found.status.value
    found.pause.value = False
    until(lambda: len(found.samples) > kept)


def test_closing_ends_the_thread(watching):
    found = watching()
    until(lambda: points(found) >= 1)
    found.close()
    assert not [each for each in threading.enumerate() if each.name in ("workbench-monitor", "workbench-nvml")]


def test_a_gpu_that_is_lost_is_said_and_what_was_sampled_is_kept(watching, driver):
    """It may be lost in the middle of a stretch, or between two, where none of its readings begins to answer."""
    answers = itertools.repeat(None, 60)

    def lost(answer):
        def asked(*arguments):
            if next(answers, asked) is asked:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
            return answer

        return asked

    driver.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lost(SimpleNamespace(gpu=1, memory=1)))
    driver.setattr(pynvml, "nvmlDeviceGetClockInfo", lost(1980))
    driver.setattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons", lost(0))
    for name in ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetPowerUsage"):
        driver.setattr(pynvml, name, refuse, raising=False)
    found = watching()
    until(lambda: "Sampling has ended" in found.status.value)
    assert "lost" in found.status.value.lower()
    assert found.pause.disabled
    assert len(found.samples) > 0


def test_without_counters_the_reason_is_said(watching, driver):
    driver.setattr(pynvml, "nvmlGpmQueryDeviceSupport", lambda handle: SimpleNamespace(isSupportedDevice=0))
    found = watching()
    until(lambda: "Hopper" in found.status.value)
    assert "multiprocessors" not in {trace.name for trace in found.figure.data}


def test_without_a_driver_there_is_one_sentence(monkeypatch):
    def none(*arguments):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", none)
    found = monitor()
    assert len(found.children) == 1
    assert "No NVIDIA driver answers" in found.children[0].value
    found.close()


def test_an_interval_that_is_no_use_is_refused():
    with pytest.raises(ConfigError, match=r"An interval of 0 s is of no use"):
        monitor(interval_s=0)


def test_a_bus_counter_that_wraps_is_still_a_rate():
    gigabyte = 10**9
    totals = [2**32 - gigabyte, 0, gigabyte]  # a gigabyte every 0.1 s, over the counter's end
    rows = {
        "time_ns": [0, 100_000_000, 200_000_000],
        "metric": ["pcie_rx_bytes_total"] * 3,
        "value": [float(total) for total in totals],
    }
    assert means(pa.table(rows))["pcie_rx_rate"] == pytest.approx(10e9)
    assert means(pa.table(rows).slice(0, 0)) == {}
