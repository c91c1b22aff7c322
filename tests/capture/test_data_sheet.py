"""Ceilings held against what the driver says of the GPU: NVIDIA's published figures, the band, and who is told."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench.capture import ceilings as package
from workbench.capture.ceilings import cache, data_sheet
from workbench.capture.ceilings.data_sheet import Band, bands_of, doubts, held_against, source_of
from workbench.errors import NoDriverError
from workbench.runs.manifest import Ceilings, DeviceInfo, Manifest

DATA = Path(__file__).parents[1] / "data"
RUNS = sorted(DATA.glob("h200*/**/manifest.json"))
H200 = {"nvmlDeviceGetMaxClockInfo": 3201, "nvmlDeviceGetMemoryBusWidth": 6016}  # of the GPU that recorded the runs


@pytest.fixture
def nvml_says(monkeypatch):
    """Sets what NVML answers, by function; anything else it refuses."""

    def says(**answers):
        monkeypatch.setattr(data_sheet, "_ask", lambda device_id, function, *arguments: answers.get(function))

    return says


def gpu(capability, sm_count, clock_mhz, **link):
    return DeviceInfo(
        kind="cuda", name="x", compute_capability=capability, sm_count=sm_count, max_sm_clock_mhz=clock_mhz, **link
    )


@pytest.mark.parametrize(
    ("device", "float32", "float16", "tf32"),
    [
        # multiprocessors, boost clock and dense Tflop/s as NVIDIA prints them
        (gpu("7.0", 80, 1530), 15.7, 125, None),  # V100 SXM2
        (gpu("7.5", 40, 1590), 8.1, 65, None),  # T4
        (gpu("8.0", 108, 1410), 19.5, 312, 156),  # A100
        (gpu("8.6", 84, 1740), 37.4, 149.7, 74.8),  # A40
        (gpu("8.9", 142, 2505), 91.1, 364.2, 182.1),  # RTX 6000 Ada
        (gpu("9.0", 132, 1830), None, 989.4, 494.7),  # H100 SXM5, tensor cores
        (gpu("9.0", 132, 1980), 66.9, None, None),  # H100 SXM5, the rest
        (gpu("12.0", 170, 2407), 104.8, 419, None),  # RTX 5090
    ],
    ids=lambda value: value.compute_capability if isinstance(value, DeviceInfo) else "",
)
def test_peaks_are_those_of_the_data_sheets(nvml_says, device, float32, float16, tf32):
    nvml_says()
    bands = bands_of(device, 0)
    for name, published in (("fp:float32", float32), ("tensor:float16", float16), ("tensor:tf32", tf32)):
        if published is not None:
            assert bands[name].peak == pytest.approx(published * 1e12, rel=0.01)
    assert bands["tensor:float32"] == bands["fp:float32"]
    assert ("tensor:bfloat16" in bands) == (float(device.compute_capability) >= 8)


@pytest.mark.parametrize(
    ("clock_mhz", "bus_bits", "gigabytes_per_s"),
    [(1215, 5120, 1555), (2619, 5120, 3352), (5001, 256, 320), (9751, 384, 936)],
    ids=["A100", "H100", "T4", "RTX 3090"],
)
def test_bandwidths_are_those_of_the_data_sheets(nvml_says, clock_mhz, bus_bits, gigabytes_per_s):
    nvml_says(nvmlDeviceGetMaxClockInfo=clock_mhz, nvmlDeviceGetMemoryBusWidth=bus_bits)
    bands = bands_of(gpu("8.0", 108, 1410, pcie_generation=4, pcie_width=16), 0)
    assert bands["memory_bytes_per_s"].peak == pytest.approx(gigabytes_per_s * 1e9, rel=0.002)
    assert bands["h2d_pinned_bytes_per_s"].peak == pytest.approx(31.5e9, rel=0.002)  # as PCI-SIG gives it


def test_all_recorded_ceilings_lie_in_their_band(nvml_says):
    nvml_says(**H200)
    seen = {}
    for file in RUNS:
        manifest = Manifest.model_validate(json.loads(file.read_text()))
        if manifest.ceilings.flops_per_s:
            held = held_against(manifest.ceilings, bands_of(manifest.device, 0))
            assert held == manifest.ceilings, file
            seen[manifest.ceilings.measured_at] = held
    assert len(seen) >= 3


BANDS = {"tensor:float16": Band(60.0, 102.0, 100.0), "memory_bytes_per_s": Band(60.0, 102.0, 100.0)}


@pytest.mark.parametrize("value", [60.0, 88.0, 102.0])
def test_a_limit_inside_its_band_is_left_alone(value):
    given = Ceilings(flops_per_s={"tensor:float16": value}, memory_bytes_per_s=value, notes=["as before"])
    assert held_against(given, BANDS) == given
    assert doubts(given) == []
    assert source_of(given).state == "present"


def test_a_limit_above_its_band_is_dropped_and_fails_the_source():
    given = Ceilings(flops_per_s={"tensor:float16": 103.0, "fp:float32": 1.0}, memory_bytes_per_s=150.0)
    held = held_against(given, {**BANDS, "fp:float32": Band(0.0, 2.0, 2.0)})
    assert held.flops_per_s == {"fp:float32": 1.0}
    assert held.memory_bytes_per_s is None
    assert len(doubts(held)) == 2
    source = source_of(held)
    assert source.state == "failed"
    assert "tensor:float16 came out as 103/s, 1.03 of the 100/s" in source.reason
    assert "memory_bytes_per_s came out as 150/s, 1.50" in source.reason


def test_a_limit_below_its_band_stays_and_is_doubted():
    given = Ceilings(flops_per_s={"tensor:float16": 59.0}, memory_bytes_per_s=80.0)
    held = held_against(given, BANDS)
    assert held.flops_per_s == given.flops_per_s
    assert source_of(held).state == "present"
    (doubt,) = doubts(held)
    assert "0.59 of the 100/s" in doubt
    assert "--refresh" in doubt


def test_what_cannot_be_checked_is_said(nvml_says):
    nvml_says()
    unheard_of = gpu("99.0", 10, 1000)
    held = held_against(Ceilings(flops_per_s={"tensor:float16": 1.0}, launch_ns=5.0), bands_of(unheard_of, 0))
    assert held.notes == [
        "Not held against the data sheet, because the driver does not tell it: tensor:float16."
    ]  # the cost of a launch has no data sheet
    assert source_of(held).state == "present"


def test_pageable_copies_may_be_slow_but_not_faster_than_the_link(nvml_says):
    nvml_says()
    bands = bands_of(gpu("9.0", 132, 1980, pcie_generation=5, pcie_width=16), 0)
    slow = Ceilings(h2d_pageable_bytes_per_s=1e9, h2d_pinned_bytes_per_s=1e9)
    assert [note.split()[4] for note in doubts(held_against(slow, bands))] == ["h2d_pinned_bytes_per_s"]
    fast = held_against(Ceilings(h2d_pageable_bytes_per_s=70e9), bands)
    assert fast.h2d_pageable_bytes_per_s is None


def test_a_gpu_that_is_joined_chip_to_chip_has_no_band_for_its_copies(nvml_says):
    nvml_says(nvmlDeviceGetC2cModeInfoV=SimpleNamespace(isC2cEnabled=1))
    assert not any("pinned" in name for name in bands_of(gpu("9.0", 132, 1980, pcie_generation=5, pcie_width=16), 0))


def test_boards_that_accumulate_at_half_rate_have_a_wider_band(nvml_says):
    nvml_says()
    bands = bands_of(gpu("8.6", 82, 1695), 0)
    assert bands["tensor:float16"].lowest == pytest.approx(0.3 * bands["tensor:float16"].peak)
    assert bands["fp:float32"].lowest == pytest.approx(0.6 * bands["fp:float32"].peak)


def test_a_cpu_has_no_data_sheet():
    assert bands_of(DeviceInfo(kind="cpu", name="x"), 0) == {}


def test_measuring_holds_the_limits_against_the_data_sheet(nvml_says, monkeypatch):
    nvml_says(**H200)
    monkeypatch.setattr(package, "CudaDevice", lambda device_id: nullcontext())
    monkeypatch.setattr(package, "describe_device", lambda kind, device_id: gpu("9.0", 132, 1980))
    monkeypatch.setattr(cache, "key_of", lambda backend: {"kind": "cuda"})
    impossible = {"tensor:float16": 2e15, "fp:float32": 65e12}

    def measured(collector, backend, device):
        for name, value in impossible.items():
            collector.keep(name, value, "a kernel")

    monkeypatch.setattr(package, "_measure_cuda", measured)
    found = package.measure("cuda")
    assert found.flops_per_s == {"fp:float32": 65e12}
    assert "tensor:float16" in source_of(found).reason


@pytest.mark.gpu
def test_this_gpu_tells_what_it_is():
    try:
        device = package.describe_device("cuda", 0)
    except NoDriverError as error:
        pytest.skip(str(error))
    assert "memory_bytes_per_s" in bands_of(device, 0)
