"""The sampler beside the worker: a driver that is missing or refuses is said, and never raised."""

import itertools
import time
from types import SimpleNamespace

import pynvml
import pytest

from workbench.capture import nvml as module
from workbench.capture.nvml import DeviceSampler
from workbench.runs.writer import to_table

MIB = 2**20


@pytest.fixture
def driver(monkeypatch):
    """A driver that answers utilisation, clocks and GPM, and nothing else."""

    def refuse(*arguments):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    for name in (
        "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetFieldValues",
    ):  # fmt: skip
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
    monkeypatch.setattr(module, "SAMPLE_INTERVAL_S", 0.001)
    monkeypatch.setattr(module, "GPM_INTERVAL_S", 0.002)
    return monkeypatch


def sampled(*, gpm=True):
    with DeviceSampler(3, "counters", gpm=gpm) as sampler:
        deadline = time.monotonic() + 0.05
        while time.monotonic() < deadline:
            time.sleep(0.005)
    return sampler


def refusing(number):
    def refuse(*arguments):
        raise pynvml.NVMLError(number)

    return refuse


@pytest.mark.usefixtures("driver")
def test_what_the_driver_answers_is_kept_and_the_rest_is_left_out():
    sampler = sampled()
    assert sampler.nvml_source.state == sampler.gpm_source.state == "present"
    samples = to_table("samples", sampler.samples()).to_pandas()
    assert set(samples["metric"]) == {
        "gpu_kernel_running_percent", "memory_accessed_percent", "sm_clock_mhz", "memory_clock_mhz",
    }  # fmt: skip
    assert set(samples["device"]) == {3}
    assert set(samples["pass"]) == {"counters"}
    assert samples["time_ns"].is_monotonic_increasing


@pytest.mark.usefixtures("driver")
def test_counters_carry_their_window_and_bytes_per_second():
    counters = to_table("counters", sampled().counters()).to_pandas()
    assert (counters["window_ns"] >= 2_000_000).all()
    values = counters.groupby("metric")["value"].agg(set)
    assert values["sm_active_percent"] == {2.0}
    assert values["pcie_rx_bytes_per_s"] == {2.0 * MIB}


def test_gpm_that_is_not_permitted_is_said_and_nvml_goes_on(driver):
    for name in ("nvmlGpmQueryDeviceSupport", "nvmlGpmSampleGet", "nvmlGpmMetricsGet"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pynvml, name, refusing(pynvml.NVML_ERROR_NO_PERMISSION))
            sampler = sampled()
        assert sampler.gpm_source.state == "failed", name
        assert "Insufficient Permissions" in sampler.gpm_source.reason
        assert "run as root" in sampler.gpm_source.reason
        assert len(sampler.counters()) == 0
        assert sampler.nvml_source.state == "present"
        assert len(sampler.samples()) > 8, name


def test_a_gpu_without_gpm_says_which_have_it(driver):
    driver.setattr(pynvml, "nvmlGpmQueryDeviceSupport", lambda handle: SimpleNamespace(isSupportedDevice=0))
    assert sampled().gpm_source.state == "absent"
    assert "Hopper" in sampled().gpm_source.reason


@pytest.mark.usefixtures("driver")
def test_gpm_is_left_alone_outside_its_pass():
    sampler = sampled(gpm=False)
    assert sampler.gpm_source.state == "absent"
    assert len(sampler.counters()) == 0


def test_without_a_driver_nothing_is_raised_and_the_reason_is_kept(driver):
    driver.setattr(pynvml, "nvmlInit", refusing(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    sampler = sampled()
    assert sampler.nvml_source.state == "failed"
    assert "No NVIDIA driver answers" in sampler.nvml_source.reason
    assert len(to_table("samples", sampler.samples())) == 0


def test_a_gpu_that_is_lost_in_the_middle_keeps_what_was_read(driver):
    answers = itertools.chain([SimpleNamespace(gpu=1, memory=1)] * 3)

    def rates(handle):
        try:
            return next(answers)
        except StopIteration:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST) from None

    driver.setattr(pynvml, "nvmlDeviceGetUtilizationRates", rates)
    sampler = sampled()
    assert sampler.nvml_source.state == "failed"
    assert "lost" in sampler.nvml_source.reason
    assert len(sampler.samples()) > 0
