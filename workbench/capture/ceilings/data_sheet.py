"""What a GPU can reach at most by its own description, and measured limits held against it.

The driver tells clocks, multiprocessors, memory bus and link; what a multiprocessor does per clock follows from the
compute capability. A GPU's maximum clock is what it never exceeds, so these peaks may lie above a data sheet's, which
for tensor cores is often written for a lower boost clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pynvml

from workbench.capture.machine import nvml, nvml_handle
from workbench.runs.manifest import Ceilings, DeviceInfo, SourceInfo

LOWEST: Final = 0.60
"""Of the peak: a large product or copy reaches 0.65 to 0.99 on an idle GPU, so that less means a GPU held back."""
HIGHEST: Final = 1.02
"""Of the peak: nothing is faster than its clock allows, but for the error of the clock's own reading."""

DROPPED: Final = "A ceiling was dropped"
"""How the note begins of a limit that no GPU of this kind can reach; the figures follow."""
LOW: Final = "A ceiling is low"
"""How the note begins of a limit that such a GPU should exceed; the figures follow."""
_AGAIN: Final = "measure again on an idle machine with `python -m workbench.capture.ceilings --kind cuda --refresh`"


@dataclass(frozen=True)
class _Multiprocessor:
    """Results per clock of one multiprocessor: multiply-adds, but for `special`. None: it lacks the unit.

    half_rate: boards of this kind exist whose tensor cores accumulate in float32, as ONNX Runtime asks them to, at
    half the rate (GeForce).
    """

    float32: int
    special: int
    tensor_float16: int
    tensor_tf32: int | None
    half_rate: bool = False


_MULTIPROCESSORS: Final = {
    "7.0": _Multiprocessor(64, 16, 512, None),
    "7.5": _Multiprocessor(64, 16, 512, None, half_rate=True),
    "8.0": _Multiprocessor(64, 16, 1024, 512),
    "8.6": _Multiprocessor(128, 16, 512, 256, half_rate=True),
    "8.9": _Multiprocessor(128, 16, 512, 256, half_rate=True),
    "9.0": _Multiprocessor(128, 16, 2048, 1024),
    "10.0": _Multiprocessor(128, 16, 4096, 2048),
    "12.0": _Multiprocessor(128, 16, 512, 256, half_rate=True),
}
"""By compute capability, dense.

float32 and special: CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions". Tensor cores: NVIDIA's
architecture whitepapers of V100, Turing, A100, GA102, AD102, H100, Blackwell and RTX Blackwell.
"""

_PCIE_BYTES_PER_S_PER_LANE: Final = {
    1: 2.5e9 / 8 * 8 / 10,
    2: 5e9 / 8 * 8 / 10,
    3: 8e9 / 8 * 128 / 130,
    4: 16e9 / 8 * 128 / 130,
    5: 32e9 / 8 * 128 / 130,
    6: 64e9 / 8 * 236 / 256,
}
"""By generation: transfers per second times the fraction that the encoding leaves (PCI Express Base Specification)."""

_HOST_COPIES: Final = tuple(
    f"{way}_{memory}_bytes_per_s" for way in ("h2d", "d2h") for memory in ("pinned", "pageable")
)


@dataclass(frozen=True)
class Band:
    """Where a measured limit has to lie, in its own unit: lowest (0 where low values are in order) and highest."""

    lowest: float
    highest: float
    peak: float


def bands_of(device: DeviceInfo, device_id: int) -> dict[str, Band]:
    """The bands of the limits of `Ceilings`, by name, for CUDA device `device_id` that `device` describes.

    A limit that neither the driver nor the tables tell is missing, and so are those of a CPU. Raises `NoDriverError`
    when no driver answers.
    """
    if device.kind != "cuda":
        return {}
    return {**_arithmetic(device), **_memory(device_id), **_link(device, device_id)}


def held_against(ceilings: Ceilings, bands: Mapping[str, Band]) -> Ceilings:
    """The ceilings without those above their band; `notes` say so, and which lie below theirs or have none."""
    rates = dict(ceilings.flops_per_s)
    dropped: dict[str, None] = {}
    notes, unchecked = [], []
    bandwidths = {name: getattr(ceilings, name) for name in ("memory_bytes_per_s", *_HOST_COPIES)}
    for name, value in {**rates, **bandwidths}.items():
        if value is None:
            continue
        band = bands.get(name)
        if band is None:
            unchecked.append(name)
            continue
        measured = f"{name} came out as {value:.3g}/s, {value / band.peak:.2f} of the {band.peak:.3g}/s that "
        if value > band.highest:
            notes.append(f"{DROPPED}: {measured}the GPU reaches at its highest clock, which cannot be: {_AGAIN}.")
            if name in rates:
                del rates[name]
            else:
                dropped[name] = None
        elif value < band.lowest:
            notes.append(
                f"{LOW}: {measured}the GPU reaches at its highest clock, because it was busy, hot, short of power or "
                f"shared: {_AGAIN}."
            )
    if unchecked:
        notes.append(f"Not held against the data sheet, because the driver does not tell it: {', '.join(unchecked)}.")
    return ceilings.model_copy(update={**dropped, "flops_per_s": rates, "notes": [*ceilings.notes, *notes]})


def doubts(ceilings: Ceilings) -> list[str]:
    """The notes that say that a limit was dropped or is low."""
    return [note for note in ceilings.notes if note.startswith((DROPPED, LOW))]


def source_of(ceilings: Ceilings) -> SourceInfo:
    """Whether the ceilings are a sound source of a run: failed, with the sentences, when one was dropped."""
    dropped = [note for note in ceilings.notes if note.startswith(DROPPED)]
    return SourceInfo(state="failed", reason=" ".join(dropped)) if dropped else SourceInfo(state="present")


def _band(peak: float, lowest: float = LOWEST) -> Band:
    return Band(lowest * peak, HIGHEST * peak, peak)


def _arithmetic(device: DeviceInfo) -> dict[str, Band]:
    unit = _MULTIPROCESSORS.get(device.compute_capability or "")
    if unit is None or not device.sm_count or not device.max_sm_clock_mhz:
        return {}
    per_s = device.sm_count * device.max_sm_clock_mhz * 1e6
    lowest = LOWEST / 2 if unit.half_rate else LOWEST
    found = {
        "fp:float32": _band(2 * unit.float32 * per_s),
        "tensor:float32": _band(2 * unit.float32 * per_s),  # products without TF32, which no tensor core computes
        "special:float32": _band(unit.special * per_s),
        "tensor:float16": _band(2 * unit.tensor_float16 * per_s, lowest),
    }
    if unit.tensor_tf32 is not None:  # bfloat16 came with TF32, at the rate of float16
        found["tensor:bfloat16"] = found["tensor:float16"]
        found["tensor:tf32"] = _band(2 * unit.tensor_tf32 * per_s, lowest)
    return found


def _memory(device_id: int) -> dict[str, Band]:
    """Two transfers per clock and pin, as NVML counts the clock of HBM and of GDDR alike."""
    clock_mhz = _ask(device_id, "nvmlDeviceGetMaxClockInfo", pynvml.NVML_CLOCK_MEM)
    bus_bits = _ask(device_id, "nvmlDeviceGetMemoryBusWidth")
    return {"memory_bytes_per_s": _band(2 * clock_mhz * 1e6 * bus_bits / 8)} if clock_mhz and bus_bits else {}


def _link(device: DeviceInfo, device_id: int) -> dict[str, Band]:
    """PCI Express; none where host and GPU are joined chip to chip (Grace), whose rate NVML does not tell."""
    joined = _ask(device_id, "nvmlDeviceGetC2cModeInfoV")
    lane = _PCIE_BYTES_PER_S_PER_LANE.get(device.pcie_generation or 0)
    if lane is None or not device.pcie_width or (joined is not None and joined.isC2cEnabled):
        return {}
    peak = lane * device.pcie_width
    # pageable copies pass through the host's memcpy, which may be as slow as it likes
    return {name: _band(peak, LOWEST if "pinned" in name else 0.0) for name in _HOST_COPIES}


def _ask(device_id: int, function: str, *arguments: object) -> Any:
    """What an NVML call answers; None where this GPU or container refuses it."""
    with nvml():
        try:
            return getattr(pynvml, function)(nvml_handle(device_id), *arguments)
        except pynvml.NVMLError:
            return None
