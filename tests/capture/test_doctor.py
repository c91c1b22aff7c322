"""The doctor and what it asks of the machine, with the GPU played by a fake NVML."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pynvml
import pytest

from workbench.capture import doctor, libraries, machine
from workbench.capture.doctor import Check
from workbench.errors import ConfigError, NoDriverError

READELF = shutil.which("readelf")


@pytest.fixture
def no_driver(monkeypatch):
    def refuse():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)


@pytest.fixture
def fake_gpu(monkeypatch):
    """A GPU that answers NVML but hides its PCIe link, and no CUDA driver library."""

    def hidden(_handle):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: "NVIDIA Fake",
        "nvmlDeviceGetCudaComputeCapability": lambda _: (9, 0),
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=80 << 30),
        "nvmlSystemGetDriverVersion": lambda: "580.1",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13010,
        "nvmlDeviceGetMaxPcieLinkGeneration": hidden,
        "nvmlDeviceGetMaxPcieLinkWidth": hidden,
        "nvmlDeviceGetMaxClockInfo": lambda _handle, _clock: 1980,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(machine, "_cuda_driver_device", lambda _device_id: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def found(name: str) -> Check:
    return next(check for check in doctor.examine() if check.name == name)


def test_no_driver_is_said_with_the_remedy(no_driver):
    assert not machine.gpu_present()
    with pytest.raises(NoDriverError, match="provider 'cpu'"):
        machine.describe_device("cuda")


def test_without_a_gpu_everything_answers_and_gpu_parts_are_not_applicable(no_driver):
    checks = doctor.examine()
    assert {check.name for check in checks if check.state == "not applicable"} >= {"CUDA provider", "CUPTI", "GPM"}
    for check in checks:
        assert check.detail.endswith(".")
        assert bool(check.remedy) == (check.state in ("missing", "wrong")), check
    assert json.loads(json.dumps(doctor.to_rows(checks)))[0].keys() == {"name", "state", "detail", "remedy"}


def test_a_gpu_without_a_driver_is_missing_and_not_inapplicable(no_driver, monkeypatch):
    monkeypatch.setattr(doctor, "_nvidia_on_pci", lambda: True)
    assert found("NVIDIA driver").state == "missing"


def test_an_examination_that_breaks_does_not_hide_the_others(no_driver, monkeypatch):
    def broken(_path):
        raise PermissionError("no entry")

    monkeypatch.setattr(shutil, "disk_usage", broken)
    checks = doctor.examine()
    assert len(checks) > 1
    assert "PermissionError: no entry" in next(check for check in checks if check.name == "disk").detail


def test_what_nvml_does_not_tell_is_none(fake_gpu):
    device = machine.describe_device("cuda")
    assert (device.name, device.compute_capability, device.memory_bytes) == ("NVIDIA Fake", "9.0", 80 << 30)
    assert device.cuda_driver_version == "13.1"
    assert (device.pcie_generation, device.pcie_width, device.sm_count) == (None, None, None)


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_gpu_is_not_present(fake_gpu, monkeypatch, hidden):
    assert machine.gpu_present()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not machine.gpu_present()


def test_the_pci_bus_joins_the_numbering_of_cuda_and_nvml(fake_gpu, monkeypatch):
    monkeypatch.setattr(machine, "_cuda_driver_device", lambda _device_id: ("0000:19:00.0", 132))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByPciBusId", lambda bus_id: {"0000:19:00.0": 5}[bus_id])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: f"GPU at NVML index {handle}")
    device = machine.describe_device("cuda", 0)
    assert (device.name, device.sm_count) == ("GPU at NVML index 5", 132)


def test_an_absent_device_is_a_configuration_error(fake_gpu, monkeypatch):
    def absent(_index):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", absent)
    with pytest.raises(ConfigError, match="CUDA device 7"):
        machine.describe_device("cuda", 7)


@pytest.mark.parametrize(
    ("driver", "built", "state"),
    [(13010, "13.0", "ok"), (13000, "13.2", "ok"), (14000, "13.0", "ok"), (12090, "13.0", "wrong")],
)
def test_the_driver_must_reach_the_major_version_of_cuda(fake_gpu, monkeypatch, driver, built, state):
    monkeypatch.setattr(pynvml, "nvmlSystemGetCudaDriverVersion_v2", lambda: driver)
    monkeypatch.setattr(onnxruntime, "cuda_version", built)
    check = doctor._examine_one("CUDA versions", doctor._cuda_versions, applicable=True)
    assert check.state == state
    assert built in check.detail


@pytest.mark.parametrize(
    ("packages", "state"),
    [(["onnxruntime-gpu"], "ok"), (["onnxruntime", "onnxruntime-gpu"], "wrong")],
)
def test_two_packages_of_onnxruntime_shadow_each_other(no_driver, monkeypatch, packages, state):
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"onnxruntime": packages})
    monkeypatch.setattr(metadata, "version", lambda _name: "1.31.1")
    check = doctor._examine_one("ONNX Runtime", doctor._onnxruntime, applicable=True)
    assert check.state == state
    assert all(name in check.detail for name in packages)


def test_a_cpu_build_beside_a_gpu_is_wrong(fake_gpu, monkeypatch):
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime"]})
    monkeypatch.setattr(metadata, "version", lambda _name: "1.31.1")
    monkeypatch.setattr(onnxruntime, "cuda_version", "")
    assert doctor._onnxruntime().state == "wrong"


@pytest.mark.parametrize(
    ("answer", "state", "remedy"),
    [
        ({"problem": ""}, "ok", ""),
        ({"problem": "libnvinfer.so.10 did not load: pip install it"}, "missing", "pip install it."),
        ({"error": "the process was ended by signal 11."}, "wrong", "Use provider 'cuda'."),
    ],
)
def test_tensorrt_is_optional_and_its_absence_has_a_remedy(fake_gpu, monkeypatch, answer, state, remedy):
    monkeypatch.setattr(doctor, "_probe", lambda _look: answer)
    finding = doctor._tensorrt()
    assert (finding.state, finding.remedy) == (state, remedy)


@pytest.mark.parametrize(
    ("admin_only", "capabilities", "state"), [("1", 0, "wrong"), ("1", 1 << 21, "ok"), ("0", 0, "ok")]
)
def test_permission_follows_the_driver_and_the_capability(tmp_path, monkeypatch, admin_only, capabilities, state):
    parameters = tmp_path / "params"
    parameters.write_text(f"ResmanDebugLevel: 4294967295\nRmProfilingAdminOnly: {admin_only}\n")
    monkeypatch.setattr(doctor, "_DRIVER_PARAMETERS", parameters)
    monkeypatch.setattr(doctor, "_capabilities", lambda: capabilities)
    assert doctor._permission().state == state


@pytest.mark.skipif(machine.gpu_present(), reason="the CUDA provider may load on a machine with a GPU")
@pytest.mark.skipif(not machine.ort_cuda_version(), reason="this onnxruntime is built without CUDA")
def test_a_provider_that_does_not_load_is_named_library_by_library():
    check = doctor._examine_one("CUDA provider", doctor._cuda_provider, applicable=True)
    assert check.state == "missing"
    assert "libcuda.so.1" in check.detail


def crash_probe() -> dict[str, str]:
    signal.raise_signal(signal.SIGKILL)
    return {}


def fail_probe() -> dict[str, str]:
    print("\x1b[1;31m[E:ort] Failed to load library x.so with error: y.so is absent\x1b[m", file=sys.stderr)
    raise RuntimeError("no session")


@pytest.mark.parametrize(
    ("probe", "said"),
    [(crash_probe, "signal 9"), (fail_probe, "Failed to load library x.so with error: y.so is absent no session")],
)
def test_a_probe_that_dies_says_why(monkeypatch, probe, said):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(probe, "__module__", Path(__file__).stem)
    assert said in doctor._probe(probe)["error"]


def test_software_names_the_packages_and_not_the_host():
    versions = machine.software_versions()
    assert versions["onnxruntime"] == metadata.version(versions["onnxruntime package"])
    assert {"python", "numpy", "onnx", "nvidia-ml-py"} <= versions.keys()
    assert all(versions.values())


def test_nsys_is_asked_for_its_version(tmp_path, monkeypatch):
    program = tmp_path / "nsys"
    program.write_text("#!/bin/sh\necho NVIDIA Nsight Systems version 2025.3.1.90-2531v0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.nsys_version() == "2025.3.1.90-2531v0"
    program.unlink()
    assert machine.nsys_version() is None


@pytest.mark.skipif(READELF is None, reason="readelf, the reference, is not installed (Debian package binutils)")
def test_needed_libraries_agree_with_readelf():
    files = sorted(Path(onnxruntime.__file__).parent.glob("capi/*.so*"))
    assert files
    for file in files:
        shown = subprocess.run([READELF, "-dW", file], capture_output=True, text=True, check=True).stdout
        expected = [line.split("[")[1].rstrip("]") for line in shown.splitlines() if "(NEEDED)" in line]
        assert libraries.needed_libraries(file) == expected


def test_another_kind_of_file_is_refused(tmp_path):
    file = tmp_path / "library.dll"
    file.write_bytes(b"MZ" + bytes(100))
    with pytest.raises(ValueError, match=r"library\.dll"):
        libraries.needed_libraries(file)


def test_only_libraries_that_do_not_load_are_named():
    assert libraries.unloadable(["libm.so.6", "libno_such_library.so.1"]) == ["libno_such_library.so.1"]
