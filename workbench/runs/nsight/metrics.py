"""GPU metrics of an Nsight Systems export, by name: metric ids are not stable between captures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from workbench.runs.nsight.convert import Context, integers
from workbench.runs.nsight.names import encoded, pairs
from workbench.runs.nsight.source import Source, Span

SOURCE: Final = "GPU_METRICS"
TYPES: Final = "TARGET_INFO_GPU_METRICS"
_UNITS: Final = {"%": "percent", "throughput %": "percent"}
_AS_GPM: Final = {"sms_active_percent": "sm_active_percent", "gr_active_percent": "graphics_active_percent"}
_HZ_PER_MHZ: Final = 1e6
_DEVICE_MASK: Final = 0xFF  # the low byte of a type id is the GPU's number


def metric_names(source: Source) -> dict[tuple[int, int], str]:
    """Name of each metric by (type id, metric id), with its unit as a suffix."""
    if not {"typeId", "metricId", "metricName"} <= source.tables.get(TYPES, frozenset()):
        return {}
    found: dict[tuple[int, int], str] = {}
    for batch in source.batches(TYPES, ["typeId", "metricId", "metricName"]):
        keys = zip(integers(batch.column(0)).tolist(), integers(batch.column(1)).tolist(), strict=True)
        found |= dict(zip(keys, map(plain_metric_name, batch.column(2).cast(pa.string()).to_pylist()), strict=True))
    return found


def plain_metric_name(name: str | None) -> str:
    """`DRAM Read Bandwidth [Throughput %]` → `dram_read_bandwidth_percent`; what GPM measures too has GPM's name."""
    text, _, unit = (name or "").partition("[")
    unit = unit.rstrip("] ").lower()
    words = f"{text} {_UNITS.get(unit, unit)}".lower()
    plain = re.sub(r"[^a-z0-9]+", "_", words).strip("_")
    return _AS_GPM.get(plain, plain)


def read_metrics(
    source: Source, context: Context, names: dict[tuple[int, int], str], spans: Sequence[Span] = ()
) -> Iterator[pa.Table]:
    """Rows of the table `counters`, without `pass`, in the order of the file.

    A sample's window reaches back to the sample before it; that of the first sample of a device is unknown. Nsight
    writes clocks in hertz under a name that says MHz; they become megahertz.
    """
    last: dict[int, tuple[int, int]] = {}
    for rows in source.batches(SOURCE, ["timestamp", "typeId", "metricId", "value"], spans):
        batch = rows
        if context.device is not None:
            mine = (integers(rows.column("typeId")) & _DEVICE_MASK) == context.device
            batch = rows.filter(pa.array(mine))
        if not len(batch):
            continue
        kinds = integers(batch.column("typeId"))
        device = kinds & _DEVICE_MASK
        time = integers(batch.column("timestamp"))
        found, codes = pairs(kinds, integers(batch.column("metricId")))
        named = [names.get(pair, f"metric_{pair[1]}") for pair in found]
        in_hertz = np.array([name.endswith("_mhz") for name in named])
        value = np.asarray(batch.column("value").cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
        scale = np.where(in_hertz, _HZ_PER_MHZ, 1.0)[codes]
        yield pa.table(
            {
                "time_ns": time + context.epoch_ns,
                "window_ns": _windows(time, device, last),
                "device": device,
                "metric": encoded(pa.array(codes), named),
                "value": value / scale,
            }
        )


def _windows(time: np.ndarray, device: np.ndarray, last: dict[int, tuple[int, int]]) -> pa.Array:
    """Nanoseconds since the device's previous sample, null for its first.

    last: the last moment of each device and its window, carried from batch to batch: a batch may end inside a sample.
    """
    windows = np.zeros(len(time), np.int64)
    for each in np.unique(device).tolist():
        mine = device == each
        moments, place = np.unique(time[mine], return_inverse=True)
        moment, window = last.get(each, (int(moments[0]), 0))
        steps = np.diff(moments, prepend=moment)
        if moments[0] == moment:
            steps[0] = window
        windows[mine] = steps[place]
        last[each] = int(moments[-1]), int(steps[-1])
    return pa.array(windows, mask=windows <= 0)
