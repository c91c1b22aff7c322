"""Samples the GPU from outside the worker: NVML state many times a second, and GPM counters where the GPU has them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import pynvml

from workbench.capture.machine import nvml, nvml_handle
from workbench.runs.manifest import SourceInfo

SAMPLE_INTERVAL_S: Final = 0.02
GPM_INTERVAL_S: Final = 0.2  # two samples must lie more than 100 ms apart
# nvmlDeviceGetPcieThroughput blocks for 20 ms; these counters answer at once.
_FIELDS: Final = {197: "pcie_tx_bytes_total", 198: "pcie_rx_bytes_total", 186: "power_w"}
_GPM: Final = {
    pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL: "graphics_active_percent",
    pynvml.NVML_GPM_METRIC_SM_UTIL: "sm_active_percent",
    pynvml.NVML_GPM_METRIC_SM_OCCUPANCY: "sm_occupancy_percent",
    pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: "tensor_active_percent",
    pynvml.NVML_GPM_METRIC_FP64_UTIL: "fp64_active_percent",
    pynvml.NVML_GPM_METRIC_FP32_UTIL: "fp32_active_percent",
    pynvml.NVML_GPM_METRIC_FP16_UTIL: "fp16_active_percent",
    pynvml.NVML_GPM_METRIC_INTEGER_UTIL: "integer_active_percent",
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL: "dram_active_percent",
    pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC: "pcie_tx_bytes_per_s",
    pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC: "pcie_rx_bytes_per_s",
}
_MIB: Final = 2**20


class DeviceSampler:
    """Context manager with a thread that samples one GPU while a pass runs.

    `samples()` and `counters()` give the tables; `nvml_source` and `gpm_source` say how it went. A driver that is
    missing or refuses never raises: it is said there.
    """

    def __init__(self, device_id: int, pass_name: str, *, gpm: bool) -> None:
        self.device_id, self.pass_name = device_id, pass_name
        self.nvml_source = SourceInfo(state="absent", reason="not sampled")
        self.gpm_source = SourceInfo(state="absent", reason="sampled in the counters pass only")
        self._want_gpm = gpm
        self._samples: list[tuple[int, str, float]] = []
        self._counters: list[tuple[int, int, str, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workbench-nvml", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with nvml():
                handle = nvml_handle(self.device_id)
                gpm = self._open_gpm(handle) if self._want_gpm else None
                readers = _working_readers(handle)
                self.nvml_source = SourceInfo(state="present")
                while not self._stop.is_set():
                    now = time.time_ns()
                    for reader in readers:
                        self._samples.extend((now, metric, value) for metric, value in reader(handle))
                    if gpm is not None and not self._read_gpm(gpm, handle):
                        gpm = None
                    self._stop.wait(SAMPLE_INTERVAL_S)
        except Exception as error:
            self.nvml_source = SourceInfo(state="failed", reason=str(error))

    def _open_gpm(self, handle: Any) -> _Gpm | None:
        try:
            if not pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice:
                self.gpm_source = SourceInfo(
                    state="absent", reason="this GPU has no GPM counters (Hopper and newer have)"
                )
                return None
            gpm = _Gpm(handle)
        except pynvml.NVMLError as error:
            self._gpm_refused(error)
            return None
        self.gpm_source = SourceInfo(state="present")
        return gpm

    def _read_gpm(self, gpm: _Gpm, handle: Any) -> bool:
        try:
            self._counters.extend(gpm.read(handle))
        except pynvml.NVMLError as error:
            self._gpm_refused(error)
            return False
        return True

    def _gpm_refused(self, error: pynvml.NVMLError) -> None:
        self.gpm_source = SourceInfo(
            state="failed", reason=f"GPM was refused ({error}); run as root or allow counters in the container"
        )

    def samples(self) -> pa.Table:
        """Rows of the table `samples`."""
        return self._table({"time_ns": [r[0] for r in self._samples]}, [r[1:] for r in self._samples])

    def counters(self) -> pa.Table:
        """Rows of the table `counters`."""
        rows = self._counters
        times = {"time_ns": [r[0] for r in rows], "window_ns": [r[1] for r in rows]}
        return self._table(times, [r[2:] for r in rows])

    def _table(self, times: dict[str, list[int]], rows: list[tuple[str, float]]) -> pa.Table:
        return pa.table(
            {
                **{name: pa.array(values, pa.int64()) for name, values in times.items()},
                "pass": pa.array([self.pass_name] * len(rows), pa.string()),
                "device": pa.array([self.device_id] * len(rows), pa.int32()),
                "metric": pa.array([row[0] for row in rows], pa.string()),
                "value": pa.array([row[1] for row in rows], pa.float64()),
            }
        )


Reader = Callable[[Any], list[tuple[str, float]]]


def _utilisation(handle: Any) -> list[tuple[str, float]]:
    rates = pynvml.nvmlDeviceGetUtilizationRates(handle)
    return [("gpu_kernel_running_percent", rates.gpu), ("memory_accessed_percent", rates.memory)]


def _clocks(handle: Any) -> list[tuple[str, float]]:
    read = pynvml.nvmlDeviceGetClockInfo
    return [
        ("sm_clock_mhz", read(handle, pynvml.NVML_CLOCK_SM)),
        ("memory_clock_mhz", read(handle, pynvml.NVML_CLOCK_MEM)),
    ]


def _state(handle: Any) -> list[tuple[str, float]]:
    return [
        ("memory_used_bytes", pynvml.nvmlDeviceGetMemoryInfo(handle).used),
        ("temperature_celsius", pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        ("clock_event_reasons_mask", pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle)),
    ]


def _processes(handle: Any) -> list[tuple[str, float]]:
    return [("compute_processes_count", len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)))]


def _field_values(handle: Any) -> list[tuple[str, float]]:
    found = []
    for value in pynvml.nvmlDeviceGetFieldValues(handle, list(_FIELDS)):
        if value.nvmlReturn == pynvml.NVML_SUCCESS:
            number = value.value.ullVal if value.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG else None
            number = value.value.uiVal if number is None else number
            name = _FIELDS[value.fieldId]
            found.append((name, number / 1000 if name == "power_w" else number))  # NVML gives milliwatts
    return found


def _working_readers(handle: Any) -> list[Reader]:
    """The readers that this GPU and driver answer."""
    working: list[Reader] = []
    for reader in (_utilisation, _clocks, _state, _processes, _field_values):
        try:
            reader(handle)
            working.append(reader)
        except pynvml.NVMLError:
            continue
    return working


class _Gpm:
    """Averages between two samples of the GPU's own counters."""

    def __init__(self, handle: Any) -> None:
        self._samples = [pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()]
        pynvml.nvmlGpmSampleGet(handle, self._samples[0])
        self._taken_ns = time.time_ns()

    def read(self, handle: Any) -> list[tuple[int, int, str, float]]:
        """Rows (time, window, metric, value) once the window is long enough, else none."""
        if time.time_ns() - self._taken_ns < GPM_INTERVAL_S * 1e9:
            return []
        before, after = self._samples
        pynvml.nvmlGpmSampleGet(handle, after)
        now = time.time_ns()
        query = pynvml.c_nvmlGpmMetricsGet_t()
        query.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        query.numMetrics = len(_GPM)
        query.sample1, query.sample2 = before, after
        for index, metric in enumerate(_GPM):
            query.metrics[index].metricId = metric
        pynvml.nvmlGpmMetricsGet(query)
        window, self._taken_ns = now - self._taken_ns, now
        self._samples.reverse()
        rows = []
        for index, name in enumerate(_GPM.values()):
            metric = query.metrics[index]
            if metric.nvmlReturn == pynvml.NVML_SUCCESS:
                scale = _MIB if name.endswith("bytes_per_s") else 1
                rows.append((now, window, name, metric.value * scale))
        return rows
